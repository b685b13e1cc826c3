"""The verbs of the queue: claim, finish, free, promote, and the rows they may not make (P1, P2, P4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.kit.engine.jobs.enqueue import NewJob
from app.kit.engine.jobs.job import ClaimedJob, Ending
from app.kit.errors import QueueFullError
from tests.kit.engine_rig import Threads
from tests.kit.queue_rig import NOW, Queue

RETRY = Ending("ready", error="ValueError: again", retries=1, retry_delay=2.5)


# Claim


def test_a_claim_takes_the_highest_priority_then_the_oldest(queue: Queue) -> None:
    for uuid, priority in [("a", 0), ("b", 5), ("c", 0), ("d", -1), ("e", 5), ("f", 5.5)]:
        queue.insert(uuid, priority=priority)
    assert [queue.claim_one().uuid for _ in range(6)] == ["f", "b", "e", "a", "c", "d"]
    assert queue.claim() == []


def test_a_claim_notes_who_has_the_job_since_when_and_counts_the_attempt(queue: Queue) -> None:
    queue.insert("a")
    job, row = queue.claim_one(), queue.row("a")
    assert (job.attempt, job.claim, job.deaths, job.waits) == (1, 1, 0, 0)
    assert (row["state"], row["instance"], row["worker"]) == ("running", "i1", "Worker-1")
    assert (row["started_at"], row["attempt"], row["claim"]) == (NOW, 1, 1)


def test_a_scheduled_job_is_not_claimed_before_it_is_promoted(queue: Queue) -> None:
    queue.insert("later", run_at=NOW + 10)
    queue.insert("soon", run_at=NOW + 5)
    assert (queue.claim(), queue.promote(NOW + 4.999)) == ([], 0)
    assert queue.promote(NOW + 5) == 1
    assert queue.claim_one().uuid == "soon"


def test_a_job_whose_time_has_come_already_is_ready_at_once(queue: Queue) -> None:
    queue.insert("past", run_at=NOW - 1)
    queue.insert("now", run_at=NOW)
    assert [queue.row(uuid)["state"] for uuid in ("past", "now")] == ["ready", "ready"]


def test_sixteen_racing_threads_never_claim_a_job_twice(queue: Queue) -> None:
    queue.insert(*(f"job {n}" for n in range(64)))
    taken: list[str] = []
    with Threads() as threads:
        for n in range(16):
            threads.start(lambda n=n: [taken.append(queue.claim_one(f"i{n}").uuid) for _ in range(4)])
    assert threads.errors == []
    assert sorted(taken) == sorted(f"job {n}" for n in range(64))


# Finish


def test_a_finished_job_keeps_its_result_and_its_owner_is_gone(queue: Queue) -> None:
    queue.insert("a")
    assert queue.finish(queue.claim_one(), Ending("done", result=b"5"), NOW + 3)
    row = queue.row("a")
    assert (row["state"], row["result"], row["finished_at"]) == ("done", b"5", NOW + 3)
    assert (row["instance"], row["worker"], row["error"], row["attempt"]) == (None, None, None, 1)
    assert queue.attempts() == []


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_job_that_ends_badly_keeps_its_reason(queue: Queue, state: str) -> None:
    queue.insert("a")
    assert queue.finish(queue.claim_one(), Ending(state, error="ValueError: no", traceback="line 1"))
    assert (queue.row("a")["state"], queue.row("a")["error"]) == (state, "ValueError: no")
    assert queue.attempts() == [(1, "error", "ValueError: no")]


def test_a_retry_goes_behind_what_waits_and_before_what_comes_later(queue: Queue) -> None:
    queue.insert("first", "second", "third")
    queue.finish(queue.claim_one(), RETRY)
    queue.insert("fourth")
    assert [queue.claim_one().uuid, queue.claim_one().uuid] == ["second", "third"]
    job = queue.claim_one()
    assert (job.uuid, job.attempt, job.retries, job.retry_delay, job.claim) == ("first", 2, 1, 2.5, 2)


def test_two_jobs_that_fail_at_once_take_turns_and_keep_nobody_waiting(queue: Queue) -> None:
    queue.insert("bad", "worse", "good")
    seen = []
    for _ in range(5):
        job = queue.claim_one()
        seen.append(job.uuid)
        queue.finish(job, Ending("done") if job.uuid == "good" else RETRY)
    assert seen == ["bad", "worse", "good", "bad", "worse"]


def test_a_retry_stays_within_its_priority(queue: Queue) -> None:
    queue.insert("urgent", priority=5)
    queue.insert("other")
    queue.finish(queue.claim_one(), RETRY)
    assert queue.claim_one().uuid == "urgent"


def test_a_job_whose_process_is_gone_keeps_its_place(queue: Queue) -> None:
    queue.insert("first", "second")
    queue.claim_one()
    queue.free()
    assert queue.claim_one().uuid == "first"


def test_a_retry_for_later_waits_and_then_goes_behind_what_waits_too(queue: Queue) -> None:
    queue.insert("first", "second")
    queue.finish(queue.claim_one(), Ending("scheduled", run_at=NOW + 60, error="ValueError: again"))
    assert (queue.row("first")["state"], queue.row("first")["error"]) == ("scheduled", None)
    assert queue.promote(NOW + 60) == 1
    assert [queue.claim_one().uuid, queue.claim_one().uuid] == ["second", "first"]


def test_a_wait_refunds_the_attempt_and_is_counted_apart(queue: Queue) -> None:
    queue.insert("a")
    queue.finish(queue.claim_one(), Ending("ready", error="RetryTask: not yet", waited=True))
    job = queue.claim_one()
    assert (job.attempt, job.waits) == (1, 1)
    assert queue.attempts() == [(1, "wait", "RetryTask: not yet")]


def finish_again(queue: Queue, job: ClaimedJob) -> None:
    queue.finish(job, Ending("done"))


def free(queue: Queue, job: ClaimedJob) -> None:
    queue.free()


def free_and_claim_elsewhere(queue: Queue, job: ClaimedJob) -> None:
    queue.free()
    queue.claim_one("i2")


def retry_and_claim_again(queue: Queue, job: ClaimedJob) -> None:
    queue.finish(job, RETRY)
    queue.claim_one()


@pytest.mark.parametrize("lose", [finish_again, free, free_and_claim_elsewhere, retry_and_claim_again])
def test_whose_claim_is_old_writes_nothing_at_all(
    queue: Queue, lose: Callable[[Queue, ClaimedJob], None]
) -> None:
    queue.insert("a")
    job = queue.claim_one()
    lose(queue, job)
    before, attempts = queue.row("a"), queue.attempts()
    ending = Ending("failed", error="late", follow_ups=[NewJob("b", "a_task", b"{}")], data={"key": b"value"})
    assert not queue.finish(job, ending)
    assert (queue.row("a"), queue.attempts()) == (before, attempts)
    assert queue.all("SELECT uuid FROM postroom_jobs") == [("a",)]
    assert queue.all("SELECT * FROM postroom_huey_data") == []


def test_an_end_brings_its_follow_ups_its_data_and_its_deletions_with_it(queue: Queue) -> None:
    queue.database.write(
        lambda c: c.execute("INSERT INTO postroom_huey_data (key, value) VALUES ('r:a', X'00')")
    )
    queue.insert("a")
    follow_ups = [NewJob("b", "a_task", b"{}"), NewJob("c", "a_task", b"{}", run_at=NOW + 9)]
    ending = Ending("done", follow_ups=follow_ups, data={"d": b"1"}, deleted_keys=["r:a"])
    assert queue.finish(queue.claim_one(), ending)
    assert queue.all("SELECT uuid, state FROM postroom_jobs") == [
        ("a", "done"),
        ("b", "ready"),
        ("c", "scheduled"),
    ]
    assert queue.all("SELECT key, value FROM postroom_huey_data") == [("d", b"1")]


# Death


def test_a_freed_job_is_ready_with_its_attempt_refunded_and_a_death_counted(queue: Queue) -> None:
    queue.join("i1")
    queue.insert("a", "b")
    queue.claim_one()
    queue.claim_one()
    assert queue.free() == ["a", "b"]
    row = queue.row("a")
    assert (row["state"], row["attempt"], row["deaths"], row["instance"]) == ("ready", 0, 1, None)
    assert queue.attempts()[0] == (1, "death", "its process died while it ran")
    assert queue.all("SELECT * FROM postroom_instances") == []


def test_only_the_claims_of_that_instance_are_freed(queue: Queue) -> None:
    queue.insert("a", "b")
    queue.claim_one("i1")
    queue.claim_one("i2")
    assert queue.free("i2") == ["b"]
    assert (queue.row("a")["state"], queue.row("b")["state"]) == ("running", "ready")


def test_a_job_cut_off_by_an_orderly_stop_counts_no_death(queue: Queue) -> None:
    queue.join("i1", "stopping")
    queue.insert("a")
    queue.claim_one()
    queue.free()
    row = queue.row("a")
    assert (row["state"], row["attempt"], row["deaths"]) == ("ready", 0, 0)
    assert queue.attempts() == [(1, "stopped", "its process was stopped while it ran")]


def test_every_death_is_counted_for_whoever_decides_when_it_is_too_many(queue: Queue) -> None:
    queue.insert("a")
    for _ in range(4):
        queue.join("i1")
        queue.claim_one()
        queue.free()
    assert (queue.row("a")["deaths"], queue.row("a")["attempt"]) == (4, 0)
    assert [number for number, _, _ in queue.attempts()] == [1, 1, 1, 1]


@pytest.mark.parametrize(("has_begun", "deaths"), [(False, 0), (True, 4)])
def test_a_death_before_the_body_has_begun_counts_for_nobody(
    queue: Queue, has_begun: bool, deaths: int
) -> None:
    queue.insert("a")
    for _ in range(4):
        queue.join("i1")
        job = queue.claim_one()
        queue.set_starting(job, True)
        if has_begun:
            queue.set_starting(job, False)
        queue.free()
    assert queue.row("a")["deaths"] == deaths
    if not has_begun:
        assert queue.attempts()[0] == (1, "stopped", "its process died before its body had begun")


def test_what_could_not_begin_may_begin_at_the_next_try(queue: Queue) -> None:
    queue.insert("a")
    queue.join("i1")
    job = queue.claim_one()
    queue.set_starting(job, True)
    queue.finish(job, Ending("ready", error="no process could be started"))
    queue.claim_one()
    queue.free()
    assert queue.row("a")["deaths"] == 1


def test_stops_are_never_counted_as_deaths(queue: Queue) -> None:
    queue.insert("a")
    for _ in range(10):
        queue.join("i1", "stopping")
        queue.claim_one()
        queue.free()
    assert (queue.row("a")["state"], queue.row("a")["deaths"]) == ("ready", 0)


# Limits


@pytest.mark.parametrize("run_at", [None, NOW + 60], ids=["ready", "scheduled"])
def test_a_full_queue_takes_all_of_a_lot_or_none(queue: Queue, run_at: float | None) -> None:
    queue.insert("a", "b", "c", limit=5, run_at=run_at)
    with pytest.raises(
        QueueFullError, match=r"3 jobs are waiting and 3 more would pass MAX_PENDING_JOBS \(5\)"
    ):
        queue.insert("d", "e", "f", limit=5)
    assert queue.all("SELECT COUNT(*) FROM postroom_jobs") == [(3,)]
    queue.insert("g", "h", limit=5)


def test_what_runs_or_has_ended_takes_no_room(queue: Queue) -> None:
    queue.insert("a", "b", limit=2)
    queue.finish(queue.claim_one(), Ending("done"))
    queue.claim_one()
    queue.insert("c", "d", limit=2)


def test_sixteen_racing_threads_fill_the_queue_exactly(queue: Queue) -> None:
    with Threads() as threads:
        for n in range(16):
            threads.start(lambda n=n: [queue.insert(f"{n}/{m}", limit=50) for m in range(10)])
    assert {type(error) for error in threads.errors} == {QueueFullError}
    assert queue.all("SELECT COUNT(*) FROM postroom_jobs") == [(50,)]


def test_follow_ups_and_retries_are_never_refused_for_depth(queue: Queue) -> None:
    queue.insert("a", limit=1)
    job = queue.claim_one()
    queue.insert("b", limit=1)
    follow_ups = [NewJob(f"f{n}", "a_task", b"{}") for n in range(5)]
    assert queue.finish(job, Ending("ready", error="ValueError: x", follow_ups=follow_ups))
    assert queue.all("SELECT COUNT(*) FROM postroom_jobs WHERE state = 'ready'") == [(7,)]


# Ids


@pytest.mark.parametrize("state", ["scheduled", "ready", "running"])
def test_an_id_that_is_live_stays_the_job_it_is(queue: Queue, state: str) -> None:
    queue.insert("a", priority=3, run_at=NOW + 5 if state == "scheduled" else None)
    if state == "running":
        queue.claim_one()
    before = queue.row("a")
    queue.insert("a", priority=9)
    assert (queue.row("a"), before["state"]) == (before, state)


def test_an_id_that_is_live_is_found_again_though_the_queue_is_full(queue: Queue) -> None:
    queue.insert("a", "b", limit=2)
    queue.insert("a", limit=2)
    assert queue.all("SELECT COUNT(*) FROM postroom_jobs") == [(2,)]


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_an_id_that_has_ended_may_be_used_again(queue: Queue, state: str) -> None:
    queue.insert("a")
    queue.finish(queue.claim_one(), Ending(state, result=b"1", error=None if state == "done" else "E: e"))
    queue.insert("a")
    row = queue.row("a")
    assert (row["state"], row["attempt"], row["result"]) == ("ready", 0, None)
    assert row["id"] > 1  # it takes its place behind those who came before
    assert queue.attempts() == []


def test_the_integer_ids_never_repeat(queue: Queue) -> None:
    queue.insert("a", "b")
    queue.database.write(lambda connection: connection.execute("DELETE FROM postroom_jobs"))
    queue.insert("c")
    assert queue.row("c")["id"] == 3


# Very many at a stroke


def test_many_are_counted_by_task_and_state_as_one_by_one(queue: Queue) -> None:
    tasks = [("mail", None), ("sale", NOW + 60), ("mail", NOW + 60), ("mail", NOW)]
    queue.insert_jobs(
        [NewJob(f"at once {n}", task, b"{}", 0, at) for n, (task, at) in enumerate(tasks)], NOW, None
    )
    numbers = "SELECT task, ready, scheduled, minute, now_enqueued FROM postroom_task_counts ORDER BY task"
    at_once = queue.all(numbers)
    assert at_once == [("mail", 2, 1, NOW // 60, 3), ("sale", 0, 1, NOW // 60, 1)]
    for n, (task, at) in enumerate(tasks):
        queue.insert_jobs([NewJob(f"alone {n}", task, b"{}", 0, at)], NOW, None)
    assert queue.all(numbers) == [(task, 2 * a, 2 * b, minute, 2 * c) for task, a, b, minute, c in at_once]


def test_many_with_a_known_id_among_them_are_counted_once(queue: Queue) -> None:
    queue.insert("known")
    queue.insert("new 1", "known", "new 2", "new 1")
    assert queue.all("SELECT ready, now_enqueued FROM postroom_task_counts") == [(3, 3)]


def test_many_that_do_not_fit_leave_no_number_behind(queue: Queue) -> None:
    with pytest.raises(QueueFullError):
        queue.insert(*(f"job {n}" for n in range(11)), limit=10)
    assert queue.all("SELECT * FROM postroom_task_counts") == []
