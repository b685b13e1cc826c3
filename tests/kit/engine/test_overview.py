"""What can be seen of the queue: a job, all of it, and a sentence for whatever ails it (P6)."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from app.kit.engine.jobs import claim as claims, enqueue as arrivals, job as jobs, shelf
from app.kit.engine.jobs.enqueue import NewJob
from app.kit.engine.jobs.job import Ending
from app.kit.engine.operate import overview
from app.kit.errors import InvalidInputError
from tests.kit.engine_rig import PATIENCE_S, Rig, until
from tests.kit.queue_rig import NOW, Queue


@pytest.fixture
def queue(queue: Queue) -> Queue:
    """A queue with one instance of two workers."""
    join(queue, "i1", threads=2)
    return queue


def join(queue: Queue, instance: str, threads: int, state: str = "running") -> None:
    row = (instance, 1, threads, state, 0, NOW)
    queue.database.write(lambda c: c.execute("INSERT INTO postroom_instances VALUES (?, ?, ?, ?, ?, ?)", row))


def add(queue: Queue, *uuids: str, timeout_s: float | None = 60, priority: float = 0) -> None:
    new = [NewJob(uuid, uuid.split()[0], b"{}", priority, None, timeout_s) for uuid in uuids]
    queue.database.write(lambda connection: arrivals.insert(connection, new, NOW))


def start(queue: Queue, worker: str, instance: str = "i1", now: float = NOW) -> jobs.ClaimedJob:
    """Have a worker claim the next job."""
    (job,) = queue.database.write(lambda c: claims.claim(c, instance, worker, now, claims.Rules()))
    return job


def health(queue: Queue, after_s: float, limits: dict[str, int] | None = None) -> list[str]:
    return overview.health(queue.database, NOW + after_s, limits or {})


# Health


def test_an_idle_queue_is_well(queue: Queue) -> None:
    assert health(queue, 1e6) == []


@pytest.mark.parametrize("state", ["running", "stopping"])
def test_without_a_consumer_jobs_are_accepted_and_wait(queue: Queue, state: str) -> None:
    queue.database.write(
        lambda c: c.execute(
            "UPDATE postroom_instances SET threads = ?, state = ?", (0 if state == "running" else 2, state)
        )
    )
    (sentence,) = health(queue, 0)
    assert sentence.startswith("No consumer is running")


def test_a_job_nobody_starts_for_half_a_minute_is_told(queue: Queue) -> None:
    add(queue, "mail 1")
    assert health(queue, 30) == []
    (sentence,) = health(queue, 31)
    assert sentence == (
        "A job has been ready for 31 s, and none has started or ended for 30 s, though a worker is free."
    )


def test_a_queue_that_moves_is_well_however_long_a_job_waits(queue: Queue) -> None:
    add(queue, "mail 1", "mail 2")
    job = start(queue, "Worker-1", now=NOW + 100)
    queue.finish(job, Ending("done"), NOW + 110)
    assert health(queue, 140) == []
    assert len(health(queue, 141)) == 1


@pytest.mark.parametrize("paused", ["", "mail"])
def test_a_job_that_waits_out_a_pause_is_no_trouble(queue: Queue, paused: str) -> None:
    add(queue, "mail 1")
    queue.database.write(lambda c: shelf.pause(c, paused, "a rest", NOW + 1000))
    assert health(queue, 999) == []
    assert len(health(queue, 1000)) == 1


def test_a_paused_task_hides_no_other_that_is_not_started(queue: Queue) -> None:
    add(queue, "mail 1", "book 1")
    queue.database.write(lambda c: shelf.pause(c, "mail", "a rest", None))
    assert len(health(queue, 31)) == 1


def test_a_job_that_waits_for_a_place_under_its_tasks_limit_is_no_trouble(queue: Queue) -> None:
    add(queue, "mail 1", "mail 2", timeout_s=900)
    start(queue, "Worker-1")
    assert health(queue, 600, {"mail": 1}) == []
    assert len(health(queue, 600)) == 1


def test_a_job_that_waits_for_a_worker_is_no_trouble(queue: Queue) -> None:
    add(queue, "mail 1", "mail 2", "mail 3", timeout_s=900)
    start(queue, "Worker-1")
    start(queue, "Worker-2")
    assert health(queue, 600) == []


def test_a_job_that_waits_for_a_suspect_is_no_trouble_until_that_is_overdue(queue: Queue) -> None:
    add(queue, "bad 1", "good 1", timeout_s=900)
    queue.database.write(lambda c: c.execute("UPDATE postroom_jobs SET deaths = 2 WHERE uuid = 'bad 1'"))
    start(queue, "Worker-1")
    assert health(queue, 900) == []
    (sentence,) = health(queue, 901)
    assert sentence.startswith("A job that must run alone is overdue")


def test_all_workers_overdue_is_told_and_one_is_not(queue: Queue) -> None:
    add(queue, "mail 1", "mail 2")
    start(queue, "Worker-1")
    start(queue, "Worker-2", now=NOW + 1)
    assert health(queue, 61) == []
    (sentence,) = health(queue, 61.1)
    assert sentence == "All 2 workers are overdue: their bodies hang. The process replaces itself."


def test_a_batch_that_is_overdue_is_one_worker(queue: Queue) -> None:
    add(queue, *(f"sale {n}" for n in range(10)))
    for _ in range(10):
        start(queue, "Worker-1")
    assert health(queue, 100) == []


def test_a_job_without_a_time_limit_is_never_overdue(queue: Queue) -> None:
    add(queue, "mail 1", "mail 2", timeout_s=None)
    start(queue, "Worker-1")
    start(queue, "Worker-2")
    assert health(queue, 1e9) == []


def test_another_process_with_a_free_worker_keeps_the_queue_well(queue: Queue) -> None:
    join(queue, "i2", threads=1)
    add(queue, "mail 1", "mail 2")
    start(queue, "Worker-1")
    start(queue, "Worker-2")
    assert health(queue, 1e6) == []


def test_a_clock_set_back_makes_no_trouble(queue: Queue) -> None:
    add(queue, "mail 1")
    assert health(queue, -3600) == []


# The queue


def test_the_queue_names_each_worker_and_what_it_does(queue: Queue) -> None:
    add(queue, "mail 1")
    start(queue, "Worker-2")
    seen = overview.queue(queue.database, NOW + 61)
    assert [(w["name"], w["job"], w["task"], w["since_at"], w["overdue"]) for w in seen["workers"]] == [
        ("Worker-1", None, None, None, False),
        ("Worker-2", "mail 1", "mail", NOW, True),
    ]


def test_the_queue_counts_every_state_and_names_the_instances(queue: Queue) -> None:
    add(queue, "mail 1", "mail 2")
    queue.finish(start(queue, "Worker-1"), Ending("done"))
    seen = overview.queue(queue.database, NOW)
    expected = {"scheduled": 0, "ready": 1, "running": 0, "done": 1, "failed": 0, "cancelled": 0}
    assert seen["counts"] == expected
    (instance,) = seen["instances"]
    assert (instance["id"], instance["threads"], instance["holds_clock"]) == ("i1", 2, False)


def test_the_oldest_ready_job_is_found_among_all_priorities(queue: Queue) -> None:
    assert overview.oldest_ready_age_s(queue.database, NOW) is None
    add(queue, "a 1", priority=-5)
    queue.database.write(lambda c: c.execute("UPDATE postroom_jobs SET ready_at = ?", (NOW - 90,)))
    add(queue, "b 1", "b 2", priority=5)
    add(queue, "c 1")
    assert overview.oldest_ready_age_s(queue.database, NOW) == 90


# One job


def test_a_job_shows_its_holder_state_progress_and_result(rig: Rig) -> None:
    result = rig.huey.task(name="give")(lambda value: value)({"n": (1, 2)})
    rig.run_all()
    progress = json.dumps({"done": 1, "total": 2, "note": None})
    rig.database.write(lambda c: c.execute("UPDATE postroom_jobs SET progress = ?", (progress,)))
    seen = rig.huey.job(result.id)
    assert (seen["id"], seen["state"], seen["attempt"], seen["deaths"]) == (result.id, "done", 1, 0)
    assert (seen["result"], seen["progress"]["total"], seen["error"]) == ({"n": (1, 2)}, 2, None)
    assert "args" not in seen


def test_a_failed_job_shows_its_error_in_two_parts_and_no_result(rig: Rig) -> None:
    result = rig.huey.task(name="fail")(lambda: {}["key: 1"])()
    rig.run_all()
    seen = rig.huey.job(result.id)
    assert (seen["result"], seen["error"]) == (None, {"type": "KeyError", "message": "'key: 1'"})


def test_a_job_that_nobody_knows_is_none(rig: Rig) -> None:
    assert (rig.huey.job("nobody"), rig.huey.details("nobody")) == (None, None)
    assert overview.has_ended(rig.database, "nobody")


def test_the_operator_sees_arguments_and_each_attempt_with_its_traceback(rig: Rig) -> None:
    def fail(n: int, name: str) -> None:
        raise ValueError(f"no {n}")

    result = rig.huey.task(name="fail", retries=1)(fail)(1, name="x")
    rig.run_all()
    seen = rig.huey.details(result.id)
    assert (seen["args"], seen["kwargs"], seen["priority"], seen["waits"]) == ((1,), {"name": "x"}, 0, 0)
    assert [(a["number"], a["outcome"], a["error"]) for a in seen["attempts"]] == [
        (1, "error", "ValueError: no 1"),
        (2, "error", "ValueError: no 1"),
    ]
    assert "in fail" in seen["attempts"][0]["traceback"]
    assert seen["attempts"][0]["started_at"] <= seen["attempts"][0]["ended_at"]


def test_a_job_that_cannot_be_read_is_shown_with_the_reason(rig: Rig) -> None:
    result = rig.huey.task(name="give")(lambda: None)()
    rig.database.write(lambda c: c.execute("UPDATE postroom_jobs SET payload = X'00'"))
    seen = rig.huey.details(result.id)
    assert (seen["args"], seen["state"]) == (None, "ready")
    assert seen["undecodable"]


def test_jobs_are_listed_newest_first_by_state_and_task(rig: Rig) -> None:
    give, other = (rig.huey.task(name=name)(lambda: None) for name in ("give", "other"))
    uuids = [give().id, other().id, give().id]
    name = rig.rows("SELECT task FROM postroom_jobs")[0][0]
    assert [job["uuid"] for job in rig.huey.list_jobs("ready")] == uuids[::-1]
    assert [job["uuid"] for job in rig.huey.list_jobs("ready", task=name)] == [uuids[2], uuids[0]]
    assert [job["uuid"] for job in rig.huey.list_jobs("ready", limit=1)] == [uuids[2]]
    assert rig.huey.list_jobs("failed") == []


# The shelf, the timeline, pauses


def shelve(queue: Queue, *uuids: str, error: str = "ValueError: no such thing") -> None:
    add(queue, *uuids)
    for uuid in uuids:
        queue.shelve(uuid, error)


def page(
    queue: Queue, task: str | None = None, text: str = "", limit: int = 2, before: int | None = None
) -> Any:
    found = overview.listed(queue.database, "failed", task, text, limit, before)
    return [job["uuid"] for job in found["jobs"]], found["next_before_id"]


def test_the_shelf_is_paged_by_what_was_seen_last(queue: Queue) -> None:
    shelve(queue, "mail 1", "mail 2", "book 3", "mail 4")
    assert page(queue) == (["mail 4", "book 3"], 3)
    queue.database.write(lambda c: shelf.redrive(c, NOW, "book 3"))  # what was seen last may be gone by then
    assert page(queue, before=3) == (["mail 2", "mail 1"], 1)
    assert page(queue, before=1) == ([], None)
    assert page(queue, "mail", before=4) == (["mail 2", "mail 1"], 1)
    assert page(queue, limit=9) == (["mail 4", "mail 2", "mail 1"], None)


def test_the_shelf_is_searched_by_a_part_of_the_error(queue: Queue) -> None:
    shelve(queue, "mail 1", error="KeyError: 100% of O'Brien_")
    shelve(queue, "mail 2", "book 3")
    assert page(queue, text="VALUEerror: no such") == (["book 3", "mail 2"], 2)
    assert page(queue, text="100% of o'brien_") == (["mail 1"], None)
    assert page(queue, text="100%_of") == ([], None)
    assert page(queue, "book", text="such") == (["book 3"], None)
    assert page(queue, text="such" * 1000) == ([], None)


def test_one_search_looks_at_so_many_jobs_and_says_where_to_go_on(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "MOST_LOOKED_AT", 3)
    shelve(queue, "mail 1", error="KeyError: 'rare'")
    shelve(queue, *(f"mail {number}" for number in range(2, 8)))
    assert page(queue, text="rare") == ([], 5)
    assert page(queue, text="rare", before=5) == ([], 2)
    assert page(queue, text="rare", before=2) == (["mail 1"], None)


def test_a_state_that_is_none_is_refused(rig: Rig) -> None:
    with pytest.raises(InvalidInputError, match="asleep"):
        rig.huey.list_jobs("asleep")


def test_tasks_are_named_that_the_code_has_that_had_jobs_or_are_paused(rig: Rig) -> None:
    gone = rig.huey.task(name="gone")(lambda: None)
    gone()
    gone.unregister()
    rig.huey.task(name="new")(lambda: None)
    rig.huey.pause("planned")
    rig.huey.pause()
    names = rig.huey.task_names()
    assert {name.rpartition(".")[2] for name in names} == {"gone", "new", "planned"}


def test_pauses_are_told_while_they_last(rig: Rig) -> None:
    rig.huey.pause("mail", seconds=60, reason="a rest")
    rig.huey.pause(reason="for good")
    whole, mail = rig.huey.pauses()
    assert whole == {"task": "", "reason": "for good", "until_at": None}
    assert (mail["task"], mail["until_at"] > rig.clock()) == ("mail", True)
    rig.clock.advance(61)
    assert rig.huey.pauses() == rig.huey.overview()["pauses"] == [whole]


@pytest.mark.parametrize("how", ["done", "failed", "cancelled"])
def test_an_ended_job_still_tells_since_when_it_was_ready(queue: Queue, how: str) -> None:
    add(queue, "mail 1")
    job = start(queue, "Worker-1", now=NOW + 5)
    queue.finish(job, Ending(how, error=None if how == "done" else "E: e"), NOW + 7)
    row = queue.row("mail 1")
    assert (row["ready_at"], row["started_at"], row["finished_at"]) == (NOW, NOW + 5, NOW + 7)


def test_the_operator_sees_when_a_job_became_ready_or_will_run(rig: Rig) -> None:
    give = rig.huey.task(name="give")(lambda: None)
    ready, scheduled = rig.huey.details(give().id), rig.huey.details(give.schedule(delay=60).id)
    assert (ready["ready_at"], ready["run_at"]) == (ready["enqueued_at"], None)
    assert (scheduled["ready_at"], scheduled["run_at"] > scheduled["enqueued_at"]) == (None, True)


# Overdue


def test_a_body_that_hangs_is_seen_while_others_go_on(rig: Rig) -> None:
    go: threading.Event = threading.Event()
    hang: Any = rig.huey.task(name="hang", timeout=5)(lambda: go.wait(PATIENCE_S) and None)
    with rig.consuming(workers=2) as consumer:
        job = hang()
        until(lambda: rig.row(job.id)["state"] == "running")
        rig.clock.advance(6)
        busy = [worker for worker in rig.huey.overview()["workers"] if worker["job"]]
        assert ([worker["overdue"] for worker in busy], rig.huey.health()) == ([True], [])
        assert consumer.overdue() == []  # it measures by a clock that cannot be set
        go.set()


@pytest.mark.parametrize(("hanging", "deaths", "recycled"), [(1, 0, False), (2, 0, True), (1, 2, True)])
def test_the_process_is_replaced_when_nobody_can_work_any_more(
    rig: Rig, hanging: int, deaths: int, recycled: bool
) -> None:
    go, asked = threading.Event(), []
    hang = rig.huey.task(name="hang", timeout=0.01)(lambda: go.wait(PATIENCE_S) and None)
    for _ in range(hanging):
        hang()
    rig.database.write(lambda c: c.execute("UPDATE postroom_jobs SET deaths = ?", (deaths,)))
    with rig.consuming(workers=2) as consumer:
        consumer.recycle = lambda: asked.append(consumer._recycling)
        until(lambda: len(consumer.overdue()) == hanging)
        consumer.recycle_if_stuck()
        consumer.recycle_if_stuck()
        assert asked == ([True] if recycled else [])
        go.set()
        consumer._recycling = False  # nobody replaces this process: wait for the bodies
