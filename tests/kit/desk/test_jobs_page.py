"""One job as a page and as JSON: what each may see of it, the wait for news, the operator's buttons."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import tasks
from app.kit.web.waiting import LONGEST_WAIT_S, Seats
from tests.conftest import RunJobs
from tests.kit.engine_rig import PATIENCE_S
from tests.kit.web.test_waiting import somebody_waiting

KEYS = [
    "id", "task", "state", "attempt", "deaths", "enqueued_at", "started_at", "finished_at",
    "progress", "result", "error",
]  # fmt: skip
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
LIVE_URL = re.compile(r'data-live="([^"]+)"')

MakeTask = Callable[..., Any]
"""What the fixture `make_task` gives."""


@pytest.fixture
def make_task(app: Flask) -> Iterator[MakeTask]:
    """A function that makes a body a task of the site until the end of the test."""
    made = []

    def make_task(body: Callable[..., Any], **options: Any) -> Any:
        name = f"demo_task_{len(made) + 1}"
        made.append(tasks.huey.task(name=name, **options)(body))
        return made[-1]

    yield make_task
    for task in made:
        tasks.huey._registry.unregister(task.task_class)


@pytest.fixture
def waiting(make_task: MakeTask) -> str:
    """A job that waits for a worker."""
    return str(make_task(lambda *args, **kwargs: 7)("<b>secret</b>", colour="red").id)


@pytest.fixture
def failed(make_task: MakeTask, run_jobs: RunJobs) -> str:
    """A job that failed at its second attempt."""

    def body(name: str) -> None:
        raise ValueError(f"<script>no such {name}\udce9")

    job = make_task(body, retries=1)("<b>reader</b>").id
    run_jobs()
    return str(job)


class SteppingJob:
    """A job that is running, and goes on when the test says so."""

    def __init__(self, make_task: MakeTask) -> None:
        self.steps, self.running = threading.Semaphore(0), threading.Event()
        self.uuid = str(make_task(self._body)(3).id)

    def _body(self, total: int) -> str:
        for done in range(1, total + 1):
            self.running.set()
            self.steps.acquire(timeout=PATIENCE_S)
            tasks.progress(done, total, "<i>letters</i>")
        return "all of them"


@pytest.fixture
def stepping(make_task: MakeTask) -> Iterator[SteppingJob]:
    """A job that is running in a real consumer."""
    job, consumer = SteppingJob(make_task), tasks.huey.create_consumer(workers=1)
    consumer.start(always=True)
    assert job.running.wait(PATIENCE_S)
    yield job
    job.steps.release(10)
    consumer.stop()


def page_of(client: FlaskClient, uuid: str) -> str:
    answer = client.get(f"/jobs/{uuid}")
    assert answer.status_code == 200
    return str(answer.get_data(as_text=True))


def words_of(page: str) -> str:
    """Return what a page says, without its tags."""
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", page)).split())


def live_url_of(page: str) -> str:
    (address,) = LIVE_URL.findall(page)
    return html.unescape(address)


# As JSON


def test_a_job_as_json_has_these_keys_and_moments_with_z(client: FlaskClient, run_jobs: RunJobs) -> None:
    book = {"title": "A Parrot at the Counter", "author": "Cleo Finch", "genre": "Mystery"}
    address = client.post("/api/books", json=book).json["job"]["url"]
    assert list(client.get(address).json) == KEYS
    run_jobs()
    job = client.get(address, query_string={"wait": 5}).json
    assert (list(job), job["state"], job["result"]) == (KEYS, "done", 0)
    for key in ("enqueued_at", "started_at", "finished_at"):
        assert MOMENT.fullmatch(job[key])


def test_waiting_answers_with_the_state_after_the_wait(client: FlaskClient, stepping: SteppingJob) -> None:
    stepping.steps.release(3)
    job = client.get(f"/api/jobs/{stepping.uuid}?wait=25").json
    assert (job["state"], job["result"]) == ("done", "all of them")


def test_waiting_for_a_job_that_does_not_end_answers_with_the_state_of_then(
    client: FlaskClient, waiting: str
) -> None:
    response = client.get(f"/api/jobs/{waiting}?wait=0.01")
    assert (response.status_code, response.json["state"]) == (200, "ready")


@pytest.mark.parametrize("wait", ["26", "-1", "soon", "nan", "inf", "1e9"])
def test_a_wait_that_is_out_of_bounds_is_refused(client: FlaskClient, waiting: str, wait: str) -> None:
    response = client.get(f"/api/jobs/{waiting}?wait={wait}")
    assert response.status_code == 400
    assert response.json["error"]["field"] == "wait"


def test_an_error_is_the_operators(client: FlaskClient, operator: FlaskClient, failed: str) -> None:
    stranger = client.get(f"/api/jobs/{failed}").json
    assert (stranger["state"], stranger["error"]) == ("failed", None)
    assert operator.get(f"/api/jobs/{failed}").json["error"]["type"] == "ValueError"


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ((1, "two"), [1, "two"]),
        (b"caf\xc3\xa9 \xff", "café \\xff"),
        (Decimal("9.90"), "9.90"),
        (datetime(2031, 5, 4, 9, 30, tzinfo=UTC), "2031-05-04T09:30:00.000Z"),
        ({"sent_at": 5}, {"sent_at": 5}),
        ("", ""),
        (0, 0),
    ],
)
def test_a_result_that_json_cannot_say_is_shown_readably(
    client: FlaskClient, make_task: MakeTask, run_jobs: RunJobs, result: Any, shown: Any
) -> None:
    job = make_task(lambda: result)().id
    run_jobs()
    assert client.get(f"/api/jobs/{job}").json["result"] == shown
    assert 'aria-label="The result"' in page_of(client, job)


# Who waits for news


@pytest.fixture
def no_seats(app: Flask) -> Iterator[None]:
    """All seats taken: half of the web threads wait already."""
    seats: Seats = app.extensions["seats_for_waiting"]
    with ExitStack() as waits:
        for _ in range(app.extensions["settings"].web_threads // 2):
            waits.enter_context(somebody_waiting(seats))
        yield


@pytest.mark.usefixtures("no_seats")
def test_half_of_the_web_threads_may_wait_and_the_next_one_is_answered_at_once(
    client: FlaskClient, waiting: str
) -> None:
    for address in (f"/api/jobs/{waiting}?wait=25", live_url_of(page_of(client, waiting))):
        response = client.get(address)
        assert response.status_code in (200, 204)
        assert response.headers["Retry-After"] == "1"


@pytest.mark.usefixtures("no_seats")
def test_who_need_not_wait_needs_no_seat(client: FlaskClient, failed: str) -> None:
    for address in (f"/api/jobs/{failed}?wait=25", f"/jobs/{failed}/live?seen=before"):
        response = client.get(address)
        assert response.status_code == 200
        assert "Retry-After" not in response.headers


def test_a_seat_is_free_again_after_the_wait(app: Flask, client: FlaskClient, waiting: str) -> None:
    for _ in range(app.extensions["settings"].web_threads):
        assert "Retry-After" not in client.get(f"/api/jobs/{waiting}?wait=0.01").headers


def test_a_page_that_knows_all_is_told_when_there_is_more(client: FlaskClient, stepping: SteppingJob) -> None:
    page = page_of(client, stepping.uuid)
    for done in (1, 2):
        stepping.steps.release()
        answer = client.get(live_url_of(page))
        page = answer.get_data(as_text=True)
        assert answer.status_code == 200
        assert f"{done} of 3" in page
        assert answer.headers["Cache-Control"] == "no-store"
    stepping.steps.release()
    page = client.get(live_url_of(page)).get_data(as_text=True)
    while LIVE_URL.search(page):
        page = client.get(live_url_of(page)).get_data(as_text=True)
    assert 'data-state="done"' in page


def test_a_page_that_knows_all_is_answered_without_words_after_a_while(
    client: FlaskClient, waiting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kit.desk.jobs.LONGEST_WAIT_S", 0.01)
    answer = client.get(live_url_of(page_of(client, waiting)))
    assert (answer.status_code, answer.get_data()) == (204, b"")
    assert LONGEST_WAIT_S < 30  # proxies give up after that


def test_what_a_page_asks_for_is_the_part_it_shows(client: FlaskClient, stepping: SteppingJob) -> None:
    part = client.get(f"/jobs/{stepping.uuid}/live?seen=nothing").get_data(as_text=True)
    page = page_of(client, stepping.uuid)
    assert part.strip().startswith('<section id="job"')
    assert part.strip() in page


def test_news_of_a_notice_are_a_notice(client: FlaskClient, waiting: str) -> None:
    part = client.get(f"/jobs/{waiting}/live?view=summary").get_data(as_text=True)
    assert 'id="job-timeline"' not in part
    assert "view=summary" in live_url_of(part)


@pytest.mark.parametrize(
    "address", ["/api/jobs/other", "/api/jobs/other?wait=25", "/jobs/other", "/jobs/other/live"]
)
def test_an_unknown_job_is_not_found(client: FlaskClient, address: str) -> None:
    assert client.get(address).status_code == 404


# The page


def test_without_a_script_the_page_loads_itself_again_until_the_job_has_ended(
    client: FlaskClient, waiting: str, run_jobs: RunJobs
) -> None:
    refresh = '<noscript><meta http-equiv="refresh" content="2"></noscript>'
    page = page_of(client, waiting)
    assert refresh in page
    assert '<script type="module" src="/static/kit/live.js">' in page
    run_jobs()
    page = page_of(client, waiting)
    assert refresh not in page
    assert not LIVE_URL.search(page)


def test_the_page_shows_how_far_the_job_is(client: FlaskClient, stepping: SteppingJob) -> None:
    before = page_of(client, stepping.uuid)
    assert '<progress id="progress" class="running"></progress>' in before
    stepping.steps.release(2)
    page = client.get(live_url_of(before)).get_data(as_text=True)
    while "2 of 3" not in page:
        page = client.get(live_url_of(page)).get_data(as_text=True)
    assert '<progress id="progress" class="running" value="2" max="3">' in page
    assert "&lt;i&gt;letters&lt;/i&gt;" in page


def test_the_timeline_has_room_for_what_is_to_come(
    client: FlaskClient, waiting: str, run_jobs: RunJobs
) -> None:
    def steps() -> list[str]:
        return re.findall("<strong>(.*?)</strong>", page_of(client, waiting))

    assert steps() == ["Enqueued", "Attempt 1", "End"]
    run_jobs()
    assert steps() == ["Enqueued", "Attempt 1", "Done"]


def test_the_timeline_tells_each_attempt_and_its_outcome(client: FlaskClient, failed: str) -> None:
    words = words_of(page_of(client, failed))
    assert re.search("Enqueued .* Attempt 1 failed in .* Attempt 2 failed in .* Failed", words)


def test_a_job_that_is_to_come_says_when(client: FlaskClient, make_task: MakeTask) -> None:
    job = make_task(lambda: None).schedule(delay=3600).id
    words = words_of(page_of(client, job))
    assert "scheduled It waits for its time." in words
    assert re.search(r"Attempt 1 waits for its time \d\d:\d\d:\d\d\.\d{3} \(\+1 h|60 min\)", words)


# Who sees what


def test_a_stranger_learns_of_a_failure_only_that_it_failed(client: FlaskClient, failed: str) -> None:
    for address in (f"/jobs/{failed}", f"/jobs/{failed}/live", f"/jobs/{failed}/live?view=summary"):
        page = client.get(address).get_data(as_text=True)
        assert 'data-state="failed"' in page
        for hidden in ("ValueError", "no such", "reader", "Traceback", "method=", "raise", ".py"):
            assert hidden not in page


def test_a_stranger_sees_no_arguments(client: FlaskClient, waiting: str) -> None:
    page = page_of(client, waiting)
    assert "secret" not in page
    assert "colour" not in page


def test_the_operator_sees_arguments_and_what_went_wrong_at_each_attempt(
    operator: FlaskClient, failed: str
) -> None:
    page = page_of(operator, failed)
    words = words_of(page)
    assert "demo_task_1('<b>reader</b>')" in words
    error = "&lt;script&gt;no such &lt;b&gt;reader&lt;/b&gt;"
    assert page.count(f'<p class="error">ValueError: {error}') == 2
    assert f"<strong>ValueError</strong>: {error}" in page
    assert "Traceback" not in page
    assert "<script>no" not in page
    assert "<b>reader" not in page


def test_the_operator_sees_that_a_payload_cannot_be_read(operator: FlaskClient, waiting: str) -> None:
    database = tasks.huey.database
    database.write(lambda connection: connection.execute("UPDATE postroom_jobs SET payload = x'00'").rowcount)
    assert "It cannot be read" in page_of(operator, waiting)


# The operator's buttons


def test_the_operator_runs_a_failed_job_again(operator: FlaskClient, failed: str) -> None:
    answer = operator.submit(f"/jobs/{failed}/retry", page=f"/jobs/{failed}")
    assert (answer.status_code, answer.location) == (303, f"/jobs/{failed}")
    assert 'data-state="ready"' in page_of(operator, failed)


def test_the_operator_cancels_a_job_that_waits(operator: FlaskClient, waiting: str) -> None:
    answer = operator.submit(f"/jobs/{waiting}/cancel", page=f"/jobs/{waiting}")
    assert answer.status_code == 303
    page = page_of(operator, waiting)
    assert 'data-state="cancelled"' in page
    assert 'id="cancel-job"' not in page


def test_a_button_pressed_too_late_says_why_nothing_was_done(
    operator: FlaskClient, waiting: str, run_jobs: RunJobs
) -> None:
    page = page_of(operator, waiting)
    (token,) = re.findall(r'id="cancel-job".*?name="csrf_token" value="([^"]+)"', page, re.DOTALL)
    run_jobs()
    for action in ("cancel", "retry"):
        answer = operator.post(f"/jobs/{waiting}/{action}", data={"csrf_token": token})
        assert answer.status_code == 409
        assert "This job is done" in answer.text


@pytest.mark.parametrize("action", ["retry", "cancel"])
def test_a_stranger_can_press_no_button(client: FlaskClient, failed: str, waiting: str, action: str) -> None:
    page = client.get("/").text
    (token, *_) = re.findall('name="csrf_token" value="([^"]+)"', page)
    for uuid in (failed, waiting):
        answer = client.post(f"/jobs/{uuid}/{action}", data={"csrf_token": token})
        assert answer.status_code == 401
    assert 'data-state="failed"' in page_of(client, failed)
    assert 'data-state="ready"' in page_of(client, waiting)


def test_a_button_for_a_job_that_is_gone_says_so(operator: FlaskClient, waiting: str) -> None:
    page = page_of(operator, waiting)
    (token,) = re.findall(r'id="cancel-job".*?name="csrf_token" value="([^"]+)"', page, re.DOTALL)
    assert operator.post("/jobs/gone/retry", data={"csrf_token": token}).status_code == 404


@pytest.mark.parametrize(
    "id", ["order-42", "6f1e0b6e-8b7a-5b0e-9c1d-0123456789ab", "00000000-0000-0000-0000-000000000000"]
)
@pytest.mark.parametrize("path", ["/jobs/{}", "/jobs/{}/live", "/api/jobs/{}", "/api/jobs/{}?wait=1"])
def test_a_job_whose_id_can_be_guessed_is_the_operators(
    client: FlaskClient, operator: FlaskClient, make_task: MakeTask, path: str, id: str
) -> None:
    before = client.get(path.format(id))
    make_task(lambda: "who ordered it")(id=id)
    after = client.get(path.format(id))
    assert (before.status_code, before.data) == (after.status_code, after.data)
    assert after.status_code == 404
    assert operator.get(path.format(id)).status_code == 200
