"""A job that finds a worker waiting: it is claimed in the enqueue's own commit, and handed over (P1, P7)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from app.kit.engine.jobs.job import ClaimedJob
from app.kit.errors import QueueFullError
from tests.kit.engine_rig import PATIENCE_S, Rig, Threads, until

WHO = ("i1", "Worker-1")


@pytest.fixture
def give(rig: Rig) -> Any:
    """A task that returns what it is given."""
    return rig.huey.task(name="give")(lambda value=None: value)


@contextmanager
def waiting(rig: Rig) -> Iterator[Callable[[], list[str] | None]]:
    """Wait as a worker does; give a function that tells what was handed over, None while nothing was said."""
    given: list[Sequence[ClaimedJob]] = []
    bell = rig.huey.ready_bell
    with Threads() as threads:
        threads.start(lambda: given.append(bell.wait_for_jobs(bell.rings, WHO)))
        until(lambda: bell._seats, "a worker that waits")
        try:
            yield lambda: [job.uuid for job in given[0]] if given else None
        finally:
            bell.ring_all()


def test_an_enqueue_claims_for_a_worker_that_waits_in_the_same_commit(rig: Rig, give: Any) -> None:
    with waiting(rig) as handed, rig.commits() as count:
        result = give(1)
        until(lambda: handed() is not None, "the hand-over")
        assert (handed(), count()) == ([result.id], 1)
    row = rig.row(result.id)
    assert (row["state"], row["instance"], row["worker"], row["claim"], row["attempt"]) == (
        "running",
        *WHO,
        1,
        1,
    )


def test_what_has_priority_is_handed_over_first_and_nothing_else_is_forgotten(rig: Rig, give: Any) -> None:
    urgent = give.s(1)
    urgent.priority = 5
    rig.huey.enqueue(urgent)
    with waiting(rig) as handed:
        before = rig.huey.ready_bell.rings
        late = give(2)
        until(lambda: handed() is not None, "the hand-over")
        assert handed() == [urgent.id]
        assert (rig.row(late.id)["state"], rig.huey.ready_bell.rings) == ("ready", before + 1)


def test_of_many_the_first_is_handed_over_and_the_bell_rings_for_the_others(rig: Rig, give: Any) -> None:
    with waiting(rig) as handed:
        before = rig.huey.ready_bell.rings
        ids = [result.id for result in give.map([1, 2, 3])]
        until(lambda: handed() is not None, "the hand-over")
        assert (handed(), rig.huey.ready_bell.rings) == (ids[:1], before + 1)
    assert rig.states() == {"running": 1, "ready": 2}


@pytest.mark.parametrize("limit", [None, 1])
def test_a_job_that_may_not_start_is_not_handed_over(rig: Rig, limit: int | None) -> None:
    task = rig.huey.task(name="held", limit=limit)(lambda: None)
    if limit is None:
        rig.huey.pause("tests.kit.engine.test_handover.held")
    else:
        task()
        assert rig.claim()
    with waiting(rig) as handed:
        result = task()
        until(lambda: handed() is not None, "the call")
        assert (handed(), rig.row(result.id)["state"]) == ([], "ready")


def test_a_job_for_later_leaves_the_worker_asleep(rig: Rig, give: Any) -> None:
    with waiting(rig) as handed:
        result = give.schedule(delay=60)
        assert len(rig.huey.ready_bell._seats) == 1
        assert (handed(), rig.row(result.id)["state"]) == (None, "scheduled")


def test_a_job_of_a_transaction_is_there_for_all_once_that_commits(rig: Rig, give: Any) -> None:
    with waiting(rig) as handed:
        with rig.database.transaction():
            result = give(1)
            assert handed() is None
        until(lambda: handed() is not None, "the bell")
        assert (handed(), rig.row(result.id)["state"]) == ([], "ready")


def test_a_job_that_is_refused_leaves_no_worker_waiting_for_it(rig: Rig, give: Any) -> None:
    rig.huey.max_pending_jobs = 0
    with waiting(rig) as handed:
        with pytest.raises(QueueFullError):
            give(1)
        until(lambda: handed() is not None, "the call")
        assert (handed(), rig.states()) == ([], {})


def test_an_id_that_is_live_is_handed_over_once(rig: Rig, give: Any) -> None:
    with waiting(rig) as handed:
        rig.huey.enqueue(give.s(1, id="one"))
        until(lambda: handed() is not None, "the hand-over")
    with waiting(rig) as handed:
        rig.huey.enqueue(give.s(1, id="one"))
        until(lambda: handed() is not None, "the call")
        assert (handed(), rig.row("one")["claim"]) == ([], 1)


def test_a_job_handed_over_while_the_consumer_stops_is_run(rig: Rig, give: Any) -> None:
    bell = rig.huey.ready_bell
    with rig.consuming(workers=1) as consumer:
        until(lambda: bell._seats, "a worker that waits")
        (seat,) = bell._seats
        bell._seats.clear()  # an enqueue has taken it, and is in the middle of its commit
        result = give(1)
        consumer.stop_soon()
        assert consumer.stop_flag.wait(PATIENCE_S)
        seat.give(rig.huey.claim(*seat.who, rig.huey.rules()))
    assert (rig.states(), result.get()) == ({"done": 1}, 1)


def test_workers_and_enqueues_of_many_threads_lose_and_double_nothing(rig: Rig) -> None:
    ran: list[int] = []
    mutex = threading.Lock()

    def body(n: int) -> None:
        with mutex:
            ran.append(n)

    task = rig.huey.task(name="note")(body)
    with rig.consuming(workers=4), Threads() as threads:
        for first in range(0, 400, 100):
            threads.start(lambda first=first: [task(n) for n in range(first, first + 100)])
        until(lambda: len(ran) >= 400, "every job")
        assert rig.huey.wait_until_idle(PATIENCE_S)
    assert (sorted(ran), rig.states()) == (list(range(400)), {"done": 400})
    assert rig.rows("SELECT DISTINCT claim, attempt FROM postroom_jobs") == [(1, 1)]
