"""Huey's signals come in the order that its documentation has, and what handlers look up is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from huey import chord
from huey.exceptions import RetryTask
from huey.signals import SIGNAL_COMPLETE, SIGNAL_SCHEDULED

from tests.kit.engine_rig import Rig, until

SCHEDULED = ["enqueued", "scheduled", "enqueued", "executing", "complete"]


@pytest.fixture
def heard(rig: Rig) -> list[str]:
    """The signals that came so far."""
    heard: list[str] = []
    rig.huey.signal()(lambda name, task, *more: heard.append(name))
    return heard


def test_a_scheduled_job_is_announced_at_each_step(rig: Rig, give: Any, heard: list[str]) -> None:
    with rig.consuming():
        give.schedule((1,), delay=0.05)
        until(lambda: len(heard) == len(SCHEDULED))
    assert heard == SCHEDULED


def test_a_job_of_a_batch_waits_for_its_time_like_a_scheduled_one(rig: Rig, heard: list[str]) -> None:
    batch = rig.huey.batch_task(every_s=0.05, name="batch")(lambda items: None)
    with rig.consuming():
        batch(1)
        until(lambda: len(heard) == len(SCHEDULED))
    assert heard == SCHEDULED


@pytest.mark.parametrize(("delay", "then"), [(0, "enqueued"), (60, "scheduled")])
def test_a_retry_is_announced_as_it_is_written(rig: Rig, heard: list[str], delay: int, then: str) -> None:
    states: list[tuple[Any, ...]] = []
    rig.huey.task(name="fail", retries=1, retry_delay=delay)(lambda: 1 / 0)()
    rig.huey.signal(then)(lambda name, task: states.extend(rig.rows("SELECT state FROM postroom_jobs")))
    rig.run_next()
    assert heard == ["enqueued", "executing", "error", "retrying", then]
    assert states == [("ready" if then == "enqueued" else "scheduled",)]


def test_a_handler_sees_when_a_retry_is_to_run(rig: Rig) -> None:
    seen: list[Any] = []
    rig.huey.signal(SIGNAL_SCHEDULED)(lambda name, task: seen.append(task.eta))

    def later() -> None:
        raise RetryTask(delay=60)

    rig.huey.task(name="later")(later)()
    rig.run_next()
    assert seen == [rig.huey.scheduled()[0].eta]


def test_a_periodic_job_is_enqueued_too(rig: Rig, heard: list[str]) -> None:
    rig.huey.periodic_task(lambda _moment: True, name="tick")(lambda: 1)
    (tick,) = rig.huey.periodic_tasks()
    assert rig.huey.enqueue_cron(tick, 1)
    assert heard == ["enqueued"]
    assert not rig.huey.enqueue_cron(tick, 1)
    assert heard == ["enqueued"]


def test_what_follows_for_later_is_scheduled(rig: Rig, give: Any, heard: list[str]) -> None:
    rig.huey.enqueue(chord([give.s(1)], give.s(delay=60)))
    rig.run_next()
    assert heard == ["enqueued", "executing", "complete", "enqueued", "scheduled"]


def test_handlers_and_hooks_see_the_result_of_the_job_that_ended(rig: Rig, give: Any) -> None:
    seen: list[Any] = []

    def look(task: Any) -> None:
        seen.append(rig.huey.result(task.id, preserve=True))

    rig.huey.signal(SIGNAL_COMPLETE)(lambda name, task: look(task))
    rig.huey.post_execute("look")(lambda task, value, error: look(task))
    result = give(5)
    rig.run_next()
    assert (seen, result.get()) == ([5, 5], 5)


def test_a_handler_looks_the_errors_of_a_pipeline_up(rig: Rig, give: Any) -> None:
    seen: list[Any] = []
    fail = rig.huey.task(name="fail")(lambda: 1 / 0)
    pipeline = rig.huey.enqueue(fail.s().then(give))
    rig.huey.post_execute("look")(lambda *_: seen.extend(result.is_ready() for result in pipeline))
    rig.run_next()
    assert seen == [True, True]


def test_signals_of_the_clock_come_in_the_context_of_bodies(rig: Rig, give: Any) -> None:
    inside: list[bool] = []

    @contextmanager
    def context() -> Iterator[None]:
        inside.append(True)
        yield
        inside.pop()

    rig.huey.attach(rig.database, rig.settings, context)
    seen: list[tuple[str, bool]] = []
    rig.huey.signal("enqueued")(lambda name, task: seen.append((name, bool(inside))))
    with rig.consuming():
        give.schedule((1,), delay=0.05)
        until(lambda: len(seen) == 2)
    assert seen == [("enqueued", False), ("enqueued", True)]


# What waits, as tasks


@pytest.mark.parametrize("delay", [0, 60])
def test_a_job_that_is_tried_again_is_shown_as_its_tries_have_left_it(rig: Rig, delay: int) -> None:
    rig.huey.task(name="fail", retries=3, retry_delay=delay, retry_backoff=2)(lambda: 1 / 0)()
    rig.run_next()
    (task,) = rig.huey.scheduled() if delay else rig.huey.pending()
    assert (task.retries, task.retry_delay) == (2, 2 * delay)
    assert rig.row(task.id)["run_at"] == (
        None if task.eta is None else pytest.approx(rig.clock() + 60, abs=5)
    )


def test_what_waits_is_listed_next_first_and_without_what_cannot_be_read(rig: Rig, give: Any) -> None:
    give(1), give(2, priority=1), give.schedule((3,), delay=60), give.schedule((4,), delay=30)
    assert [task.args for task in rig.huey.pending()] == [(2,), (1,)]
    assert [task.args for task in rig.huey.scheduled()] == [(4,), (3,)]
    assert [task.args for task in rig.huey.scheduled(limit=1)] == [(4,)]
    sql = "UPDATE postroom_jobs SET payload = x'7b' WHERE priority = 1"
    rig.database.write(lambda connection: connection.execute(sql))
    assert [task.args for task in rig.huey.pending()] == [(1,)]


@pytest.mark.parametrize("immediate", [False, True], ids=["queued", "immediate"])
def test_without_results_no_handle_is_returned(rig: Rig, give: Any, immediate: bool) -> None:
    rig.huey.results, rig.huey.immediate = False, immediate
    assert (give(1), give.map([1]), rig.huey.enqueue(give.s(1).then(give))) == (None, None, None)
