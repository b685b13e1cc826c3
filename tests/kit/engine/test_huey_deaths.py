"""Jobs whose process dies under them: freed, counted, and on the shelf with everybody told (P2)."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from huey import chord
from huey.exceptions import TaskException

from app.kit.engine.jobs import upkeep
from app.kit.engine.jobs.upkeep import Ages
from tests.kit.engine_rig import Rig, Threads, sleeps_for, until


@pytest.fixture
def gather(rig: Rig) -> Any:
    """A task that counts the values it is given."""
    return rig.huey.task(name="gather")(len)


def die(rig: Rig, times: int) -> None:
    for _ in range(times):
        assert rig.claim("i1")
        rig.huey.free("i1")


def test_a_job_whose_process_died_three_times_fails_in_view(rig: Rig, give: Any) -> None:
    result = give(1)
    die(rig, 3)
    row = rig.row(result.id)
    assert (row["state"], row["deaths"], row["attempt"]) == ("failed", 3, 0)
    assert row["error"] == "ProcessDiedError: its process died 3 times while it ran"
    with pytest.raises(TaskException, match="died 3 times"):
        result.get()


def test_a_member_whose_process_died_three_times_lets_its_chord_fire(
    rig: Rig, give: Any, gather: Any
) -> None:
    result = rig.huey.enqueue(chord([give.s(1)], gather.s()))
    die(rig, 3)
    rig.run_all()
    assert result.get() == 1


def test_a_job_that_is_shelved_by_a_body_that_leads_a_group_leaves_the_body_alone(
    rig: Rig, give: Any
) -> None:
    poison = give("poison")
    die(rig, 2)
    assert rig.claim("i1")
    line, has_it = rig.database.writer.line, threading.Event()

    def hold() -> None:
        with rig.database.transaction():
            has_it.set()
            until(lambda: len(line) == 2, "two in line")

    def free() -> None:
        until(lambda: len(line) == 1, "the body in line")
        rig.huey.free("i1")

    with Threads() as threads:

        @rig.huey.task(name="leads")
        def leads() -> str:
            threads.start(hold)
            has_it.wait()
            threads.start(free)
            rig.database.write(lambda connection: None)
            return "well"

        result = leads()
        rig.run_next()
    assert threads.errors == []
    assert (rig.row(poison.id)["state"], rig.row(result.id)["error"]) == ("failed", None)
    assert result.get() == "well"


def test_whoever_waits_for_a_job_is_called_when_it_goes_to_the_shelf(
    rig: Rig, give: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kit.engine.operate.control.ALONE_LOOK_S", 60.0)
    result, answers = give(1), []
    die(rig, 2)
    with Threads() as threads:
        threads.start(lambda: answers.append(rig.huey.wait_for_end(result.id, 15)))
        until(lambda: sleeps_for(rig, result.id))
        began = time.monotonic()
        die(rig, 1)
    assert time.monotonic() - began < 10


def test_a_chord_whose_member_waits_for_weeks_still_fires(rig: Rig, give: Any, gather: Any) -> None:
    result = rig.huey.enqueue(chord([give.s(1), give.s(2, delay=20 * 24 * 3600)], gather.s()))
    rig.run_next()
    rig.clock.advance(20 * 24 * 3600 + 1)
    ages = Ages(done_s=1e9, result_s=1e9)
    rig.database.write(lambda connection: upkeep.prune(connection, ages, rig.clock()))
    rig.run_all()
    assert result.get() == 2


def test_a_lock_goes_with_the_process_that_held_it(rig: Rig, give: Any) -> None:
    held = threading.Event()

    @rig.huey.task(name="holds")
    def holds() -> None:
        rig.huey.lock_task("till").acquire()
        held.set()

    holds()
    rig.huey.run(rig.claim("i1"))  # its end is never written
    assert held.is_set()
    assert rig.huey.is_locked("till")
    rig.huey.free("i1")
    assert not rig.huey.is_locked("till")


def test_a_lock_taken_outside_a_body_stays_when_a_process_dies(rig: Rig, give: Any) -> None:
    rig.huey.lock_task("till").acquire()
    give(1)
    die(rig, 1)
    assert rig.huey.is_locked("till")


def test_a_member_of_an_unknown_task_lets_its_chord_fire(rig: Rig, give: Any, gather: Any) -> None:
    gone = rig.huey.task(name="gone")(lambda: 1)
    result = rig.huey.enqueue(chord([give.s(1), gone.s().then(give)], gather.s()))
    gone.unregister()
    rig.run_all()
    assert result.get() == 2
