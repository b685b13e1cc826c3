"""The consumer: it starts and stops at once, lets bodies finish, takes the place that is free (P2, P7)."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from huey.exceptions import ConfigurationError

from tests.kit.engine_rig import PATIENCE_S, Rig, Threads, sleeps_for, until


class Gate:
    """A body that says when it is in, and leaves when it is told."""

    def __init__(self, rig: Rig, **options: Any) -> None:
        self.entered, self.open = threading.Semaphore(0), threading.Event()
        self.task = rig.huey.task(name="gate", **options)(self._body)

    def _body(self) -> str:
        self.entered.release()
        assert self.open.wait(PATIENCE_S)
        return "through"

    def wait_for(self, count: int) -> None:
        """Return once so many bodies are in."""
        for _ in range(count):
            assert self.entered.acquire(timeout=PATIENCE_S)


def instances(rig: Rig) -> list[tuple[Any, ...]]:
    return rig.rows("SELECT threads, state FROM postroom_instances")


def test_an_idle_consumer_starts_and_stops_inside_a_second(rig: Rig) -> None:
    rig.states()
    began = time.monotonic()
    with rig.consuming(workers=4) as consumer:
        assert consumer.is_consuming()
        assert instances(rig) == [(4, "running")]
    assert time.monotonic() - began < 1
    assert (consumer.is_consuming(), instances(rig)) == (False, [])


def test_as_many_bodies_run_at_once_as_there_are_workers(rig: Rig) -> None:
    gate = Gate(rig)
    for _ in range(5):
        gate.task()
    with rig.consuming(workers=4):
        gate.wait_for(4)
        assert rig.states() == {"running": 4, "ready": 1}
        gate.open.set()
        assert rig.huey.wait_until_idle(PATIENCE_S)
    assert rig.states() == {"done": 5}


def test_a_stop_lets_a_running_body_finish_and_starts_no_other(rig: Rig) -> None:
    gate = Gate(rig)
    results = [gate.task(), gate.task()]
    with Threads() as threads:
        consumer = rig.huey.create_consumer(workers=1)
        consumer.start(always=True)
        gate.wait_for(1)
        threads.start(consumer.stop)
        until(consumer.stop_flag.is_set)
        gate.open.set()
    assert [rig.row(result.id)["state"] for result in results] == ["done", "ready"]
    assert instances(rig) == []


def test_a_body_that_outlasts_the_stop_keeps_its_claim_while_the_process_lives(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kit.engine.consumer.consumer.STOP_WITHIN_S", 0.1)
    gate = Gate(rig)
    result = gate.task()
    with rig.consuming(workers=1) as consumer:
        gate.wait_for(1)
        consumer.stop()
        assert (rig.row(result.id)["state"], instances(rig)) == ("running", [(1, "stopping")])
        with rig.consuming(workers=1) as other:
            assert other.instance.sweep() == 0
            assert rig.row(result.id)["deaths"] == 0
        gate.open.set()
        assert result.get(blocking=False) in (None, "through")
        until(lambda: rig.row(result.id)["state"] == "done", "the end of the body")


def test_a_stop_asked_for_twice_is_one_stop(rig: Rig) -> None:
    consumer = rig.huey.create_consumer(workers=1)
    consumer.stop()  # never started: nothing to stop
    consumer = rig.huey.create_consumer(workers=1)
    consumer.start(always=True)
    consumer.stop_soon()
    consumer.stop_soon()
    consumer.stop()
    consumer.stop()
    assert instances(rig) == []


def test_who_waits_for_a_result_hears_of_the_stop_at_once(rig: Rig) -> None:
    result = rig.huey.task(name="give")(lambda: 1).schedule(delay=600)
    with Threads() as threads, rig.consuming():
        threads.start(lambda: rig.huey.wait_for_end(result.id, PATIENCE_S))
        until(lambda: sleeps_for(rig, result.id))
        began = time.monotonic()
    assert time.monotonic() - began < PATIENCE_S / 2


def test_a_consumer_can_be_started_again_after_another_has_stopped(rig: Rig) -> None:
    task = rig.huey.task(name="give")(lambda: 1)
    for _ in range(3):
        result = task()
        rig.run_all()
        assert result.get(blocking=True, timeout=0) == 1


def test_a_consumer_is_refused_in_immediate_mode(rig: Rig) -> None:
    rig.huey.immediate = True
    consumer = rig.huey.create_consumer(workers=1)
    with pytest.raises(ConfigurationError):
        consumer.start(always=True)
    consumer.stop()


def test_bodies_run_in_the_context_they_were_promised(rig: Rig) -> None:
    inside: list[str] = []

    @contextmanager
    def context() -> Iterator[None]:
        inside.append("in")
        yield
        inside.append("out")

    rig.huey.attach(rig.database, rig.settings, context)
    rig.huey.task(name="look")(lambda: inside.append("body"))()
    rig.run_all()
    assert inside == ["in", "body", "out"]


def test_a_context_that_cannot_be_made_fails_the_job_in_view(rig: Rig) -> None:
    def context() -> Any:
        raise RuntimeError("no app")

    rig.huey.attach(rig.database, rig.settings, context)
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.run_all()
    assert rig.row(result.id)["error"] == "RuntimeError: no app"


# The place


def test_of_two_consumers_one_has_the_place_and_the_other_takes_it_over(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kit.engine.consumer.consumer.LOOK_FOR_THE_PLACE_S", 0.01)
    first, second = (rig.huey.create_consumer(workers=1) for _ in range(2))
    first.start()
    second.start()
    assert (first.is_consuming(), second.is_consuming()) == (True, False)
    assert instances(rig) == [(1, "running"), (0, "running")]
    first.stop()
    until(second.is_consuming, "taking the place over")
    second.stop()
    assert instances(rig) == []


# Trouble


@pytest.fixture
def quick_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pause only a moment after an error."""
    monkeypatch.setattr("app.kit.engine.consumer.worker.PAUSE_AFTER_ERROR_S", 0.01)
    logging.getLogger("postroom.consumer").setLevel(logging.CRITICAL)


@pytest.mark.usefixtures("quick_errors")
def test_an_end_that_cannot_be_written_is_written_later_and_nothing_runs_twice(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    task = rig.huey.task(name="give")(lambda: runs.append(1))
    finish, failures = rig.huey.finish, [sqlite3.OperationalError("database or disk is full")] * 3

    def full_disk(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return finish(*args)

    monkeypatch.setattr(rig.huey, "finish", full_disk)
    result = task()
    rig.run_all()
    assert (rig.row(result.id)["state"], runs, failures) == ("done", [1], [])


@pytest.mark.usefixtures("quick_errors")
def test_a_claim_that_fails_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, failures = rig.huey.claim, [sqlite3.OperationalError("disk I/O error")] * 3

    def broken_disk(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return claim(*args)

    monkeypatch.setattr(rig.huey, "claim", broken_disk)
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.run_all(workers=1)
    assert (rig.row(result.id)["state"], failures) == ("done", [])


def test_a_claim_that_tries_to_end_its_worker_does_not(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    result = rig.huey.task(name="give")(lambda: 1)()
    claim, deaths = rig.huey.claim, [SystemExit(1)]

    def deadly(*args: Any) -> Any:
        if deaths:
            raise deaths.pop()
        return claim(*args)

    monkeypatch.setattr(rig.huey, "claim", deadly)
    with rig.consuming(workers=1, health_check_interval=0.05):
        assert result.get(blocking=True, timeout=PATIENCE_S) == 1


def test_hooks_of_workers_are_called_in_the_context_of_bodies(rig: Rig) -> None:
    called: list[tuple[str, bool]] = []
    inside = threading.local()

    @contextmanager
    def context() -> Iterator[None]:
        inside.now = True
        yield
        inside.now = False

    rig.huey.attach(rig.database, rig.settings, context)
    rig.huey.on_startup()(lambda: called.append(("up", inside.now)))
    rig.huey.on_shutdown("down")(lambda: called.append(("down", inside.now)))
    with rig.consuming(workers=1):
        until(lambda: called)
    assert called == [("up", True), ("down", True)]


def test_a_time_in_which_the_process_did_not_run_makes_no_body_overdue(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("app.kit.engine.consumer.consumer.time", SimpleNamespace(monotonic=lambda: now[0]))
    consumer = rig.huey.create_consumer(workers=1)
    job = rig.row(rig.huey.task(name="long", timeout=900)(print)().id)
    busy = SimpleNamespace(job=job, since=1000.0, until=1900.0)
    consumer.worker_threads = [(SimpleNamespace(busy=busy), None)]
    for _ in range(899):
        now[0] += 1
        consumer.recycle_if_stuck()
    now[0] += 3600  # the machine slept
    consumer.recycle_if_stuck()
    assert consumer.overdue() == []
    for _ in range(2):
        now[0] += 1
        consumer.recycle_if_stuck()
    assert consumer.overdue() == [job]
