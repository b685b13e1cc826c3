"""A worker that cannot write how a job ended tries until it can: the body must not run again (P2)."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from app.kit.errors import DatabaseBusyError
from tests.kit.engine_rig import Rig, until


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch, rig: Rig) -> Rig:
    """A queue whose workers do not wait long after an error."""
    monkeypatch.setattr("app.kit.engine.consumer.worker.PAUSE_AFTER_ERROR_S", 0.001)
    return rig


def stumble(rig: Rig, monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[int]:
    """Have the next finishes fail; return the list that gets an entry for each finish."""
    finish, calls, left = rig.huey.finish, [], list(errors)

    def stumbling(*args: Any) -> Any:
        calls.append(1)
        if left:
            raise left.pop(0)
        return finish(*args)

    monkeypatch.setattr(rig.huey, "finish", stumbling)
    return calls


@pytest.mark.parametrize(
    "error", [DatabaseBusyError("busy"), sqlite3.OperationalError("disk full"), MemoryError()], ids=str
)
def test_a_job_whose_end_could_not_be_written_at_first_ran_once_and_is_done(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    calls = stumble(rig, monkeypatch, error, error)
    ran: list[int] = []
    rig.huey.task(name="once")(lambda: ran.append(1))()
    with rig.consuming():
        until(lambda: rig.states() == {"done": 1})
    assert (len(calls), ran) == (3, [1])


def test_a_job_whose_end_can_never_be_written_fails_in_view(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumble(rig, monkeypatch, ZeroDivisionError("a bug"))
    result = rig.huey.task(name="once")(lambda: None)()
    with rig.consuming():
        until(lambda: rig.states() == {"failed": 1})
    assert rig.row(result.id)["error"] == "ZeroDivisionError: a bug"


def test_a_worker_that_is_asked_to_stop_tries_on_for_a_while_without_haste(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kit.engine.consumer.consumer.STOP_WITHIN_S", 0.3)
    calls = stumble(rig, monkeypatch, *[sqlite3.OperationalError("disk full")] * 10_000)
    rig.huey.task(name="once")(lambda: None)()
    with rig.consuming() as consumer:
        until(lambda: calls)
        consumer.stop_soon()
        until(consumer.stop_flag.is_set)
        before = len(calls)
        until(lambda: not any(thread.is_alive() for thread in consumer._threads()))
        assert len(calls) - before < 20
    assert rig.states() == {"ready": 1}
