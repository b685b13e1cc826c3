"""A wait for a result comes to an end: with the result, with the news that none will come, or refused at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from huey import chord
from huey.contrib.asyncio import aget_result, aget_result_group
from huey.exceptions import ResultTimeout, TaskException

from app.kit.engine.body.threads import works_for_body
from app.kit.engine.jobs import upkeep
from app.kit.errors import NoResultError
from tests.kit.engine_rig import PATIENCE_S, Rig, Threads, sleeps_for, until

# What never comes


def cancelled(rig: Rig, give: Any) -> Any:
    result = give.schedule((1,), delay=60)
    rig.huey.cancel(result.id)
    return result


def revoked(rig: Rig, give: Any) -> Any:
    result = give(1)
    result.revoke()
    return result


def expired(rig: Rig, give: Any) -> Any:
    result = give(1, expires=1)
    rig.clock.advance(2)
    return result


def unreadable(rig: Rig, give: Any) -> Any:
    result = give(1)
    rig.database.write(lambda connection: connection.execute("UPDATE postroom_jobs SET payload = x'7b'"))
    return result


def old(rig: Rig, give: Any) -> Any:
    result = give(1)
    rig.run_all()
    rig.clock.advance(rig.huey.ages.result_s + 1)
    while rig.database.write(lambda connection: upkeep.prune(connection, rig.huey.ages, rig.clock())):
        pass
    return result


def deleted(rig: Rig, give: Any) -> Any:
    result = give(1)
    rig.huey.storage.flush_queue()
    return result


def after_a_cancelled(rig: Rig, give: Any) -> Any:
    head, _, last = rig.huey.enqueue(give.s(1, delay=60).then(give).then(give))
    rig.huey.cancel(head.id)
    return last


def periodic(rig: Rig, give: Any) -> Any:
    rig.huey.periodic_task(lambda _moment: True, name="by_the_clock")(lambda: 1)
    rig.huey.enqueue_cron(rig.huey.periodic_tasks()[0], 1)
    (uuid,) = rig.rows("SELECT uuid FROM postroom_jobs")
    return rig.huey._result_handle(give.task_class(id=uuid[0]))


@pytest.mark.parametrize(
    "make", [cancelled, revoked, expired, unreadable, old, deleted, after_a_cancelled, periodic]
)
def test_a_wait_for_what_never_comes_says_so(rig: Rig, give: Any, make: Callable[..., Any]) -> None:
    result = make(rig, give)
    with rig.consuming(), pytest.raises(NoResultError, match=result.id):
        result.get(blocking=True)


def test_who_waits_already_when_a_job_is_cancelled_is_called(rig: Rig, give: Any) -> None:
    result = give.schedule((1,), delay=60)
    with Threads() as threads:
        threads.start(lambda: result.get(blocking=True))
        until(lambda: sleeps_for(rig, result.id))
        rig.huey.cancel(result.id)
    (error,) = threads.errors
    assert isinstance(error, NoResultError)


def test_going_through_results_as_they_come_ends_with_the_one_that_never_comes(rig: Rig, give: Any) -> None:
    results = give.map([1, 2])
    rig.huey.cancel(list(results)[1].id)
    rig.run_all()
    coming = results.as_completed()
    assert next(coming) == 1
    with pytest.raises(NoResultError, match="cancelled"):
        next(coming)


def test_in_immediate_mode_a_job_that_left_no_result_is_not_waited_for(rig: Rig, give: Any) -> None:
    rig.huey.immediate = True
    with pytest.raises(NoResultError):
        give.schedule((1,), delay=60).get(blocking=True)
    with pytest.raises(NoResultError):
        list(rig.huey.enqueue(give.s(1, delay=60).then(give)).as_completed())
    assert list(give.map([1, 2]).as_completed()) == [1, 2]


# What still comes, though it has no row yet


def test_what_follows_is_waited_for_while_what_it_follows_lives(rig: Rig, give: Any) -> None:
    pipeline = rig.huey.enqueue(give.s([1]).then(give).then(give))
    gathered = rig.huey.enqueue(chord([give.s(4), give.s(5)], give.s()))
    with Threads() as threads:
        seen: list[Any] = []
        for result in (list(pipeline)[2], gathered):
            threads.start(lambda result=result: seen.append(result.get(blocking=True)))
            until(lambda result=result: sleeps_for(rig, getattr(result, "callback", result).id))
        rig.run_all()
    assert (threads.errors, sorted(seen)) == ([], [[1], [4, 5]])


def test_results_come_in_the_order_in_which_jobs_end(rig: Rig) -> None:
    gates = [threading.Event(), threading.Event()]

    @rig.huey.task(name="wait")
    def wait(number: int) -> int:
        gates[number].wait(PATIENCE_S)
        return number

    with rig.consuming(2):
        results = wait.map([0, 1])
        coming = results.as_completed()
        gates[1].set()
        assert next(coming) == 1
        gates[0].set()
        assert list(coming) == [0]


# Inside a body


def through_a_pool(wait: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(wait).result()


def through_a_thread_of_a_thread(wait: Callable[[], Any]) -> Any:
    with Threads() as threads:
        threads.start(lambda: through_a_pool(wait))
    raise threads.errors[0]


def through_a_coroutine(wait: Callable[[], Any]) -> Any:
    return asyncio.run(asyncio.to_thread(wait))


@pytest.mark.parametrize("way", [through_a_pool, through_a_thread_of_a_thread, through_a_coroutine])
def test_a_wait_on_a_thread_that_works_for_a_body_is_refused_at_once(
    rig: Rig, give: Any, way: Callable[[Callable[[], Any]], Any]
) -> None:
    body = rig.huey.task(name="body")(lambda: way(lambda: give(1).get(blocking=True)))()
    rig.run_all(workers=1)
    with pytest.raises(TaskException, match="DeadlockError"):
        body.get()


def test_a_pool_that_was_there_before_the_body_works_for_it_only_while_it_runs(rig: Rig) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(works_for_body).result()
        body = rig.huey.task(name="body")(lambda: pool.submit(works_for_body).result())()
        rig.run_all(workers=1)
        assert body.get() is True
        assert not pool.submit(works_for_body).result()


def test_a_thread_that_outlives_its_body_may_wait(rig: Rig, give: Any) -> None:
    go, got = threading.Event(), []

    def stay() -> None:
        go.wait(PATIENCE_S)
        got.append(give(5).get(blocking=True, timeout=PATIENCE_S))

    with Threads() as threads, rig.consuming():
        rig.huey.task(name="body")(lambda: threads.start(stay) and None)().get(blocking=True)
        go.set()
        until(lambda: got == [5])


def test_going_through_results_as_they_come_is_refused_inside_a_body(rig: Rig, give: Any) -> None:
    body = rig.huey.task(name="body")(lambda: list(give.map([1, 2]).as_completed()))()
    rig.run_all(workers=1)
    with pytest.raises(TaskException, match="DeadlockError"):
        body.get()


# Huey's way to await a result


def test_a_result_is_awaited(rig: Rig, give: Any) -> None:
    result, results = give(5), give.map([1, 2])
    with rig.consuming():
        assert asyncio.run(aget_result(result)) == 5
        assert asyncio.run(aget_result_group(results)) == [1, 2]
    with pytest.raises(ResultTimeout):
        asyncio.run(aget_result(give.schedule((1,), delay=60), timeout=0))


def test_what_never_comes_is_not_awaited(rig: Rig, give: Any) -> None:
    with pytest.raises(NoResultError, match="cancelled"):
        asyncio.run(aget_result(cancelled(rig, give)))


def test_a_body_awaits_no_job(rig: Rig, give: Any) -> None:
    async def wait() -> Any:
        return await aget_result(give(1))

    body = rig.huey.task(name="body")(wait)()
    rig.run_all(workers=1)
    with pytest.raises(TaskException, match="DeadlockError"):
        body.get()
