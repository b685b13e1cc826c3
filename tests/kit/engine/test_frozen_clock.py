"""The process that holds the clock is frozen: others do its work, each thing once, and /ready tells (P2, P6)."""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huey import crontab

from app.kit.engine.consumer.clock import LATE_S
from app.kit.engine.consumer.instances import file_lock
from app.kit.engine.jobs import cron
from tests.kit.engine_child import child, make_rig, notes
from tests.kit.engine_rig import PATIENCE_S, Rig, until

NOON = 1_906_718_400.0


@pytest.fixture
def rig(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A queue whose clock somebody holds who does nothing."""
    monkeypatch.setattr("app.kit.engine.consumer.clock.LOOK_S", 0.01)
    rig.clock.set(NOON)
    lock = file_lock(rig.folder / "clock.lock")
    with lock:
        yield rig


def soon() -> dt.datetime:
    """Return a moment that comes at once, as Huey wants it."""
    return dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(seconds=0.1)


def looks(rig: Rig) -> None:
    """Let the clocks look twice."""
    for _ in range(2):
        time.sleep(0.02)  # LOOK_S
        rig.huey.clock_bell.ring_all()
        until(lambda: rig.huey.clock_bell._seats)


def test_what_is_due_for_a_while_is_made_ready_by_who_does_not_hold_the_clock(rig: Rig) -> None:
    give = rig.huey.task(name="give")(lambda: 1)
    now = time.time()
    rig.clock.set(now)
    soon, later = give.schedule(delay=60), give.schedule(delay=600)
    with rig.consuming(workers=1):
        rig.clock.set(now + 60 + LATE_S / 2)
        looks(rig)
        assert rig.states() == {"scheduled": 2}
        rig.clock.set(now + 60 + LATE_S + 1)
        assert soon.get(blocking=True, timeout=PATIENCE_S) == 1
        assert rig.row(later.id)["state"] == "scheduled"


def test_a_minute_that_nobody_fired_is_fired_by_who_does_not_hold_the_clock(rig: Rig) -> None:
    rig.huey.periodic_task(crontab(minute="1"), name="tick")(lambda: None)
    with rig.consuming(workers=1):
        until(lambda: rig.rows("SELECT 1 FROM postroom_cron_runs"), "the first look")
        for late_s, fired in ((LATE_S / 2, {}), (LATE_S + 0.1, {"done": 1}), (LATE_S + 30, {"done": 1})):
            rig.clock.set(NOON + 60 + late_s)
            looks(rig)
            until(lambda fired=fired: rig.states() == fired)


def test_a_process_that_thaws_fires_no_minute_before_the_last_one(rig: Rig) -> None:
    def note(minute: int, present: int) -> bool:
        return rig.database.write(lambda connection: cron.add_cron_run(connection, "a", minute, present))

    assert note(10, 10)
    assert not note(7, 10), "another has fired for the missed minutes"
    assert note(7, 8), "the clock was ahead when the tenth fired"


def test_what_is_due_and_waits_is_told(rig: Rig) -> None:
    now = time.time()
    rig.clock.set(now)
    rig.huey.create_consumer(workers=2).instance.join(2)
    rig.huey.task(name="give")(lambda: 1).schedule(delay=100)
    for after_s, reasons in ((99, 0), (125, 0), (135, 1)):
        rig.clock.set(now + after_s)
        assert len(rig.huey.health()) == reasons
    rig.huey.create_consumer(workers=2).instance.join(2)
    assert rig.huey.health() == [], "who has just started gets to it in a moment"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that freezes a process")
def test_a_frozen_process_holds_up_no_other_one(tmp_path: Path) -> None:
    rig = make_rig(tmp_path)
    note = rig.huey._registry.string_to_task("tests.kit.engine_child.note")
    with child(tmp_path, "consume") as holder, rig.consuming(workers=1):
        until(
            lambda: rig.rows("SELECT clock FROM postroom_instances ORDER BY started_at") == [(1,), (0,)],
            "the child's clock",
        )
        holder.send_signal(signal.SIGSTOP)
        for number in range(20):
            rig.huey.enqueue(note((number,), eta=soon()))
        until(lambda: len(notes(tmp_path)) == 20, "the jobs whose time has come")
        assert {pid for _, pid in notes(tmp_path)} == {os.getpid()}
        holder.send_signal(signal.SIGCONT)
        rig.huey.enqueue(note(("after",), eta=soon()))
        until(lambda: len(notes(tmp_path)) == 21, "the job after the thaw")
        assert rig.huey.wait_until_idle(PATIENCE_S)
        assert sorted(word for word, _ in notes(tmp_path)) == sorted([*map(str, range(20)), "after"])
    rig.close()
