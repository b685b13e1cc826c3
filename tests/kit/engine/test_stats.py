"""The queue in numbers: exact by minute and task, kept with what they count, read without a job (P4, P6)."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import suppress
from typing import Any

import pytest
from huey import chord
from huey.exceptions import RetryTask

from app.kit.database.file import Database
from app.kit.engine.jobs.enqueue import NewJob
from app.kit.engine.jobs.job import Ending
from app.kit.engine.jobs.schema import LAST_RUNS, RUN_MS_MOST
from app.kit.engine.operate import stats
from tests.kit import queue_rig
from tests.kit.engine_rig import Rig
from tests.kit.queue_rig import Queue
from tests.kit.still_clock import NOW, stop_the_clock

MINUTE = int(NOW // 60)

ZERO = {"enqueued": 0, "done": 0, "failed": 0, "cancelled": 0, "wait_ms": 0, "run_ms": 0}


@pytest.fixture
def rig(rig: Rig) -> Rig:
    """A queue whose clock stands where a minute begins."""
    stop_the_clock(rig)
    return rig


def minute(rig: Rig, back: int = 0) -> dict[str, Any]:
    """Return one of the last minutes, the present one by default."""
    found: dict[str, Any] = rig.huey.stats()["minutes"][-1 - back]
    return found


def counted(rig: Rig) -> dict[str, int]:
    """Return what the present minute counts, without zeros."""
    now = minute(rig)
    return {name: now[name] for name in stats.COUNTED if now[name]}


def of_task(rig: Rig, name: str) -> dict[str, Any]:
    """Return what is said of a task."""
    (found,) = [one for one in rig.huey.stats()["tasks"] if one["task"].endswith(name)]
    return dict(found)


@pytest.fixture
def fail(rig: Rig) -> Any:
    """A task that fails, once tried again."""

    def body() -> None:
        raise ValueError("no")

    return rig.huey.task(name="fail", retries=1)(body)


# What is counted


def test_an_empty_queue_is_an_hour_of_zeros(rig: Rig) -> None:
    seen = rig.huey.stats()
    assert [one["minute_at"] for one in seen["minutes"]] == [
        (MINUTE - back) * 60 for back in range(59, -1, -1)
    ]
    assert all({name: one[name] for name in ZERO} == ZERO for one in seen["minutes"])
    assert (seen["arrival_per_s"], seen["service_per_s"], seen["drain_s"], seen["tasks"]) == (0, 0, None, [])


def test_what_comes_in_and_what_ends_is_counted_once(rig: Rig, give: Any, fail: Any) -> None:
    give(1), give.map([2, 3]), fail()
    assert counted(rig) == {"enqueued": 4}
    while rig.states().get("ready"):
        rig.run_next()
    assert counted(rig) == {"enqueued": 4, "done": 3, "failed": 1}
    assert {name: of_task(rig, "fail")[name] for name in stats.COUNTED} == {
        "enqueued": 1,
        "done": 0,
        "failed": 1,
        "cancelled": 0,
    }


def test_a_job_under_an_id_that_is_live_is_not_counted_again(rig: Rig, queue: Queue) -> None:
    queue.insert("a")
    queue.insert("a", "b")
    assert queue.all("SELECT SUM(enqueued) FROM postroom_job_minutes") == [(2,)]


def test_a_retry_is_no_end_and_no_arrival(rig: Rig, fail: Any) -> None:
    fail()
    rig.run_next()
    assert counted(rig) == {"enqueued": 1}


def test_a_job_that_is_cancelled_by_hand_or_revoked_is_counted_so(rig: Rig, give: Any) -> None:
    by_hand, revoked = give(), give()
    rig.huey.cancel(by_hand.id)
    revoked.revoke()
    rig.run_next()
    assert counted(rig) == {"enqueued": 2, "cancelled": 2}


def test_a_redriven_job_comes_in_again_and_ends_again(rig: Rig, fail: Any) -> None:
    fail()
    rig.run_next(), rig.run_next()
    assert rig.huey.redrive() == 1
    assert counted(rig) == {"enqueued": 2, "failed": 1}
    rig.run_next(), rig.run_next()
    assert counted(rig) == {"enqueued": 2, "failed": 2}


def test_a_job_whose_process_died_three_times_failed_once(rig: Rig, give: Any) -> None:
    give()
    for death in (1, 2, 3):
        rig.claim("i1")
        rig.huey.free("i1")
        assert counted(rig) == ({"enqueued": 1, "failed": 1} if death == 3 else {"enqueued": 1})


def test_what_follows_a_job_is_counted_when_it_comes_in(rig: Rig, give: Any) -> None:
    rig.huey.enqueue(chord([give.s(1), give.s(2)], give.s()))
    rig.run_next()
    assert counted(rig) == {"enqueued": 2, "done": 1}
    rig.run_next()
    assert counted(rig) == {"enqueued": 3, "done": 2}


def test_a_stale_owners_end_is_not_counted(queue: Queue) -> None:
    queue.insert("a")
    stale = queue.claim_one()
    queue.free("i1")
    owner = queue.claim_one("i2")
    assert not queue.finish(stale, Ending("done"))
    assert queue.all("SELECT SUM(done), SUM(run_ms_max) FROM postroom_job_minutes") == [(0, 0)]
    assert queue.finish(owner, Ending("done"))
    assert queue.all("SELECT SUM(done) FROM postroom_job_minutes") == [(1,)]


def test_the_numbers_are_rolled_back_with_what_they_count(rig: Rig, give: Any) -> None:
    give()
    ended = rig.huey.run(rig.claim())
    with suppress(LookupError), rig.database.transaction():
        give(1), give(2)
        rig.finish(ended)
        assert counted(rig) == {"enqueued": 3, "done": 1}
        raise LookupError
    assert counted(rig) == {"enqueued": 1}
    assert of_task(rig, "give")["recent_run_ms"] == []


def test_jobs_that_were_refused_are_not_counted(rig: Rig, give: Any) -> None:
    rig.huey.max_pending_jobs = 2
    with suppress(Exception):
        give.map([1, 2, 3])
    assert counted(rig) == {}


# Times


def test_the_times_of_a_minute_are_those_of_an_ended_job(rig: Rig) -> None:
    @rig.huey.task(name="work")
    def work(seconds: float) -> None:
        rig.clock.advance(seconds)

    work(2.0), work(1.0)
    rig.clock.advance(0.5)
    rig.run_next()
    rig.run_next()
    assert (minute(rig)["wait_ms"], minute(rig)["run_ms"]) == ((500 + 2500) / 2, 1500)
    seen = of_task(rig, "work")
    assert (seen["recent_run_ms"], seen["run_ms_p50"], seen["run_ms_max"]) == ([2000, 1000], 1500, 2000)
    assert seen["last_at"] == rig.clock.now


def test_the_time_of_every_try_is_that_of_the_job(rig: Rig) -> None:
    @rig.huey.task(name="work", retries=1)
    def work() -> None:
        rig.clock.advance(3)
        raise ValueError

    work()
    rig.run_next()
    assert (minute(rig)["run_ms"], of_task(rig, "work")["recent_run_ms"]) == (0, [3000])
    rig.run_next()
    assert (minute(rig)["run_ms"], of_task(rig, "work")["recent_run_ms"]) == (6000, [3000, 3000])


def test_a_batch_is_many_jobs_and_one_run(rig: Rig) -> None:
    def body(items: list[int]) -> None:
        rig.clock.advance(4)

    rig.huey.batch_task(every_s=0, name="batch")(body).map(range(8))
    rig.run_next()
    assert (counted(rig), minute(rig)["run_ms"]) == ({"enqueued": 8, "done": 8}, 500)
    assert of_task(rig, "batch")["recent_run_ms"] == [4000]


def test_a_batch_whose_jobs_run_again_is_a_run_and_no_end(rig: Rig) -> None:
    def body(items: list[int]) -> None:
        rig.clock.advance(4)
        raise RetryTask(delay=60)

    rig.huey.batch_task(every_s=0, name="batch")(body).map(range(8))
    rig.run_next()
    assert (counted(rig), of_task(rig, "batch")["recent_run_ms"]) == ({"enqueued": 8}, [4000])


def test_the_last_twenty_runs_are_kept_the_oldest_first(queue: Queue) -> None:
    queue.insert(*(f"job {number}" for number in range(LAST_RUNS + 5)))
    for number in range(LAST_RUNS + 5):
        assert queue.finish(queue.claim_one(), Ending("done"), queue_rig.NOW + number)
    (task,) = stats.gather(queue.database, NOW, 60)["tasks"]
    assert task["recent_run_ms"] == [number * 1000 for number in range(5, LAST_RUNS + 5)]


@pytest.mark.parametrize(("seconds", "kept_ms"), [(-5, 0), (1e9, RUN_MS_MOST)], ids=["back", "ahead"])
def test_a_clock_that_jumps_spoils_no_number(queue: Queue, seconds: float, kept_ms: int) -> None:
    queue.insert("a", "b")
    for _ in range(2):
        job = queue.claim_one()
        assert queue.finish(job, Ending("done"), job.started_at + seconds)
    now = job.started_at + seconds
    (task,) = stats.gather(queue.database, now, 60)["tasks"]
    assert (task["recent_run_ms"], task["run_ms_max"]) == ([kept_ms, kept_ms], kept_ms)


# Minutes


def test_each_minute_has_its_own_numbers(rig: Rig, give: Any) -> None:
    give(), give()
    rig.clock.advance(61)
    assert counted(rig) == {}
    rig.run_next()
    rig.clock.advance(120)
    give()
    assert [(minute(rig, back)["enqueued"], minute(rig, back)["done"]) for back in (3, 2, 1, 0)] == [
        (2, 0),
        (0, 1),
        (0, 0),
        (1, 0),
    ]
    assert (of_task(rig, "give")["enqueued"], of_task(rig, "give")["done"]) == (3, 1)


def test_a_minute_that_comes_twice_adds_up(rig: Rig, give: Any) -> None:
    for at in (NOW, NOW + 60, NOW, NOW + 60, NOW):
        rig.clock.now = at
        give()
    assert minute(rig)["enqueued"] == 3
    rig.clock.now = NOW + 60
    assert (minute(rig)["enqueued"], minute(rig, 1)["enqueued"]) == (2, 3)


def test_so_many_minutes_are_told_as_are_asked_for(rig: Rig, give: Any) -> None:
    give()
    rig.clock.advance(5 * 60)
    assert len(rig.huey.stats(5)["minutes"]) == 5
    assert [one["enqueued"] for one in rig.huey.stats(6)["minutes"]] == [1, 0, 0, 0, 0, 0]
    assert rig.huey.stats(5)["tasks"][0]["enqueued"] == 0
    assert [len(rig.huey.stats(wrong)["minutes"]) for wrong in (0, -1, 10**9)] == [1, 1, stats.MOST_MINUTES]


# Rates


def test_the_rates_are_those_of_two_minutes_and_the_present_one(rig: Rig, give: Any) -> None:
    give.map(range(10))
    rig.clock.advance(60)
    give.map(range(30))
    for _ in range(12):
        rig.run_next()
    rig.clock.advance(60 + 30)
    seen = rig.huey.stats()
    assert (seen["arrival_per_s"], seen["service_per_s"]) == (40 / 150, 12 / 150)
    rig.clock.advance(30)
    seen = rig.huey.stats()
    assert (seen["arrival_per_s"], seen["service_per_s"]) == (30 / 120, 12 / 120)


def test_the_time_to_drain_is_what_waits_by_what_it_gets_less(rig: Rig, give: Any) -> None:
    give.map(range(100))
    assert rig.huey.stats()["drain_s"] is None
    rig.clock.advance(180)
    assert rig.huey.stats()["drain_s"] is None
    for _ in range(40):
        rig.run_next()
    give.map(range(10))
    rig.clock.advance(120)
    assert rig.huey.stats()["drain_s"] == pytest.approx(70 / ((40 - 10) / 120))


def test_what_grows_or_is_empty_has_no_time_to_drain(rig: Rig, give: Any) -> None:
    give()
    rig.run_next()
    assert rig.huey.stats()["drain_s"] is None
    give(), give()
    rig.run_next()
    assert rig.huey.stats()["drain_s"] is None


# Tasks


def test_a_task_tells_how_many_of_its_jobs_are_where(rig: Rig, give: Any, fail: Any) -> None:
    later = dt.datetime.fromtimestamp(NOW + 60, dt.UTC)
    give(), give(), give.schedule(eta=later), fail.schedule(eta=later)
    rig.claim()
    where = {name: of_task(rig, "give")[name] for name in ("ready", "scheduled", "running")}
    assert where == {"ready": 1, "scheduled": 1, "running": 1}
    assert {one["task"].rpartition(".")[2] for one in rig.huey.stats()["tasks"]} == {"fail", "give"}


def test_of_very_many_tasks_the_busiest_are_told(queue: Queue) -> None:
    names = [f"task {number:03}" for number in range(stats.MOST_TASKS + 3)]
    new = [NewJob(name, name, b"{}") for name in names] + [NewJob("more", names[0], b"{}")]
    queue.insert_jobs(new, NOW, None)
    seen = [one["task"] for one in stats.gather(queue.database, NOW, 60)["tasks"]]
    assert (len(seen), seen[0], seen == sorted(seen)) == (stats.MOST_TASKS, names[0], True)


# What it costs


def test_enqueue_and_end_are_still_one_commit_each(rig: Rig, give: Any) -> None:
    give()
    with rig.commits() as count:
        give()
        rig.run_next()
        assert count() == 3  # enqueue, claim, end
        rig.clock.advance(60)
        rig.run_next()
        assert count() == 5
    assert (minute(rig)["done"], minute(rig, 1)["done"]) == (1, 1)


def tables_read(database: Database, look: Any) -> set[str]:
    """Name the tables that something reads from."""
    read: set[str] = set()

    def note(action: int, table: str | None, *more: str | None) -> int:
        if action == sqlite3.SQLITE_READ and table is not None:
            read.add(table)
        return sqlite3.SQLITE_OK

    reader = database._reader()
    reader.set_authorizer(note)
    try:
        look()
    finally:
        reader.set_authorizer(None)
    return read


def test_no_number_is_found_by_looking_at_jobs(rig: Rig, give: Any) -> None:
    give()
    assert tables_read(rig.database, lambda: rig.huey.job("x")) == {"postroom_jobs"}
    # "" stands for a table that is only counted, of which there must be none.
    assert tables_read(rig.database, rig.huey.stats) == {
        "postroom_task_counts",
        "postroom_past_minutes",
        "postroom_job_minutes",
    }
