"""Nothing that happens to a job, or between two jobs, ends a worker or leaves a job running for ever (P2, P6)."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from huey import chord, crontab, signals
from huey.exceptions import TaskException

from app.kit.engine.consumer.clock import Clock
from app.kit.engine.consumer.consumer import EmbeddedConsumer
from app.kit.engine.consumer.worker import BellWorker
from app.kit.engine.jobs.job import ClaimedJob
from app.kit.errors import DatabaseUnusableError
from tests.kit.engine_rig import PATIENCE_S, Rig, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause only a moment after an error."""
    monkeypatch.setattr("app.kit.engine.consumer.worker.PAUSE_AFTER_ERROR_S", 0.01)
    monkeypatch.setattr("app.kit.engine.consumer.clock.LOOK_S", 0.05)


@pytest.fixture
def consumer(rig: Rig) -> Iterator[EmbeddedConsumer]:
    """A consumer with one worker: whoever ends that one ends all."""
    with rig.consuming(workers=1, health_check_interval=0.05) as consumer:
        yield consumer


# Errors that are hard to say


class RowsError(Exception):
    """Its length is that of what it wraps."""

    def __init__(self, rows: Any = None) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)


class RemoteLikeError(Exception):
    """Hands unknown attributes on, as clients' errors do."""

    def __getattr__(self, name: str) -> Any:
        return {}[name]


class MuteError(Exception):
    """Cannot say what it is, or whether it is like another."""

    def __str__(self) -> str:
        raise SystemExit("not even that")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("like what?")

    __hash__ = None  # type: ignore[assignment]


class Text(str):
    """A text that cannot be put into another."""

    def __format__(self, spec: str) -> str:
        raise RuntimeError("not in there")


class SaysError(Exception):
    """SaysError what it is in a text of its own kind."""

    def __str__(self) -> str:
        return Text("said")


class WithholdsError(Exception):
    """Gives nothing of itself away, not even where it comes from."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


def odd_syntax_error() -> Exception:
    error = SyntaxError("bad template")
    error.lineno, error.text = "seven", 5  # type: ignore[assignment]
    return error


def after_an_odd_one() -> Exception:
    error = ValueError("plain")
    error.__cause__ = RowsError()
    return error


ODD: list[Callable[[], BaseException]] = [
    RowsError, RemoteLikeError, MuteError, SaysError, WithholdsError, odd_syntax_error, after_an_odd_one,
    MemoryError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, asyncio.CancelledError,
]  # fmt: skip


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_a_job_whose_error_is_odd_is_tried_again_and_fails_with_a_reason(
    rig: Rig, consumer: EmbeddedConsumer, make: Callable[[], BaseException]
) -> None:
    bad = True

    def body(*_: Any) -> int:
        if bad:
            raise make()
        return 1

    heard = []
    one = rig.huey.task(name="one", limit=1, retries=1)(body)
    batch = rig.huey.batch_task(every_s=0.05, name="batch")(body)
    cron = rig.huey.periodic_task(crontab(month="2", day="30"), name="cron", pile_up=False)(body)
    handler = rig.huey.task(name="handler")(lambda error: heard.append(type(error).__name__))
    worker, minute = consumer.worker_threads[0], int(rig.clock() // 60)
    job = rig.huey.enqueue(one.s().error(handler.s()))
    batch(1), batch(2)
    rig.huey.enqueue_cron(cron.task_class(), minute)
    until(lambda: rig.states() == {"failed": 4, "done": 1}, "the failure of all four")
    row = rig.row(job.id)
    assert (row["attempt"], bool(row["error"]), heard) == (2, True, ["RemoteError"])
    bad = False
    one(), batch(3)
    rig.huey.enqueue_cron(cron.task_class(), minute + 1)
    until(lambda: rig.states() == {"failed": 4, "done": 4}, "the same tasks, doing well")
    assert worker in consumer.worker_threads
    assert (worker[1].is_alive(), rig.huey.health()) == (True, [])


@pytest.mark.parametrize("how", ["filter", "handler", "record factory"])
def test_a_log_that_raises_ends_nothing(rig: Rig, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def needs_a_request(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Working outside of request context.")

    if how == "record factory":
        monkeypatch.setattr(logging, "_logRecordFactory", needs_a_request)
    else:
        handler = logging.StreamHandler()
        handler.emit = needs_a_request  # type: ignore[method-assign]
        if how == "filter":
            handler.addFilter(needs_a_request)
        monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(logging.getLogger("huey"), "level", logging.DEBUG)

    def fail() -> None:
        raise ValueError("plain")

    boom = rig.huey.task(name="boom", retries=1)(fail)
    with rig.consuming(workers=1) as consumer:
        thread = consumer.worker_threads[0][1]
        jobs = [boom(), boom()]
        assert rig.huey.task(name="give")(lambda: 1)().get(blocking=True, timeout=PATIENCE_S) == 1
        assert rig.huey.wait_until_idle(PATIENCE_S)
        assert thread.is_alive()
    assert [(rig.row(job.id)["attempt"], rig.row(job.id)["error"]) for job in jobs] == [
        (2, "ValueError: plain")
    ] * 2


# What others do between two jobs


@pytest.mark.parametrize(
    "signal", [signals.SIGNAL_EXECUTING, signals.SIGNAL_COMPLETE, signals.SIGNAL_ENQUEUED]
)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_a_receiver_of_signals_that_raises_ends_no_worker(
    rig: Rig, consumer: EmbeddedConsumer, signal: str, error: type[BaseException]
) -> None:
    thread = consumer.worker_threads[0][1]

    def receive(*_: Any) -> None:
        if threading.current_thread() is thread:
            raise error

    rig.huey.signal(signal)(receive)
    give = rig.huey.task(name="give", limit=1)(lambda: 1)
    follow = rig.huey.task(name="follow")(lambda _: 1)
    for _ in range(3):
        rig.huey.enqueue(give.s().then(follow))
    assert rig.huey.wait_until_idle(PATIENCE_S)
    assert thread.is_alive()
    assert (
        rig.states()["failed" if error is not ValueError and signal != signals.SIGNAL_ENQUEUED else "done"]
        >= 3
    )


def test_hooks_at_the_start_of_a_worker_that_would_end_it_do_not(rig: Rig) -> None:
    rig.huey.on_startup("up")(exit)
    rig.huey.on_shutdown("down")(exit)
    with rig.consuming(workers=1) as consumer:
        assert rig.huey.task(name="give")(lambda: 1)().get(blocking=True, timeout=PATIENCE_S) == 1
        assert consumer.worker_threads[0][1].is_alive()


@pytest.mark.parametrize("sql", ["SELECT nothing", "INSERT INTO postroom_pauses VALUES (NULL, NULL, NULL)"])
def test_data_that_cannot_follow_its_job_does_not_keep_it_from_ending(
    rig: Rig, consumer: EmbeddedConsumer, sql: str
) -> None:
    def follow(connection: sqlite3.Connection, *_: Any) -> None:
        connection.execute("INSERT INTO postroom_pauses VALUES ('half', 'of it', NULL)")
        connection.execute(sql)

    result = rig.huey.task(name="bad", if_not_done=follow)(lambda: 1 / 0)()
    until(lambda: rig.row(result.id)["state"] == "failed", "its end")
    assert rig.rows("SELECT * FROM postroom_pauses") == [], "all that follows is kept, or nothing"


@pytest.mark.parametrize("name", ["run", "finish"])
@pytest.mark.parametrize("error", [MemoryError(), SystemExit(), KeyError("a bug")], ids=repr)
def test_what_a_worker_had_when_it_stumbled_ends_in_view_and_it_goes_on(
    rig: Rig, consumer: EmbeddedConsumer, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException
) -> None:
    original, errors = getattr(rig.huey, name), [error]

    def stumble(*args: Any) -> Any:
        if errors:
            raise errors.pop()
        return original(*args)

    monkeypatch.setattr(rig.huey, name, stumble)
    give = rig.huey.task(name="give", limit=1)(lambda: 1)
    first, second = give(), give()
    assert second.get(blocking=True, timeout=PATIENCE_S) == 1
    passes = name == "finish" and isinstance(error, MemoryError)
    assert rig.row(first.id)["state"] == ("done" if passes else "failed")
    assert passes or type(error).__name__ in rig.row(first.id)["error"]


def test_an_end_that_can_never_be_written_is_written_as_a_bare_failure(
    rig: Rig, consumer: EmbeddedConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: Any) -> Any:
        raise ValueError("no chord like that")

    monkeypatch.setattr("app.kit.engine.body.chords.complete", lambda *it: it[2].chord_part and cannot())
    give = rig.huey.task(name="give")(lambda: 1)
    results = rig.huey.enqueue(chord([give.s()], rig.huey.task(name="sum")(sum).s()))
    with pytest.raises(TaskException, match="no chord like that"):
        results.results.get(blocking=True, timeout=PATIENCE_S)
    assert rig.states() == {"failed": 1}


# Threads that die all the same


def dies(
    thread: type, monkeypatch: pytest.MonkeyPatch, after: Callable[[Any], object] = lambda _: None
) -> None:
    """Have the next turn of a thread end it."""
    loop = thread.loop  # type: ignore[attr-defined]

    def die(self: Any) -> None:
        monkeypatch.setattr(thread, "loop", loop)
        after(self)
        raise SystemExit

    monkeypatch.setattr(thread, "loop", die)


def test_a_worker_that_died_is_seen_and_replaced_and_its_job_runs_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed: list[ClaimedJob] = []
    give = rig.huey.task(name="give", limit=1)(lambda: 1)
    results = [give(), give()]
    dies(
        BellWorker,
        monkeypatch,
        lambda worker: claimed.extend(rig.huey.claim(*worker._who(), rig.huey.rules())),
    )
    with rig.consuming(workers=1, health_check_interval=60) as consumer:
        dead = consumer.worker_threads[0][1]
        dead.join(PATIENCE_S)
        assert ["Worker-1" in reason for reason in rig.huey.health()] == [True]
        consumer.check_worker_health()
        assert [result.get(blocking=True, timeout=PATIENCE_S) for result in results] == [1, 1]
        assert (rig.huey.health(), rig.row(claimed[0].uuid)["deaths"]) == ([], 1)


def test_a_clock_that_died_is_replaced(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    dies(Clock, monkeypatch)
    with rig.consuming(workers=1, health_check_interval=0.05):
        result = rig.huey.task(name="give")(lambda: 1).schedule(delay=0.01)
        assert result.get(blocking=True, timeout=PATIENCE_S) == 1


def test_a_supervisor_that_died_is_replaced(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    supervise = EmbeddedConsumer._supervise

    def die(self: EmbeddedConsumer) -> None:
        monkeypatch.setattr(EmbeddedConsumer, "_supervise", supervise)

    monkeypatch.setattr(EmbeddedConsumer, "_supervise", die)
    with rig.consuming(workers=1) as consumer:
        until(lambda: consumer._supervisor and consumer._supervisor.is_alive(), "another one")
    assert not consumer.is_consuming()


# Ends that cannot be written


def test_a_worker_that_waits_to_write_an_end_hangs_not_but_says_so(
    rig: Rig, consumer: EmbeddedConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    recycled: list[bool] = []
    consumer.recycle = lambda: recycled.append(True)
    finish, full = rig.huey.finish, threading.Event()
    full.set()

    def full_disk(*args: Any) -> Any:
        if full.is_set():
            raise DatabaseUnusableError("database or disk is full")
        return finish(*args)

    monkeypatch.setattr(rig.huey, "finish", full_disk)
    runs: list[int] = []
    result = rig.huey.task(name="brief", timeout=0.01)(lambda: runs.append(1))()
    until(rig.huey.health, "a sentence that says so")
    until(lambda: rig.huey.now() > rig.row(result.id)["started_at"] + 0.05, "the end of its time")
    assert ["disk is full" in reason for reason in rig.huey.health()] == [True]
    assert consumer.overdue() == []
    consumer.recycle_if_stuck()
    full.clear()
    assert rig.huey.wait_until_idle(PATIENCE_S)
    assert (rig.row(result.id)["state"], rig.row(result.id)["deaths"], runs, recycled) == ("done", 0, [1], [])
    assert rig.huey.health() == []
