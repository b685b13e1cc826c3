"""Several processes on one queue: each job runs once, and what a killed one had runs elsewhere (P2)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.engine_child import child, make_rig, notes, task_of
from tests.kit.engine_rig import PATIENCE_S, Rig, until


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A queue whose tasks any process knows."""
    rig = make_rig(tmp_path)
    yield rig
    rig.close()


def test_two_processes_share_the_work_and_run_nothing_twice(rig: Rig, tmp_path: Path) -> None:
    with ExitStack() as children:
        for _ in range(2):
            children.enter_context(child(tmp_path, "consume"))
        note, count = task_of(rig, "note"), 0
        while len({pid for _, pid in notes(tmp_path)}) < 2:
            for _ in range(50):
                count += 1
                note(count)
            until(lambda count=count: rig.states() == {"done": count}, "the end of all jobs")
            assert count < 20_000, "one process does all the work"
    assert sorted(int(word) for word, _ in notes(tmp_path)) == list(range(1, count + 1))


def test_what_a_killed_process_had_runs_in_another_within_two_seconds(rig: Rig, tmp_path: Path) -> None:
    with child(tmp_path, "consume") as process:
        result = task_of(rig, "note_and_hang")("once")
        until(lambda: notes(tmp_path) == [("once", process.pid)], "the start")
        with rig.consuming(workers=1):
            process.kill()
            process.wait()
            killed_at = time.monotonic()
            until(lambda: rig.row(result.id)["state"] == "done", "the end elsewhere")
            took_s = time.monotonic() - killed_at
    row = rig.row(result.id)
    assert notes(tmp_path) == [("once", process.pid), ("once", os.getpid())]
    assert (row["attempt"], row["deaths"]) == (1, 1)
    assert took_s < 3  # two, and a little for a busy machine


def test_an_enqueue_of_another_process_is_noticed(rig: Rig, tmp_path: Path) -> None:
    with rig.consuming(workers=1):
        assert rig.huey.wait_until_idle(PATIENCE_S)
        with child(tmp_path, "enqueue"):
            until(lambda: notes(tmp_path) == [("elsewhere", os.getpid())], "the run here")


def test_an_enqueue_of_this_process_is_noticed_by_a_sibling_in_no_time(rig: Rig, tmp_path: Path) -> None:
    with child(tmp_path, "consume") as process:
        other = rig.huey.create_consumer(workers=1)
        other.instance.join(0)  # a web process that does not consume

        def seconds_to_run() -> float:
            began, before = time.monotonic(), len(notes(tmp_path))
            task_of(rig, "note")("word")
            until(lambda: len(notes(tmp_path)) > before, "the run there")
            return time.monotonic() - began

        until(lambda: seconds_to_run() < 0.1)  # at once when alone for a second; then every 25 ms
        other.instance.leave()
    assert {pid for _, pid in notes(tmp_path)} == {process.pid}


def test_who_waits_for_a_job_that_ends_elsewhere_hears_of_it(rig: Rig, tmp_path: Path) -> None:
    with child(tmp_path, "consume"):
        assert task_of(rig, "note")("word").get(blocking=True, timeout=PATIENCE_S) is None
