"""What is done on the desk: each button does what it says, for the operator, from a form of this site."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import tasks
from app.kit.database.file import database
from app.kit.desk import actions as desk_actions
from app.kit.mail import by_hand, lanes, suppressions, transports
from app.kit.mail.replies import Reply
from app.kit.mail.sending import DELIVER, LANE_PAUSE, send_email
from app.settings import Settings
from tests.conftest import RunJobs
from tests.kit.desk_rig import (
    FAIL,
    add_template,
    failing,
    look,
    make_unknown,
    text_of,
)
from tests.kit.forms import hidden_fields
from tests.kit.smtp_sink import SmtpSink

ACTIONS = (
    "/desk/pause", "/desk/resume", "/desk/shelf/redrive-one", "/desk/shelf/delete", "/desk/shelf/redrive",
    "/desk/lanes/open", "/desk/emails/1/send-again", "/desk/emails/1/mark-sent", "/desk/emails/1/cancel",
    "/desk/suppressions/lift",
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    """Settings with that server."""
    return Settings(data_dir=tmp_path, mail_url=sink.url, mail_from="shop@example.com")


@pytest.fixture(autouse=True)
def note(app: Flask) -> None:
    """A mail to send."""
    add_template(app)


@pytest.fixture
def fail(app: Flask) -> Iterator[Callable[..., Any]]:
    """A task that raises ValueError with the word it is given."""
    with failing() as task:
        yield task


def press(operator: FlaskClient, label: str, page: str = "/desk", **fields: str) -> tuple[str, str]:
    """Press the button of that label whose form holds these hidden fields; return where it led, and the notice."""
    for form in re.findall(r"<form\b[^>]*post.*?</form>", look(operator, page), re.DOTALL):
        action = html.unescape(re.search(r'action="([^"]*)"', form)[1])  # type: ignore[index]
        found = hidden_fields(form, action)
        said = text_of(form.split("<button>", 1)[1]) if "<button>" in form else ""
        if said.split(" tests.")[0].startswith(label) and fields.items() <= found.items():
            return send(operator, action, **found)
    raise AssertionError(f"no button {label} with {fields}")


def send(operator: FlaskClient, action: str, **fields: str) -> tuple[str, str]:
    """Post to an action as a form of the desk does; return where it led, and what is said there."""
    token = hidden_fields(look(operator), "/sign-out")["csrf_token"]
    answer = operator.post(action, data={"csrf_token": token} | fields)
    assert answer.status_code == 303, answer.text
    notices = re.findall(r'<p class="(notice[^"]*)" role="status">(.*?)</p>', look(operator, answer.location))
    assert len(notices) == 1
    return answer.location, ("refused: " if "trouble" in notices[0][0] else "") + text_of(notices[0][1])


def state(uuid: str) -> str:
    job = tasks.huey.job(uuid)
    return "gone" if job is None else str(job["state"])


# Who may


def test_every_action_is_known_to_the_tests_below(app: Flask) -> None:
    posts = {
        str(rule)
        for rule in app.url_map.iter_rules()
        if str(rule).startswith("/desk") and "POST" in (rule.methods or ())
    }
    assert {re.sub(r"<[^>]*>", "1", path) for path in posts} == set(ACTIONS)


def a_failed_job_and_a_paused_mail(fail: Callable[..., Any], run_jobs: RunJobs) -> tuple[str, int]:
    job = fail("x").id
    run_jobs()
    tasks.huey.pause(DELIVER)
    return job, send_email("cleo@example.com", "note", subject="Hi")


@pytest.mark.parametrize("action", ACTIONS)
def test_a_visitor_can_do_nothing(
    client: FlaskClient, fail: Callable[..., Any], run_jobs: RunJobs, action: str
) -> None:
    job, email_id = a_failed_job_and_a_paused_mail(fail, run_jobs)
    visitors_token = hidden_fields(client.get("/").text, "/subscriptions")["csrf_token"]
    answer = client.post(
        action, data={"csrf_token": visitors_token, "job": job, "address": "cleo@example.com"}
    )
    assert answer.status_code == 401, answer.text
    assert "cleo" not in answer.text
    assert_nothing_happened(job, email_id)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("token", [None, "", "wrong"])
def test_the_operator_does_nothing_by_a_form_of_another_site(
    operator: FlaskClient, fail: Callable[..., Any], run_jobs: RunJobs, action: str, token: str | None
) -> None:
    job, email_id = a_failed_job_and_a_paused_mail(fail, run_jobs)
    fields = {"job": job, "address": "cleo@example.com"} | ({} if token is None else {"csrf_token": token})
    assert operator.post(action, data=fields).status_code == 400
    assert_nothing_happened(job, email_id)


@pytest.mark.parametrize("action", ACTIONS)
def test_no_action_is_done_by_a_link(operator: FlaskClient, action: str) -> None:
    assert operator.get(action).status_code == 405


def assert_nothing_happened(job: str, email_id: int) -> None:
    assert state(job) == "failed"
    assert by_hand.details(email_id)["state"] == "queued"
    assert [pause["task"] for pause in tasks.huey.pauses()] == [DELIVER]


# Pauses


def test_the_queue_is_paused_and_goes_on(
    operator: FlaskClient, fail: Callable[..., Any], run_jobs: RunJobs
) -> None:
    location, said = press(operator, "Pause the queue")
    assert (location, said) == (
        "/desk", "The whole queue is paused: what runs goes on to its end, nothing else starts."
    )  # fmt: skip
    (pause,) = tasks.huey.pauses()
    assert pause == {"task": "", "reason": desk_actions.REASON, "until_at": None}
    assert press(operator, "Resume the queue")[1] == "The whole queue goes on."
    assert tasks.huey.pauses() == []


def test_one_task_is_paused_and_goes_on(operator: FlaskClient, fail: Callable[..., Any]) -> None:
    location, said = press(operator, "Pause", task=FAIL)
    assert location == "/desk#tasks"
    assert said.startswith(f"{FAIL} is paused")
    assert [pause["task"] for pause in tasks.huey.pauses()] == [FAIL]
    press(operator, "Resume", task=FAIL)
    assert tasks.huey.pauses() == []


def test_a_task_whose_code_is_gone_can_still_be_resumed(operator: FlaskClient) -> None:
    tasks.huey.pause("tasks.of_yesterday.gone")
    press(operator, "Resume", task="tasks.of_yesterday.gone")
    assert tasks.huey.pauses() == []


def test_a_task_whose_code_is_gone_but_not_its_jobs_can_be_paused(operator: FlaskClient) -> None:
    with failing("gone") as task:
        task("x")
    said = press(operator, "Pause", task="tests.kit.desk_rig.gone")[1]
    assert said.startswith("tests.kit.desk_rig.gone is paused")


def test_resuming_what_is_not_paused_is_refused_in_words(
    operator: FlaskClient, fail: Callable[..., Any]
) -> None:
    assert send(operator, "/desk/resume", task=FAIL)[1] == f"refused: {FAIL} is not paused (any more)."


@pytest.mark.parametrize("action", ["/desk/pause", "/desk/resume"])
def test_a_task_that_nobody_knows_is_404(operator: FlaskClient, action: str) -> None:
    token = hidden_fields(look(operator), "/sign-out")["csrf_token"]
    assert operator.post(action, data={"csrf_token": token, "task": "nobody"}).status_code == 404
    assert tasks.huey.pauses() == []


# The shelf


def test_one_failed_job_runs_again(
    operator: FlaskClient, fail: Callable[..., Any], run_jobs: RunJobs
) -> None:
    first, other = fail("x").id, fail("y").id
    run_jobs()
    location, said = press(operator, "Run again", job=first)
    assert (location, said) == ("/desk#shelf", "1 job runs again as soon as a worker is free.")
    assert (state(first), state(other)) == ("ready", "failed")


def test_a_failed_job_is_deleted_for_good(
    operator: FlaskClient, fail: Callable[..., Any], run_jobs: RunJobs
) -> None:
    first, other = fail("x").id, fail("y").id
    run_jobs()
    assert press(operator, "Delete for good", job=first)[1] == f"Job {first} is deleted."
    assert tasks.huey.job(first) is None
    assert state(other) == "failed"


def test_all_failed_jobs_run_again(
    operator: FlaskClient, fail: Callable[..., Any], run_jobs: RunJobs
) -> None:
    jobs = [fail(str(number)).id for number in range(3)]
    run_jobs()
    assert press(operator, "Yes, run all 3 again")[1] == "3 jobs run again as soon as a worker is free."
    assert [state(job) for job in jobs] == ["ready"] * 3


def test_all_that_the_filter_shows_run_again(
    operator: FlaskClient, fail: Callable[..., Any], run_jobs: RunJobs
) -> None:
    with failing("other") as other:
        blue, red, others = fail("blue sky").id, fail("red").id, other("blue sky").id
        run_jobs()
        location, said = press(operator, "Yes, run all", page=f"/desk?task={FAIL}&q=BLUE+sky")
        assert location == f"/desk?task={FAIL}&q=BLUE+sky#shelf"
        assert said == "1 job runs again as soon as a worker is free."
        assert [state(job) for job in (blue, red, others)] == ["ready", "failed", "failed"]
        press(operator, "Yes, run all", page=f"/desk?task={FAIL}")
        assert [state(job) for job in (blue, red, others)] == ["ready", "ready", "failed"]


def test_what_one_press_runs_again_is_bounded(
    operator: FlaskClient, fail: Callable[..., Any], run_jobs: RunJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_actions, "AT_ONCE", 2)
    jobs = [fail("blue").id for _ in range(3)]
    run_jobs()
    said = send(operator, "/desk/shelf/redrive", q="blue")[1]
    assert said.startswith("2 jobs run again")
    assert said.endswith("press again.")
    assert sorted(state(job) for job in jobs) == ["failed", "ready", "ready"]


def test_running_again_what_is_not_there_is_refused_in_words(operator: FlaskClient) -> None:
    for fields in ({}, {"q": "nothing"}, {"task": FAIL}):
        said = send(operator, "/desk/shelf/redrive", **fields)[1]
        assert said == "refused: No failed job fits, so none runs again."


@pytest.mark.parametrize("action", ["/desk/shelf/redrive-one", "/desk/shelf/delete"])
def test_a_job_that_did_not_fail_is_left_alone(
    operator: FlaskClient, fail: Callable[..., Any], action: str
) -> None:
    job = fail("x").id
    said = send(operator, action, job=job)[1]
    assert said == f"refused: Job {job} is ready; this can only be done to one that failed."
    assert state(job) == "ready"


@pytest.mark.parametrize("action", ["/desk/shelf/redrive-one", "/desk/shelf/delete"])
@pytest.mark.parametrize("job", [{}, {"job": ""}, {"job": "nobody"}, {"job": "%"}])
def test_a_job_that_nobody_knows_is_404(
    operator: FlaskClient, fail: Callable[..., Any], run_jobs: RunJobs, action: str, job: dict[str, str]
) -> None:
    left_alone = fail("x").id
    run_jobs()
    token = hidden_fields(look(operator), action)["csrf_token"]
    assert operator.post(action, data={"csrf_token": token} | job).status_code == 404
    assert state(left_alone) == "failed"


# Mail


def test_the_mail_server_is_tried_now(operator: FlaskClient) -> None:
    lanes.note_fault(transports.transport().name, Reply("connect", None, "", "nobody there"), (300,))
    tasks.huey.pause(DELIVER, 300, LANE_PAUSE + "nobody there")
    location, said = press(operator, "Try now")
    assert (location, said) == ("/desk#mail", "The next mail is tried at once.")
    assert tasks.huey.pauses() == []
    assert lanes.find(transports.transport().name).paused_until == 0
    assert "Try now" not in look(operator)


def test_trying_now_lifts_no_pause_made_by_hand(operator: FlaskClient) -> None:
    lanes.note_fault(transports.transport().name, Reply("connect", None, "", "nobody there"), (300,))
    tasks.huey.pause(DELIVER, reason="we look into it")
    press(operator, "Try now")
    assert [pause["task"] for pause in tasks.huey.pauses()] == [DELIVER]


def test_a_mail_that_may_have_arrived_is_settled(
    operator: FlaskClient, sink: SmtpSink, run_jobs: RunJobs
) -> None:
    lost, arrived = make_unknown(sink, run_jobs), make_unknown(sink, run_jobs)
    action = f"/desk/emails/{lost}/send-again"
    assert send(operator, action, back="mail") == ("/desk#mail", f"Mail {lost} is queued again.")
    assert by_hand.details(lost)["state"] == "queued"
    location, said = press(operator, "It arrived", page=f"/desk/emails/{arrived}")
    assert (location, said) == (f"/desk/emails/{arrived}", f"Mail {arrived} counts as sent.")
    assert by_hand.details(arrived)["state"] == "sent"
    run_jobs()
    assert by_hand.details(lost)["state"] == "sent"


def test_a_mail_that_waits_is_taken_back(operator: FlaskClient, sink: SmtpSink, run_jobs: RunJobs) -> None:
    email_id = send_email("cleo@example.com", "note", subject="Hi")
    location, said = press(operator, "Cancel", page="/desk/emails?state=queued")
    assert (location, said) == ("/desk/emails?state=queued", f"Mail {email_id} is cancelled.")
    run_jobs()
    assert sink.messages == []


def test_what_cannot_be_done_to_a_mail_is_refused_in_words(operator: FlaskClient) -> None:
    email_id = send_email("cleo@example.com", "note", subject="Hi")
    for action in ("send-again", "mark-sent"):
        said = send(operator, f"/desk/emails/{email_id}/{action}")[1]
        assert said.startswith(f"refused: Mail {email_id} is queued; this can only be done to one that is")
    assert by_hand.details(email_id)["state"] == "queued"


@pytest.mark.parametrize("action", ["send-again", "mark-sent", "cancel"])
def test_a_mail_that_nobody_knows_is_404(operator: FlaskClient, action: str) -> None:
    token = hidden_fields(look(operator), "/sign-out")["csrf_token"]
    assert operator.post(f"/desk/emails/1/{action}", data={"csrf_token": token}).status_code == 404


def test_an_address_gets_mail_again(operator: FlaskClient) -> None:
    suppressions.add("cleo@example.com", "has no such mailbox")
    suppressions.add("cleo@example.com", "has unsubscribed", "mystery")
    location, said = press(operator, "Lift", list_name="mystery")
    assert (location, said) == ("/desk#mail", "Mail may go to cleo@example.com again.")
    assert [one.list_name for one in suppressions.find()] == [""]
    press(operator, "Lift", address="cleo@example.com")
    assert suppressions.find() == []


@pytest.mark.parametrize("address", ["", "nobody", "cleo@example.com", "<script>@example.com"])
def test_an_address_that_is_not_held_back_is_refused_in_words(operator: FlaskClient, address: str) -> None:
    assert send(operator, "/desk/suppressions/lift", address=address)[1].startswith("refused: ")


# The way back


@pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "/inbox", "shelf\r\nX: y", ""])
def test_no_form_leads_away_from_the_desk(operator: FlaskClient, back: str) -> None:
    assert send(operator, "/desk/pause", back=back)[0] == "/desk"


def test_a_notice_is_shown_once_and_no_link_can_make_one(operator: FlaskClient) -> None:
    press(operator, "Pause the queue")
    for path in ("/desk", "/desk?notice=You+won", "/desk?done=x&message=x"):
        assert 'role="status"><bdi>' not in look(operator, path)


def test_a_long_refusal_fits_into_its_cookie(operator: FlaskClient) -> None:
    said = send(operator, "/desk/suppressions/lift", address="x" * 100_000)[1]
    assert len(said) <= desk_actions.MOST_WORDS + len("refused: ")


def test_what_was_done_is_durable(operator: FlaskClient) -> None:
    press(operator, "Pause the queue")
    rows = database.read("SELECT reason FROM postroom_pauses WHERE task = ''")
    assert [row["reason"] for row in rows] == [desk_actions.REASON]
