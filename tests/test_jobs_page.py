"""One job as a page and as JSON, and the wait for its end."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from decimal import Decimal

import pytest

import tasks

JOB = {
    "id": "4b1d", "task": "tasks.example.count_words", "state": "running", "attempt": 1, "deaths": 0,
    "enqueued_at": 1_900_000_000.25, "started_at": 1_900_000_001.0, "finished_at": None,
    "progress": None, "result": None, "error": None,
}  # fmt: skip


class Queue:
    """Stands in for the queue: one job, and a note of who waited for it."""

    def __init__(self):
        self.facts = dict(JOB)
        self.waited_s = []
        self.ends_with = {}

    def job(self, uuid):
        return dict(self.facts) if uuid == self.facts["id"] else None

    def wait_for_end(self, uuid, seconds):
        self.waited_s.append((uuid, seconds))
        self.facts |= self.ends_with


@pytest.fixture
def queue(app, monkeypatch):
    queue = Queue()
    monkeypatch.setattr(tasks.huey, "job", queue.job)
    monkeypatch.setattr(tasks.huey, "wait_for_end", queue.wait_for_end)
    return queue


def page_of(client, job_id="4b1d"):
    return html.unescape(client.get(f"/jobs/{job_id}").get_data(as_text=True))


def test_a_job_as_json_has_these_keys_and_moments_with_z(client, queue):
    assert client.get("/api/jobs/4b1d").json == JOB | {
        "enqueued_at": "2030-03-17T17:46:40.250Z",
        "started_at": "2030-03-17T17:46:41.000Z",
    }
    assert list(client.get("/api/jobs/4b1d").json) == list(JOB)


def test_a_real_job_has_the_same_keys(client, run_jobs):
    book = {"title": "A Parrot at the Counter", "author": "Cleo Finch", "genre": "Mystery"}
    address = client.post("/api/books", json=book).json["job"]["url"]
    run_jobs()
    job = client.get(address, query_string={"wait": 5}).json
    assert set(job) == set(JOB)
    assert job["state"] == "done"
    assert job["finished_at"].endswith("Z")


def test_waiting_answers_with_the_state_after_the_wait(client, queue):
    queue.ends_with = {"state": "done", "result": 7}
    job = client.get("/api/jobs/4b1d?wait=2.5").json
    assert (job["state"], job["result"]) == ("done", 7)
    assert queue.waited_s == [("4b1d", 2.5)]


def test_waiting_for_a_job_that_does_not_end_answers_with_the_state_of_then(client, queue):
    response = client.get("/api/jobs/4b1d?wait=1")
    assert (response.status_code, response.json["state"]) == (200, "running")


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_nobody_waits_for_a_job_that_has_ended(client, queue, state):
    queue.facts["state"] = state
    assert client.get("/api/jobs/4b1d?wait=25").json["state"] == state
    assert queue.waited_s == []


@pytest.mark.parametrize("wait", ["26", "-1", "soon", "nan", "inf", "1e9"])
def test_a_wait_that_is_out_of_bounds_is_refused(client, queue, wait):
    response = client.get(f"/api/jobs/4b1d?wait={wait}")
    assert response.status_code == 400
    assert response.json["error"]["field"] == "wait"


def test_half_of_the_web_threads_may_wait_and_the_next_one_is_answered_at_once(app, client, queue):
    seats = app.extensions["seats_for_waiting"]
    for _ in range(app.extensions["settings"].web_threads // 2):
        assert seats.acquire(blocking=False)
    response = client.get("/api/jobs/4b1d?wait=25")
    assert (response.status_code, response.headers["Retry-After"]) == (200, "1")
    assert response.json["state"] == "running"
    assert queue.waited_s == []


def test_a_seat_is_free_again_after_the_wait(app, client, queue):
    for _ in range(app.extensions["settings"].web_threads):
        assert "Retry-After" not in client.get("/api/jobs/4b1d?wait=1").headers


@pytest.mark.parametrize("address", ["/api/jobs/other", "/api/jobs/other?wait=25", "/jobs/other"])
def test_an_unknown_job_is_not_found(client, queue, address):
    assert client.get(address).status_code == 404
    assert queue.waited_s == []


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ((1, "two"), [1, "two"]),
        (b"caf\xc3\xa9 \xff", "café \\xff"),
        (Decimal("9.90"), "9.90"),
        (datetime(2031, 5, 4, 9, 30, tzinfo=UTC), "2031-05-04T09:30:00.000Z"),
        ({"sent_at": 5, "set": {2, 1}}, {"sent_at": 5, "set": [1, 2]}),
        ("half a character \ud800", "half a character \ud800"),
    ],
)
def test_a_result_that_json_cannot_say_is_shown_readably(client, queue, result, shown):
    queue.facts |= {"state": "done", "result": result}
    assert client.get("/api/jobs/4b1d").json["result"] == shown
    assert client.get("/jobs/4b1d").status_code == 200


def test_the_page_loads_itself_again_until_the_job_has_ended(client, queue):
    assert 'http-equiv="refresh"' in page_of(client)
    queue.facts |= {"state": "done", "finished_at": 1_900_000_002.0}
    page = page_of(client)
    assert 'http-equiv="refresh"' not in page
    assert "2030-03-17 17:46:42 UTC" in page


def test_the_page_shows_progress(client, queue):
    queue.facts["progress"] = {"done": 40, "total": 300, "note": "mails"}
    page = page_of(client)
    assert "40 of 300: mails" in page
    assert '<progress id="progress" value="40" max="300">' in page


def test_the_page_shows_what_went_wrong_as_text(client, queue):
    queue.facts |= {"state": "failed", "error": {"type": "OSError", "message": "<script>\udce9"}}
    page = client.get("/jobs/4b1d").get_data(as_text=True)
    assert "&lt;script&gt;\\udce9" in page
    assert "<script" not in page
