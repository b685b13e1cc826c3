"""A worker steps aside where another gets through tiny bodies faster alone, and only there (P7)."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import pytest

from app.kit.engine.consumer.consumer import EmbeddedConsumer
from app.kit.engine.consumer.worker import ASIDE_S, QUICK_ENDS, STAY_S, BellWorker, Busy
from tests.kit.engine_rig import PATIENCE_S, Rig, until


@pytest.fixture
def workers(rig: Rig) -> list[BellWorker]:
    """Two workers of a consumer that has not started, each with a body that began this moment."""
    consumer = EmbeddedConsumer(rig.huey, workers=2)
    first, second = [worker for worker, _ in consumer.worker_threads]
    begin(first), begin(second)
    return [first, second]


def begin(worker: BellWorker, ago_s: float = 0) -> None:
    job: Any = None
    worker.busy = Busy(job, time.monotonic() - ago_s, math.inf)


class Stop:
    """A stop flag that in place of waiting has another worker end some bodies, as often as is said."""

    def __init__(self, other: BellWorker, *ends: int) -> None:
        self._other, self._ends = other, iter(ends)
        self.waits = 0

    def wait(self, seconds: float) -> bool:
        assert seconds == ASIDE_S
        self.waits += 1
        self._other.ends += next(self._ends)
        return False


def test_of_two_with_tiny_bodies_one_steps_aside_and_one_goes_on(workers: list[BellWorker]) -> None:
    first, second = workers
    assert (first._step_aside(), first.busy) == (True, None)
    assert (second._step_aside(), second.busy is None) == (False, False)


def test_nobody_steps_aside_for_a_long_body_or_after_one(workers: list[BellWorker]) -> None:
    first, second = workers
    begin(second, ago_s=2 * ASIDE_S)
    assert not first._step_aside(), "the other may be at it for long"
    assert not second._step_aside(), "its own was not tiny"


def test_nobody_steps_aside_where_commits_of_several_reach_the_disk_together(
    rig: Rig, workers: list[BellWorker]
) -> None:
    rig.database.synchronous = "FULL"
    assert [worker._step_aside() for worker in workers] == [False, False]


def test_a_worker_stands_aside_while_the_other_is_quick(workers: list[BellWorker]) -> None:
    first, second = workers
    first.stop_flag = stop = Stop(second, QUICK_ENDS, QUICK_ENDS, QUICK_ENDS - 1)
    first._stand_aside()
    assert stop.waits == 3
    assert first._step_aside(), "it did good, so it may again"


def test_a_worker_that_stood_aside_in_vain_stays_for_a_while(workers: list[BellWorker]) -> None:
    first, second = workers
    first.stop_flag = stop = Stop(second, QUICK_ENDS - 1)
    first._stand_aside()
    assert (stop.waits, first._step_aside()) == (1, False)
    assert ASIDE_S < first._stays_until - time.monotonic() <= STAY_S


def test_tiny_bodies_go_on_beside_one_that_does_not_end(rig: Rig) -> None:
    the_end = threading.Event()
    hold = rig.huey.task(name="hold")(lambda: the_end.wait(PATIENCE_S))
    tiny = rig.huey.task(name="tiny")(lambda: None)
    with rig.consuming(workers=3):
        tiny.map([()] * 100)
        hold()
        tiny.map([()] * 200)
        until(lambda: rig.states() == {"running": 1, "done": 300}, "the end of all tiny ones")
        the_end.set()
