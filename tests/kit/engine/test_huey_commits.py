"""What is written when: the commits of a job, transactions, waking, deadlocks, immediate mode (P1, P3, P7)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from huey import chord, group
from huey.exceptions import TaskException

from app.kit.errors import DeadlockError, PayloadError
from tests.kit.engine_rig import PATIENCE_S, Rig


@pytest.fixture
def rig(rig: Rig) -> Rig:
    """A queue of the test's own, with a table of numbers beside it."""
    rig.database.write(lambda connection: connection.execute("CREATE TABLE numbers (n INTEGER NOT NULL)"))
    return rig


def fail() -> None:
    raise ValueError("no")


# Commits


def test_enqueueing_is_one_commit(rig: Rig, give: Any) -> None:
    rig.states()
    with rig.commits() as count:
        give(1)
        assert count() == 1
        give.schedule(delay=60)
        assert count() == 2


def test_the_end_of_a_job_and_the_claim_of_the_next_are_one_commit(rig: Rig, give: Any) -> None:
    give(1), give(2)
    first = rig.claim()
    with rig.commits() as count:
        ended = rig.huey.run(first)
        assert count() == 0
        second = rig.finish(ended, ("by-hand", "Worker-1"))
        assert count() == 1
    assert [job.payload for job in second] != [job.payload for job in first]
    assert rig.states() == {"done": 1, "running": 1}


def enqueue_pipeline(rig: Rig, give: Any) -> None:
    rig.huey.enqueue(give.s(1).then(give))


def enqueue_chord(rig: Rig, give: Any) -> None:
    rig.huey.enqueue(chord([give.s(1)], give.s()))


def enqueue_broken_with_handler(rig: Rig, give: Any) -> None:
    rig.huey.enqueue(rig.huey.task()(fail).s().error(give))


def enqueue_broken_pipeline(rig: Rig, give: Any) -> None:
    rig.huey.enqueue(rig.huey.task()(fail).s().then(give).then(give))


def enqueue_retry(rig: Rig, give: Any) -> None:
    rig.huey.task(retries=1, retry_delay=1)(fail)()


def enqueue_revoked_once(rig: Rig, give: Any) -> None:
    give().revoke(revoke_once=True)


ENDS = [
    (enqueue_pipeline, {"done": 1, "ready": 1}),
    (enqueue_chord, {"done": 1, "ready": 1}),
    (enqueue_broken_with_handler, {"failed": 1, "ready": 1}),
    (enqueue_broken_pipeline, {"failed": 1}),
    (enqueue_retry, {"scheduled": 1}),
    (enqueue_revoked_once, {"cancelled": 1}),
]


@pytest.mark.parametrize(("enqueue", "states"), ENDS, ids=lambda value: getattr(value, "__name__", None))
def test_whatever_follows_a_job_is_written_with_its_end(
    rig: Rig, give: Any, enqueue: Callable[[Rig, Any], None], states: dict[str, int]
) -> None:
    enqueue(rig, give)
    claimed = rig.claim()
    with rig.commits() as count:
        ended = rig.huey.run(claimed)
        assert (count(), rig.states().get("running")) == (0, 1)
        rig.finish(ended)
        assert (count(), rig.states()) == (1, states)


def test_a_flag_that_is_not_there_costs_no_write(rig: Rig, give: Any) -> None:
    result = give(1)
    with rig.commits() as count:
        assert not result.is_revoked()
        assert not result.restore()
        assert not give.restore()
        assert not rig.huey.is_locked("nothing")
        assert rig.huey.result("nothing") is None
        assert count() == 0


def test_what_a_body_enqueues_or_stores_commits_at_once(rig: Rig, give: Any) -> None:
    @rig.huey.task()
    def fan_out() -> None:
        with rig.commits() as count:
            give(1)
            rig.huey.put("note", [1])
            assert count() == 2
        assert rig.states() == {"running": 1, "ready": 1}
        raise ValueError("too late to take it back")

    fan_out()
    rig.run_next()
    assert rig.states() == {"failed": 1, "ready": 1}
    assert rig.huey.get("note", peek=True) == [1]


# Transactions


def test_a_job_and_the_row_it_is_about_come_to_be_together(rig: Rig, give: Any) -> None:
    with rig.commits() as count:
        with rig.database.transaction() as connection:
            connection.execute("INSERT INTO numbers VALUES (1)")
            result = give(1)
            rig.huey.enqueue(group([give.s(2), give.s(3)]))
            assert rig.row(result.id)["state"] == "ready"
        assert count() == 1
    assert (rig.states(), len(rig.rows("SELECT * FROM numbers"))) == ({"ready": 3}, 1)


def test_a_transaction_that_fails_leaves_no_job_and_wakes_nobody(rig: Rig, give: Any) -> None:
    before = (rig.huey.ready_bell.rings, rig.huey.clock_bell.rings)
    with suppress(ValueError), rig.database.transaction():
        give(1), give.schedule(delay=60), give.map([1, 2])
        raise ValueError
    assert rig.states() == {}
    assert (rig.huey.ready_bell.rings, rig.huey.clock_bell.rings) == before


def test_a_savepoint_that_fails_takes_its_jobs_and_their_bells_with_it(rig: Rig, give: Any) -> None:
    before = rig.huey.ready_bell.rings
    with rig.database.transaction():
        give(1)
        with suppress(ValueError), rig.database.transaction():
            give(2)
            raise ValueError
    assert (rig.states(), rig.huey.ready_bell.rings) == ({"ready": 1}, before + 1)


def test_the_bell_rings_after_the_commit_and_not_before(rig: Rig, give: Any) -> None:
    before = rig.huey.ready_bell.rings
    with rig.database.transaction():
        with rig.database.transaction():
            give(1)
        assert rig.huey.ready_bell.rings == before
    assert rig.huey.ready_bell.rings == before + 1


def test_a_job_refused_inside_a_transaction_leaves_the_rest_of_it(rig: Rig, give: Any) -> None:
    with rig.database.transaction() as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
        with pytest.raises(PayloadError):
            give(math.nan)
        give(1)
    assert (rig.states(), len(rig.rows("SELECT * FROM numbers"))) == ({"ready": 1}, 1)


# Deadlocks


def test_waiting_for_a_result_inside_a_body_is_refused_at_once(rig: Rig, give: Any) -> None:
    wait = rig.huey.task(name="wait")(lambda: give(1).get(blocking=True))
    result = wait()
    rig.run_all(workers=1)
    with pytest.raises(TaskException, match=r"DeadlockError.*\.then"):
        result.get()


@pytest.mark.parametrize("immediate", [False, True], ids=["queued", "immediate"])
def test_waiting_for_a_result_inside_a_transaction_is_refused_at_once(
    rig: Rig, give: Any, immediate: bool
) -> None:
    rig.huey.immediate = immediate
    with rig.database.transaction():
        result = give(1)
        with pytest.raises(DeadlockError, match="transaction"):
            result.get(blocking=True, timeout=0.1)


def test_a_result_that_is_there_may_be_had_anywhere(rig: Rig, give: Any) -> None:
    result = give(5)
    rig.run_all()
    look = rig.huey.task(name="look")(lambda: rig.huey.result(result.id, blocking=True, timeout=PATIENCE_S))()
    rig.run_all()
    with rig.database.transaction():
        assert (look.get(), look.get(blocking=True)) == (5, 5)


# Immediate mode


@pytest.fixture
def immediate(rig: Rig) -> Rig:
    """The same queue, in immediate mode."""
    rig.huey.immediate = True
    return rig


def test_an_immediate_job_runs_where_it_is_enqueued(immediate: Rig, give: Any) -> None:
    assert give(5).get() == 5
    assert immediate.huey.enqueue(group([give.s(1), give.s(2)])).get() == [1, 2]
    assert immediate.huey.enqueue(give.s(1).then(give, 2)).get() == [1, 2]
    assert immediate.huey.enqueue(chord([give.s(1), give.s(2)], give.s())).get() == [1, 2]
    assert immediate.states() == {}


def test_an_immediate_job_runs_after_the_outermost_commit(immediate: Rig) -> None:
    seen: list[object] = []
    look = immediate.huey.task(name="look")(lambda: seen.append(immediate.rows("SELECT n FROM numbers")))
    with immediate.database.transaction() as connection:
        with immediate.database.transaction():
            look()
        connection.execute("INSERT INTO numbers VALUES (1)")
        assert seen == []
    assert seen == [[(1,)]]


def test_an_immediate_job_of_a_transaction_that_failed_never_runs(immediate: Rig) -> None:
    seen: list[int] = []
    look = immediate.huey.task(name="look")(lambda: seen.append(1))
    with suppress(ValueError), immediate.database.transaction():
        look()
        raise ValueError
    assert seen == []


def test_an_immediate_job_is_refused_what_the_queue_would_refuse(immediate: Rig, give: Any) -> None:
    with pytest.raises(PayloadError):
        give({1, 2})
    given: list[Any] = [1]
    assert give(given).get() is not given


def test_an_immediate_job_that_fails_says_so_in_its_result(immediate: Rig) -> None:
    result = immediate.huey.task()(fail)()
    with pytest.raises(TaskException, match="no"):
        result.get()


def test_a_transaction_inside_bulk_takes_its_jobs_along(rig: Rig, give: Any) -> None:
    def fail_inside() -> None:
        with rig.database.transaction():
            give(2)
            raise LookupError

    with rig.huey.bulk():
        give(1)
        with pytest.raises(LookupError):
            fail_inside()
        with rig.database.transaction():
            give(3)
        assert rig.states() == {
            "ready": 1
        }  # the third came with its transaction, the first waits for the end
    assert rig.states() == {"ready": 2}


def test_what_follows_a_job_is_announced_when_it_is_written(rig: Rig, give: Any) -> None:
    seen: list[tuple[str, int]] = []

    @rig.huey.signal("enqueued")
    def note(signal: str, task: Any) -> None:
        seen.append((task.name, sum(rig.states().values())))

    rig.huey.enqueue(give.s(1).then(give))
    rig.run_next()
    assert seen == [("give", 0), ("give", 2)]
