"""Batch tasks: one call for many jobs, and only the bad one fails when a call does (P2)."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huey.exceptions import CancelExecution, RetryTask

from tests.kit.engine_rig import PATIENCE_S, Rig, rig_in, until
from tests.kit.still_clock import NOW, stop_the_clock


class Calls:
    """A batch task's body that keeps each list it is called with, and raises for some of them."""

    def __init__(self, fails: Callable[[list[Any]], Any] = lambda items: None) -> None:
        self.lists: list[list[Any]] = []
        self.fails = fails

    def take(self, items: list[Any]) -> None:
        self.lists.append(items)
        self.fails(items)


def fail_for(bad: Any) -> Callable[[list[Any]], None]:
    def fail(items: list[Any]) -> None:
        if bad in items:
            raise ValueError(f"{bad} is bad")

    return fail


def batch_task(rig: Rig, calls: Calls, **options: Any) -> Any:
    options = {"every_s": 5, "max_jobs": 100, "name": "sale"} | options
    return rig.huey.batch_task(**options)(calls.take)


def run_batches(rig: Rig) -> None:
    """Let the time of the batch come, and run on this thread whatever is ready."""
    rig.clock.advance(5)
    rig.promote()
    while claimed := rig.claim():
        rig.finish(rig.huey.run(claimed))


@pytest.fixture
def rig(rig: Rig) -> Rig:
    """A queue whose clock stands still."""
    stop_the_clock(rig)
    return rig


# The call


def test_what_is_enqueued_is_handed_over_in_one_call_in_order(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls())
    for n in range(10):
        sale(n)
    run_batches(rig)
    assert calls.lists == [list(range(10))]
    assert rig.states() == {"done": 10}


def test_a_job_waits_until_its_batch_closes(rig: Rig) -> None:
    sale = batch_task(rig, Calls())
    rig.clock.advance(1)
    first = sale(1).id
    rig.clock.advance(3.5)
    second = sale(2).id
    assert [rig.row(uuid)["run_at"] for uuid in (first, second)] == [NOW + 5, NOW + 5]
    rig.clock.advance(0.5)
    assert rig.row(sale(3).id)["run_at"] == NOW + 10


def test_a_batch_takes_no_more_than_it_may(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls(), max_jobs=4)
    sale.map(range(10))
    run_batches(rig)
    assert calls.lists == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_an_item_is_the_argument_or_the_tuple_of_arguments(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls())
    sale("one")
    sale("two", 2)
    sale()
    sale([1, 2])
    run_batches(rig)
    assert calls.lists == [["one", ("two", 2), (), [1, 2]]]


def test_a_single_job_is_a_list_of_one(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls())
    sale(7)
    run_batches(rig)
    assert calls.lists == [[7]]


def test_a_batch_of_a_hundred_ends_in_one_commit(rig: Rig) -> None:
    sale = batch_task(rig, Calls())
    sale.map(range(100))
    rig.clock.advance(5)
    rig.promote()
    ended = rig.huey.run(rig.claim())
    with rig.commits() as count:
        rig.finish(ended)
        assert (len(ended), count()) == (100, 1)


def test_a_coroutine_may_be_a_batch_tasks_body(rig: Rig) -> None:
    lists = []

    @rig.huey.batch_task(every_s=5, name="slow_sale")
    async def sale(items: list[int]) -> None:
        await asyncio.sleep(0)
        lists.append(items)

    sale(1), sale(2)
    run_batches(rig)
    sale(3)
    run_batches(rig)
    assert (lists, rig.states()) == ([[1, 2], [3]], {"done": 3})


def test_a_batch_task_without_a_period_takes_what_is_there(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls(), every_s=0)
    sale(1), sale(2)
    while claimed := rig.claim():
        rig.finish(rig.huey.run(claimed))
    assert calls.lists == [[1, 2]]


def test_in_immediate_mode_each_is_a_list_of_one(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls())
    rig.huey.immediate = True
    sale(1), sale(2)
    assert calls.lists == [[1], [2]]


def test_the_consumer_runs_a_batch_when_its_time_comes(tmp_path: Path) -> None:
    with rig_in(tmp_path) as rig:
        sale = batch_task(rig, calls := Calls(), every_s=3600)
        with rig.consuming():
            for n in range(50):
                sale(n)
            assert calls.lists == []
            rig.clock.advance(3600)
            rig.huey.clock_bell.ring()
            until(lambda: rig.states() == {"done": 50})
    assert [len(items) for items in calls.lists] == [50]


# A call that fails


def test_only_the_bad_one_of_a_batch_fails(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls(fail_for(2)))
    results = [sale(n) for n in range(4)]
    run_batches(rig)
    assert calls.lists == [[0, 1, 2, 3], [0], [1], [2], [3]]
    assert [rig.row(result.id)["state"] for result in results] == ["done", "done", "failed", "done"]
    assert rig.row(results[2].id)["error"] == "ValueError: 2 is bad"


def test_the_try_alone_comes_at_once_and_costs_no_attempt(rig: Rig) -> None:
    sale = batch_task(rig, Calls(fail_for(1)), retries=2, retry_delay=600)
    good, bad = sale(0), sale(1)
    run_batches(rig)
    row = rig.row(good.id)
    assert (row["state"], row["attempt"], row["waits"]) == ("done", 1, 1)
    row = rig.row(bad.id)
    assert (row["state"], row["attempt"], row["run_at"]) == ("scheduled", 1, NOW + 5 + 600)


def test_the_history_says_that_the_batch_failed(rig: Rig) -> None:
    sale = batch_task(rig, Calls(fail_for(1)))
    good = sale(0)
    sale(1)
    run_batches(rig)
    (attempt,) = rig.huey.details(good.id)["attempts"]
    assert (attempt["number"], attempt["outcome"]) == (1, "wait")
    assert "the batch it was in failed (ValueError: 1 is bad)" in attempt["error"]


def test_a_bad_one_is_alone_in_all_its_retries(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls(fail_for(1)), retries=1)
    sale(0), sale(1)
    run_batches(rig)
    sale(2)
    run_batches(rig)
    assert calls.lists == [[0, 1], [0], [1], [1], [2]]
    assert rig.states() == {"done": 2, "failed": 1}


@pytest.mark.parametrize("leave", [lambda items: sys.exit(3), lambda items: [].pop()], ids=["exit", "error"])
def test_no_job_seems_done_when_the_body_was_left_half_way(rig: Rig, leave: Callable[[Any], Any]) -> None:
    sale = batch_task(rig, Calls(leave))
    sale(0), sale(1)
    run_batches(rig)
    assert rig.states() == {"failed": 2}


def test_a_body_that_asks_to_run_later_keeps_its_batch_together(rig: Rig) -> None:
    def later_at_first(items: list[Any]) -> None:
        if len(calls.lists) == 1:
            raise RetryTask("the shop is closed")

    sale = batch_task(rig, calls := Calls(later_at_first))
    sale(0), sale(1)
    run_batches(rig)
    assert (calls.lists, rig.states()) == ([[0, 1], [0, 1]], {"done": 2})


def test_a_body_that_cancels_ends_all_of_its_batch(rig: Rig) -> None:
    def cancel(items: list[Any]) -> None:
        raise CancelExecution("the shop is gone")

    sale = batch_task(rig, calls := Calls(cancel))
    sale(0), sale(1)
    run_batches(rig)
    assert (calls.lists, rig.states()) == ([[0, 1]], {"cancelled": 2})


# Who is in the call


def test_a_revoked_and_an_expired_job_are_not_in_the_call(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls())
    results = [sale(0), sale(1), rig.huey.enqueue(sale.s(2, expires=1)), sale(3)]
    results[0].revoke()
    results[1].revoke()
    rig.clock.advance(60)
    run_batches(rig)
    assert calls.lists == [[3]]
    assert [rig.row(r.id)["state"] for r in results] == ["cancelled", "cancelled", "cancelled", "done"]


def test_a_job_does_not_expire_while_the_body_works_for_it(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls(lambda items: rig.clock.advance(3600)))
    sale(0)
    in_an_hour = dt.datetime.fromtimestamp(NOW + 3600, dt.UTC).replace(tzinfo=None)
    result = rig.huey.enqueue(sale.s(1, expires=in_an_hour))
    run_batches(rig)
    assert (calls.lists, rig.row(result.id)["state"]) == ([[0, 1]], "done")


def test_an_argument_by_name_fails_its_job_alone_and_says_so(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls())
    sale(0)
    named = sale(book_id=1)
    run_batches(rig)
    assert (calls.lists, rig.states()) == ([[0]], {"done": 1, "failed": 1})
    assert "book_id" in rig.row(named.id)["error"]


def test_a_job_that_cannot_be_read_fails_alone(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls())
    sale(0)
    broken = sale(1)
    sql = "UPDATE postroom_jobs SET payload = X'00' WHERE uuid = ?"
    rig.database.write(lambda connection: connection.execute(sql, (broken.id,)))
    run_batches(rig)
    assert (calls.lists, rig.row(broken.id)["state"]) == ([[0]], "failed")


def test_a_batch_whose_bodies_go_on_in_a_pipeline_enqueues_each(rig: Rig) -> None:
    sale = batch_task(rig, Calls())
    after = rig.huey.task(name="after")(lambda n, value=None: n)
    ends = [rig.huey.enqueue(sale.s(n).then(after, n)) for n in range(3)]
    run_batches(rig)
    assert [end.get() for end in ends] == [[None, n] for n in range(3)]


def test_a_failing_batch_is_sorted_out_by_the_consumer(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls(fail_for(2)), every_s=0)
    with rig.consuming():
        sale.map(range(4))
        assert rig.huey.wait_until_idle(PATIENCE_S)
    assert rig.states() == {"done": 3, "failed": 1}
    assert [2] in calls.lists


# Hooks and revokes: a body has the items of just those jobs that count as run


def test_what_a_hook_cancels_is_left_out_and_its_hook_is_called_once(rig: Rig) -> None:
    sale, seen = batch_task(rig, calls := Calls()), []

    @rig.huey.pre_execute()
    def not_two(task: Any) -> None:
        seen.append(task.args[0])
        if task.args == (2,):
            raise CancelExecution

    results = {n: sale(n) for n in (1, 2, 3)}
    run_batches(rig)
    assert (calls.lists, seen) == ([[1, 3]], [1, 2, 3])
    assert {n: rig.row(result.id)["state"] for n, result in results.items()} == {
        1: "done",
        2: "cancelled",
        3: "done",
    }


def test_a_hook_that_cancels_the_first_job_leaves_the_call_to_the_others(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls())
    rig.huey.pre_execute("not_one")(lambda task: cancel() if task.args == (1,) else None)
    sale.map([1, 2, 3])
    run_batches(rig)
    assert (calls.lists, rig.states()) == ([[2, 3]], {"cancelled": 1, "done": 2})


def cancel() -> None:
    raise CancelExecution


def test_what_a_hook_makes_of_a_job_is_what_the_body_gets(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls())

    @rig.huey.pre_execute()
    def double(task: Any) -> None:
        task.args = (2 * task.args[0],)

    sale.map([1, 2])
    run_batches(rig)
    assert calls.lists == [[2, 4]]


def test_a_job_that_is_revoked_while_its_batch_runs_is_done_all_the_same(rig: Rig) -> None:
    sale = batch_task(rig, calls := Calls(lambda items: second.revoke()))
    rig.huey.task(name="other")(lambda: None).revoke()  # any flag at all: else nobody looks
    sale(1)
    second = sale(2)
    run_batches(rig)
    assert (calls.lists, rig.states()) == ([[1, 2]], {"done": 2})
