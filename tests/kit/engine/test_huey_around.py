"""Huey's documented API around bodies: locks, rate limits, signals, hooks, contexts, async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from huey import signals
from huey.api import Task
from huey.exceptions import CancelExecution, TaskLockedException, TaskTimeout

from tests.kit.engine_rig import Rig

# Locks and rates


def test_a_lock_lets_one_in_and_frees_itself_at_the_end(rig: Rig) -> None:
    lock = rig.huey.lock_task("reports")
    with lock:
        assert rig.huey.is_locked("reports")
        with pytest.raises(TaskLockedException, match="reports"), rig.huey.lock_task("reports"):
            pass
    assert not rig.huey.is_locked("reports")


def test_a_lock_with_a_time_limit_frees_itself(rig: Rig) -> None:
    rig.huey.lock_task("reports", ttl=30).acquire()
    assert rig.huey.is_locked("reports")
    rig.clock.advance(31)
    assert not rig.huey.is_locked("reports")
    with rig.huey.lock_task("reports"):
        assert rig.huey.is_locked("reports")


def test_locks_can_be_flushed(rig: Rig) -> None:
    rig.huey.lock_task("one").acquire()
    rig.huey.lock_task("two").acquire()
    assert rig.huey.flush_locks() == {"one", "two"}
    assert not rig.huey.is_locked("one")


def test_a_job_that_meets_a_lock_is_retried_or_fails_as_its_retries_say(rig: Rig) -> None:
    runs: list[str] = []

    @rig.huey.task(name="locked", retries=1, retry_delay=60)
    @rig.huey.lock_task("shared")
    def locked() -> None:
        runs.append("ran")

    with rig.huey.lock_task("shared"):
        result = locked()
        rig.run_next()
    row = rig.row(result.id)
    assert (runs, row["state"]) == ([], "scheduled")
    assert rig.rows("SELECT error FROM postroom_attempts")[0][0].startswith("TaskLockedException")


def test_a_rate_limit_lets_so_many_through_and_the_others_wait(rig: Rig) -> None:
    runs: list[int] = []

    @rig.huey.task(name="limited")
    @rig.huey.rate_limit("sms", limit=2, per=3600)
    def limited(n: int) -> None:
        runs.append(n)

    for n in range(4):
        limited(n)
    rig.run_all(workers=1)
    assert (runs, rig.states()) == ([0, 1], {"done": 2, "scheduled": 2})
    assert rig.rows("SELECT attempt, waits FROM postroom_jobs WHERE state = 'scheduled'") == [(0, 0), (0, 0)]


def test_a_rate_limit_without_retry_fails_what_is_too_much(rig: Rig) -> None:
    task = rig.huey.task(name="limited")(
        rig.huey.rate_limit("sms", limit=1, per=3600, retry=False)(lambda: 1)
    )
    task(), task()
    rig.run_all(workers=1)
    assert rig.states() == {"done": 1, "failed": 1}


# Signals and hooks


@pytest.fixture
def heard(rig: Rig) -> list[str]:
    """Every signal, in order."""
    heard: list[str] = []
    rig.huey.signal()(lambda signal, task, *error: heard.append(signal))
    return heard


def fail() -> None:
    raise ValueError("no")


def cancel() -> None:
    raise CancelExecution(retry=False)


@pytest.mark.parametrize(
    ("body", "options", "expected"),
    [
        (lambda: 1, {}, [signals.SIGNAL_ENQUEUED, signals.SIGNAL_EXECUTING, signals.SIGNAL_COMPLETE]),
        (fail, {}, [signals.SIGNAL_ENQUEUED, signals.SIGNAL_EXECUTING, signals.SIGNAL_ERROR]),
        (cancel, {}, [signals.SIGNAL_ENQUEUED, signals.SIGNAL_EXECUTING, signals.SIGNAL_CANCELED]),
        (
            fail,
            {"retries": 1},
            [
                *(signals.SIGNAL_ENQUEUED, signals.SIGNAL_EXECUTING, signals.SIGNAL_ERROR),
                *(signals.SIGNAL_RETRYING, signals.SIGNAL_ENQUEUED),
                *(signals.SIGNAL_EXECUTING, signals.SIGNAL_ERROR),
            ],
        ),
    ],
    ids=["complete", "error", "cancelled", "retried"],
)
def test_signals_are_sent_in_order(
    rig: Rig, heard: list[str], body: Any, options: dict[str, Any], expected: list[str]
) -> None:
    rig.huey.task(name="signalled", **options)(body)()
    rig.run_all()
    assert heard == expected


def test_a_revoked_and_an_expired_job_send_their_signals(rig: Rig, heard: list[str]) -> None:
    task = rig.huey.task(name="give")(lambda: 1)
    task().revoke()
    rig.run_all()
    task.schedule(delay=10, expires=20)
    rig.clock.advance(60)
    rig.run_all()
    assert heard == ["enqueued", "revoked", "enqueued", "scheduled", "expired"]


def test_a_signal_handler_that_raises_changes_nothing(rig: Rig) -> None:
    rig.huey.signal(signals.SIGNAL_COMPLETE)(lambda signal, task: fail())
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.run_all()
    assert result.get() == 1


def test_hooks_run_before_and_after_a_body(rig: Rig) -> None:
    seen: list[object] = []
    rig.huey.pre_execute("before")(lambda task: seen.append(("before", task.id)))
    rig.huey.post_execute("after")(lambda task, value, error: seen.append(("after", value, error)))
    result = rig.huey.task(name="give")(lambda: seen.append("body") or 7)()
    rig.run_all()
    assert seen == [("before", result.id), "body", ("after", 7, None)]


def test_a_hook_that_cancels_keeps_the_body_from_running(rig: Rig) -> None:
    @rig.huey.pre_execute("guard")
    def guard(task: Task) -> None:
        raise CancelExecution

    runs: list[int] = []
    result = rig.huey.task(name="give")(lambda: runs.append(1))()
    rig.run_all()
    assert (runs, rig.row(result.id)["state"]) == ([], "cancelled")


def test_a_hook_that_raises_changes_nothing(rig: Rig) -> None:
    rig.huey.pre_execute("broken")(lambda task: fail())
    rig.huey.post_execute("broken")(lambda task, value, error: fail())
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.run_all()
    assert result.get() == 1


def test_start_up_and_shutdown_hooks_run_in_each_worker(rig: Rig) -> None:
    seen: list[str] = []
    rig.huey.on_startup("up")(lambda: seen.append("up"))
    rig.huey.on_shutdown("down")(lambda: seen.append("down"))
    rig.run_all(workers=2)
    assert sorted(seen) == ["down", "down", "up", "up"]


# Bodies


def test_a_body_may_be_a_coroutine(rig: Rig) -> None:
    @rig.huey.task(name="wait_a_little")
    async def wait_a_little(value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    result = wait_a_little(4)
    rig.run_all()
    assert result.get() == 5


def test_a_coroutine_that_raises_is_retried_like_any_body(rig: Rig) -> None:
    runs: list[int] = []

    @rig.huey.task(name="stumble", retries=1)
    async def stumble() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("first")
        return len(runs)

    result = stumble()
    rig.run_all()
    assert result.get() == 2


def test_a_body_that_asks_for_it_gets_its_task(rig: Rig) -> None:
    seen: list[tuple[str, int]] = []

    @rig.huey.task(name="curious", context=True, retries=1)
    def curious(n: int, task: Task) -> None:
        seen.append((task.id, task.retries))
        if len(seen) == 1:
            raise ValueError("again")

    result = curious(1)
    rig.run_all()
    assert seen == [(result.id, 1), (result.id, 0)]


def test_call_local_is_a_plain_call(rig: Rig) -> None:
    task = rig.huey.task(name="give")(lambda value: value)
    assert task.call_local(5) == 5
    assert rig.states() == {}


def test_a_context_task_runs_inside_its_context(rig: Rig) -> None:
    seen: list[str] = []

    @contextmanager
    def around() -> Iterator[str]:
        seen.append("in")
        yield "given"
        seen.append("out")

    @rig.huey.context_task(around(), as_argument=True)
    def inside(given: str) -> None:
        seen.append(given)

    inside()
    rig.run_all()
    assert seen == ["in", "given", "out"]


def test_check_timeout_ends_a_body_that_asks(rig: Rig) -> None:
    @rig.huey.task(name="slow", timeout=0.001, context=True)
    def slow(task: Task) -> None:
        threading.Event().wait(0.01)
        task.check_timeout()

    result = slow()
    rig.run_all()
    assert rig.row(result.id)["error"].startswith(TaskTimeout.__name__)


def test_flush_empties_queue_schedule_and_results(rig: Rig) -> None:
    task = rig.huey.task(name="give")(lambda: 1)
    task(), task.schedule(delay=60)
    assert (len(rig.huey), rig.huey.scheduled_count()) == (1, 1)
    assert [len(rig.huey.pending()), len(rig.huey.scheduled())] == [1, 1]
    rig.huey.flush()
    assert rig.states() == {}


# The context of bodies


class Context:
    """What an app's context is to a body: it hears how it went."""

    def __init__(self) -> None:
        self.heard: list[BaseException | None] = []

    @contextmanager
    def __call__(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.heard.append(error)
            raise
        self.heard.append(None)


@pytest.mark.parametrize("immediate", [False, True], ids=["queued", "immediate"])
@pytest.mark.parametrize(
    ("error", "state"),
    [(None, "done"), (ValueError("half-way"), "failed"), (CancelExecution(retry=False), "cancelled")],
)
def test_the_context_of_a_body_hears_how_the_body_went(
    rig: Rig, error: BaseException | None, state: str, immediate: bool
) -> None:
    context = Context()
    rig.huey.attach(rig.database, rig.settings, context)
    rig.huey.immediate = immediate

    def body() -> None:
        if error is not None:
            raise error

    result = rig.huey.task(name="body")(body)()
    if not immediate:
        rig.run_next()
        assert rig.row(result.id)["state"] == state
    assert context.heard == [error]


def test_a_context_that_fails_at_its_end_fails_the_job(rig: Rig, give: Any) -> None:
    @contextmanager
    def context() -> Iterator[None]:
        yield
        raise OSError("the database went away")

    rig.huey.attach(rig.database, rig.settings, context)
    result = give(1)
    rig.run_next()
    assert "went away" in rig.row(result.id)["error"]
