"""The desk: what it shows, from real jobs; who may see it; that nothing on it is markup of others."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import tasks
from app.kit.database.file import database
from app.kit.desk import desk, mail as desk_mail
from app.kit.doctor.disk import Check
from app.kit.mail import lanes, suppressions
from app.kit.mail.replies import Reply
from app.kit.mail.sending import send_email
from tasks.example import count_words
from tests.conftest import RunJobs
from tests.kit.desk_rig import (
    FAIL,
    HOSTILE,
    add_template,
    failing,
    look,
    part,
    text_of,
    values,
)

LIVE_PARTS = ["state", "pause", "numbers", "pictures", "tasks", "workers", "cron", "mail"]


@pytest.fixture(autouse=True)
def note(app: Flask) -> None:
    """A mail to send."""
    add_template(app)


@pytest.fixture
def fail(app: Flask) -> Iterator[Callable[..., Any]]:
    """A task that raises ValueError with the word it is given."""
    with failing() as task:
        yield task


# Who may see it


def test_nobody_but_the_operator_sees_any_page_of_the_desk(app: Flask, client: FlaskClient) -> None:
    email_id = send_email("cleo@example.com", "note", subject="Hi")
    for path in ("/desk", "/desk/live", "/desk/doctor", "/desk/emails", f"/desk/emails/{email_id}"):
        answer = client.get(path)
        assert answer.status_code == 303, path
        assert answer.location.startswith("/sign-in?next=/desk"), answer.location
        assert "cleo" not in answer.text


def test_every_page_of_the_desk_is_known_to_the_test_above(app: Flask) -> None:
    shown = {
        str(rule)
        for rule in app.url_map.iter_rules()
        if str(rule).startswith("/desk") and "GET" in (rule.methods or ())
    }
    assert shown == {
        "/desk", "/desk/live", "/desk/doctor", "/desk/emails",
        f"/desk/emails/<int(max={desk_mail.MAX_ID}):email_id>",
    }  # fmt: skip


# The queue


def test_an_idle_desk_is_shown_whole(operator: FlaskClient) -> None:
    page = look(operator)
    assert values(page, "data-part") == sorted(LIVE_PARTS, key=values(page, "data-part").index)
    for name in ("scheduled", "ready", "running", "done", "failed", "cancelled"):
        assert f'data-count="{name}">0<' in page
    words = text_of(page)
    assert "Nothing waits; none arrive, none are served." in words
    assert "No job has failed." in words
    assert "No process is at work." in words
    assert "0 jobs done and 0 failed in the last hour." in words


def test_what_ran_is_counted_by_state_by_minute_and_by_task(
    operator: FlaskClient, run_jobs: RunJobs, fail: Callable[..., Any]
) -> None:
    for _ in range(3):
        count_words("to be or not")
    fail("no such book")
    run_jobs()
    fail("waits")
    page = look(operator)
    for name, count in {"done": 3, "failed": 1, "ready": 1, "running": 0}.items():
        assert f'data-count="{name}">{count}<' in page
    words = text_of(page)
    assert "1 job waits" in words
    assert "3 jobs done and 1 failed in the last hour." in words
    task_row = page.split(f'data-task="{FAIL}"', 1)[1].split("</tr>", 1)[0]
    numbers = re.findall(r"<td(?: class=\"bad\")?>(\d+)</td>", task_row)
    assert numbers == ["1", "0", "0", "0", "1"]  # ready, later, running, done, failed
    assert task_row.count("<rect") == 1
    assert page.count('class="failed"') >= 1


def test_tasks_stand_in_the_order_of_their_names_whatever_ran(
    operator: FlaskClient, run_jobs: RunJobs, fail: Callable[..., Any]
) -> None:
    before = values(look(operator), "data-task")
    fail("x")
    run_jobs()
    assert values(look(operator), "data-task") == before == sorted(before)


def test_workers_say_what_they_do_and_since_when(operator: FlaskClient, fail: Callable[..., Any]) -> None:
    job = fail("x").id
    row = ("4711-ab", 4711, 2, "running", 1, tasks.huey.now() - 100)
    database.write(lambda c: c.execute("INSERT INTO postroom_instances VALUES (?, ?, ?, ?, ?, ?)", row))
    tasks.huey.claim("4711-ab", "Worker-2", tasks.huey.rules())
    database.write(lambda c: c.execute("UPDATE postroom_jobs SET started_at = started_at - 1000"))
    page = look(operator)
    workers = text_of(part(page, "workers"))
    assert "4711-ab holds the clock" in workers
    assert "Worker-1 nothing Worker-2 tests. kit. desk_ rig. fail overdue 17 min" in workers
    assert f'href="/jobs/{job}"' in part(page, "workers")
    assert "1 of 2 workers : the body runs longer than its task allows." in text_of(part(page, "state"))


def test_the_next_runs_by_the_clock_are_shown(operator: FlaskClient) -> None:
    cron = text_of(part(look(operator), "cron")).replace(" ", "")
    assert "app.kit.mail.upkeep.forget_old_mails" in cron
    assert re.search(r"\d\d:\d\d", cron)


def test_pauses_are_told_with_reason_and_end(operator: FlaskClient, fail: Callable[..., Any]) -> None:
    tasks.huey.pause(FAIL, reason="the supplier is down")
    tasks.huey.pause("", seconds=3600, reason="we move house")
    page = look(operator)
    assert "paused until somebody resumes it ( the supplier is down )" in text_of(part(page, "tasks"))
    assert re.search(
        r"The whole queue is paused until \S+ UTC \( we move house \)", text_of(part(page, "state"))
    )
    assert "Resume the queue" in part(page, "pause")


def test_what_ails_the_queue_and_the_host_is_said(
    operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.huey, "health", lambda: ["No consumer is running."])
    page = look(operator)
    assert "No consumer is running." in text_of(part(page, "state"))
    assert 'class="ok"><strong>versions</strong>' in page
    assert "data folder" in page


def test_when_all_is_well_it_says_so(operator: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.huey, "health", list)
    assert 'id="well"' in part(look(operator), "state")


# The shelf


def shelf(page: str) -> list[str]:
    return values(page, "data-job")


def test_the_shelf_can_be_filtered_by_task_and_by_words(
    operator: FlaskClient, run_jobs: RunJobs, fail: Callable[..., Any]
) -> None:
    price, author = fail("no PRICE at all").id, fail("no author").id
    run_jobs()
    page = look(operator)
    assert sorted(shelf(page)) == sorted([price, author])
    assert f'href="/jobs/{price}"' in page
    assert "ValueError: no author" in text_of(page)
    assert shelf(look(operator, "/desk?q=price")) == [price]
    assert len(shelf(look(operator, f"/desk?task={FAIL}"))) == 2
    page = look(operator, f"/desk?task={FAIL}&q=nothing+like+it")
    assert (shelf(page), "No failed job fits." in page) == ([], True)
    assert 'value="nothing like it"' in page
    assert f"<option selected>{FAIL}</option>" in page
    assert shelf(look(operator, "/desk?task=no.such.task")) == []


def test_the_shelf_is_paged_and_keeps_its_filter(
    operator: FlaskClient, run_jobs: RunJobs, fail: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kit.desk.desk.SHELF_LENGTH", 2)
    all_of_them = {fail("old & new").id for _ in range(3)}
    run_jobs()
    page = look(operator, f"/desk?task={FAIL}&q=old+%26")
    assert len(shelf(page)) == 2
    (older,) = [href for href in values(page, "href") if "before=" in href]
    rest = look(operator, older)
    assert {*shelf(page), *shelf(rest)} == all_of_them
    assert 'value="old &amp;"' in rest
    assert "The newest" in rest


@pytest.mark.parametrize("before", ["x", "0", "-1", str(2**63)])
def test_a_page_of_the_shelf_that_cannot_be_is_refused(operator: FlaskClient, before: str) -> None:
    look(operator, f"/desk?before={before}", 400)


# Live


def test_the_live_parts_are_those_of_the_page_and_are_kept_nowhere(
    operator: FlaskClient, run_jobs: RunJobs, fail: Callable[..., Any]
) -> None:
    fail("x")
    run_jobs()
    page, answer = look(operator), operator.get("/desk/live")
    assert answer.headers["Cache-Control"] == "no-store"
    assert sorted(values(answer.text, "data-part")) == sorted(LIVE_PARTS)
    for name in ("numbers", "tasks", "cron"):
        ids = values(part(answer.text, name), "id")
        assert ids
        assert all(f'id="{one}"' in page for one in ids)
    assert "<html" not in answer.text


# This host


def test_the_full_look_tries_the_database_and_the_way_of_mail_too(operator: FlaskClient) -> None:
    look(operator)
    words = text_of(look(operator, "/desk/doctor"))
    assert re.search(r"database : \S*postroom.db is sound", words)
    assert "mail : Mail is kept in the built-in inbox" in words


def test_one_full_look_at_a_time(operator: FlaskClient) -> None:
    with desk._looking:
        answer = operator.get("/desk/doctor")
    assert (answer.status_code, answer.location) == (303, "/desk#host")
    assert "Somebody looks at this host already" in look(operator)
    look(operator, "/desk/doctor")


def test_the_host_is_not_looked_at_for_every_page(
    operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(operator)
    monkeypatch.setattr("app.kit.doctor.doctor.look", lambda *_args, **_options: pytest.fail("looked again"))
    look(operator)
    look(operator, "/desk/live")


# Words of others


@pytest.fixture
def hostile_email_id(run_jobs: RunJobs, note: None) -> Iterator[int]:
    """Words of others wherever words of others can be, a mail's row among them."""
    with failing(f"task {HOSTILE}") as task:
        task(HOSTILE)
        run_jobs()
        task(HOSTILE)
        tasks.huey.pause(tasks.huey.list_jobs("failed")[0]["task"], reason=HOSTILE)
        tasks.huey.pause("", reason=HOSTILE)
        lanes.note_fault(HOSTILE, Reply("connect", None, "", HOSTILE), (300,))
        suppressions.add("cleo@example.com", HOSTILE, HOSTILE)
        email_id = send_email("cleo@example.com", "note", subject="Hi", dedup_key=HOSTILE)
        fields = [
            "to_address",
            "subject",
            "template",
            "words",
            "stage",
            "enhanced",
            "list_name",
            "message_id",
        ]
        change = ", ".join(f"{field} = ?1" for field in fields)
        moments = ", sending_at = created_at, answered_at = created_at, state = 'unknown'"
        database.write(lambda c: c.execute(f"UPDATE postroom_emails SET {change}{moments}", (HOSTILE,)))
        attempt = (email_id, "unknown", *["2031-01-01T00:00:00.000Z"] * 2, HOSTILE, 1, HOSTILE, HOSTILE)
        database.write(
            lambda c: c.execute(f"INSERT INTO postroom_email_attempts VALUES ({'?, ' * 7} ?)", attempt)
        )
        yield email_id


def test_nothing_that_is_shown_is_markup_of_others(operator: FlaskClient, hostile_email_id: int) -> None:
    for path in ("/desk", "/desk/live", "/desk/emails", f"/desk/emails/{hostile_email_id}"):
        page = look(operator, path)
        assert "<script>" not in page
        assert "<img" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.parametrize("path", ["/desk", "/desk/emails"])
def test_a_question_is_not_taken_for_markup(operator: FlaskClient, path: str) -> None:
    page = operator.get(path, query_string={"task": HOSTILE, "q": HOSTILE, "to": HOSTILE}).text
    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_pages_hold_nothing_that_their_policy_would_block(
    operator: FlaskClient, run_jobs: RunJobs, fail: Callable[..., Any]
) -> None:
    fail("x")
    run_jobs()
    email_id = send_email("cleo@example.com", "note", subject="Hi")
    for path in ("/desk", "/desk/live", "/desk/emails", f"/desk/emails/{email_id}", "/desk/doctor"):
        page = look(operator, path)
        for forbidden in ("<style", " style=", "<script>", " onclick=", "https://"):
            assert forbidden not in page, path


def test_headings_follow_each_other_and_tables_have_captions(operator: FlaskClient) -> None:
    page = look(operator)
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.count("<table") == page.count("<caption") > 0
    assert not re.search(r"<th(?! scope=)", page.replace("<thead", ""))
    ids = values(page, " id")
    assert len(ids) == len(set(ids))


def test_a_disk_that_fills_up_is_seen_at_once(operator: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    look(operator)
    monkeypatch.setattr(desk, "check_space", lambda _folder: Check("room", "wrong", "0.0 GiB are left."))
    page = look(operator, "/desk/live")
    assert "Room : 0.0 GiB are left." in text_of(part(page, "state"))
