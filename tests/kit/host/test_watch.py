"""gunicorn's processes watch each other: what counts as hanging, and how a parent's death is heard."""

from __future__ import annotations

import os
import select
import signal
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app.kit.host import watch
from app.kit.host.watch import MOST_BETWEEN_LOOKS_S, HangWatch, Lifeline, set_patience

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs gunicorn")

PID = 4711


class Worker:
    """What the parent sees of a worker: a file whose time is that of its last sign of life."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.tmp: Any = self
        self.sign = 0.0

    def fileno(self) -> int:
        return self.file.fileno()

    def last_update(self) -> float:
        return self.sign


@pytest.fixture
def worker() -> Iterator[Worker]:
    with tempfile.TemporaryFile() as file:
        yield Worker(file)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *call: killed.append(call))
    return killed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    return now


def look_on(
    hang_watch: HangWatch, worker: Worker, clock: list[float], times: int, every_s: float = 3
) -> None:
    for _ in range(times):
        clock[0] += every_s
        hang_watch.look({PID: worker})


def test_a_worker_that_is_silent_for_longer_than_any_body_may_run_is_killed(
    worker: Worker, killed: list[tuple[int, int]], clock: list[float]
) -> None:
    set_patience(worker, 900)
    hang_watch = HangWatch()
    look_on(hang_watch, worker, clock, 300)
    assert killed == []
    look_on(hang_watch, worker, clock, 2)
    assert killed[0] == (PID, signal.SIGKILL)


def test_a_sign_of_life_begins_the_count_anew(
    worker: Worker, killed: list[tuple[int, int]], clock: list[float]
) -> None:
    set_patience(worker, 900)
    hang_watch = HangWatch()
    for _ in range(3):
        look_on(hang_watch, worker, clock, 299)
        worker.sign += 1
    look_on(hang_watch, worker, clock, 299)
    assert killed == []


def test_a_time_in_which_all_were_stopped_is_no_hang(
    worker: Worker, killed: list[tuple[int, int]], clock: list[float]
) -> None:
    set_patience(worker, 3 * MOST_BETWEEN_LOOKS_S)
    look_on(HangWatch(), worker, clock, 3, every_s=24 * 3600)
    assert killed == []


@pytest.mark.parametrize("patience_s", [None, float("inf")], ids=["starting", "no timeout"])
def test_who_may_take_as_long_as_it_likes_is_not_killed(
    worker: Worker, killed: list[tuple[int, int]], clock: list[float], patience_s: float | None
) -> None:
    if patience_s is not None:
        set_patience(worker, patience_s)
    look_on(HangWatch(), worker, clock, 10_000)
    assert killed == []


def test_a_parents_death_is_heard(tmp_path: Any) -> None:
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        lifeline = Lifeline()
        if os.fork() == 0:
            lifeline.hold()
            os.write(write_end, b"living" if not select.select([lifeline], [], [], 0)[0] else b"dead")
            select.select([lifeline], [], [], 30)
            os.write(write_end, b"heard")
            os._exit(0)
        time.sleep(60)
    os.close(write_end)
    assert os.read(read_end, 10) == b"living"
    os.kill(parent, signal.SIGKILL)
    assert os.read(read_end, 10) == b"heard"
    os.waitpid(parent, 0)
    os.close(read_end)
