"""The clock: due jobs, cron and pauses, by one instance; another takes over at once (P2, P7)."""

from __future__ import annotations

import datetime as dt
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from huey import crontab

from tests.kit.engine_child import child
from tests.kit.engine_rig import PATIENCE_S, Rig, rig_in, until

NOON = dt.datetime(2030, 6, 3, 12, 0, 5, tzinfo=dt.UTC).timestamp()
"""Five seconds past noon on a Monday."""
MINUTE = 60.0
DAY = 24 * 3600.0


@pytest.fixture
def rig(rig: Rig) -> Rig:
    """A queue at noon."""
    rig.clock.set(NOON)
    return rig


class Cron:
    """A periodic task that says at which minutes (since noon) it fired."""

    def __init__(self, rig: Rig, **pattern: str) -> None:
        self.rig = rig
        self.task = rig.huey.periodic_task(crontab(**pattern), name="cron")(lambda: None)

    def fired(self) -> list[int]:
        """Return the minutes since noon at which a job was made, in order."""
        rows = self.rig.rows("SELECT enqueued_at FROM postroom_jobs WHERE task LIKE '%cron' ORDER BY id")
        return [int(row[0] // 60) - int(NOON // 60) for row in rows]


def go_to(rig: Rig, minutes: float) -> None:
    """Set the clock to so many minutes after noon, and let it look."""
    rig.clock.set(NOON + minutes * MINUTE)
    rig.huey.clock_bell.ring_all()


# Due jobs


def test_a_job_is_late_by_a_few_milliseconds_at_most(rig: Rig) -> None:
    rig.clock.offset_s = 0
    started: list[float] = []
    task = rig.huey.task(name="note")(lambda: started.append(time.time()))
    with rig.consuming(workers=1):
        due = []
        for n in range(5):
            due.append(time.time() + 0.02 * (n + 1))
            task.schedule(eta=dt.datetime.fromtimestamp(due[-1], dt.UTC))
        until(lambda: len(started) == 5, "all five")
    lateness = sorted(begun - wanted for begun, wanted in zip(started, due, strict=True))
    assert lateness[0] > -0.001
    assert lateness[2] < 0.05  # the median; far less where nobody else runs


def test_a_job_that_is_scheduled_sooner_wakes_a_clock_that_sleeps_longer(rig: Rig) -> None:
    rig.clock.offset_s = 0
    task = rig.huey.task(name="give")(lambda: 1)
    with rig.consuming(workers=1):
        task.schedule(delay=600)
        began = time.monotonic()
        assert task.schedule(delay=0.05).get(blocking=True, timeout=PATIENCE_S) == 1
    assert time.monotonic() - began < 0.9  # and not when the clock would have looked anyway


def test_more_jobs_than_go_at_once_become_due_together(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.kit.engine.consumer.clock.PROMOTE_AT_ONCE", 10)
    rig.clock.offset_s = 0
    task = rig.huey.task(name="give")(lambda: 1)
    with rig.huey.bulk():
        for _ in range(55):
            task.schedule(delay=60)
    with rig.consuming():
        rig.clock.advance(61)
        rig.huey.clock_bell.ring_all()
        until(lambda: rig.states() == {"done": 55})


# Cron


def test_a_periodic_task_fires_once_at_its_minute(rig: Rig) -> None:
    cron = Cron(rig, minute="2")
    with rig.consuming():
        for minutes in (1, 1.9, 2, 2.2, 2.9, 3, 4):
            go_to(rig, minutes)
            until(lambda minutes=minutes: len(cron.fired()) == (minutes >= 2))
        until(lambda: rig.states() == {"done": 1}, "the end of the run")
    assert cron.fired() == [2]


def test_a_crontab_is_read_in_utc(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        cron = Cron(rig, minute="0", hour="12", day_of_week="1")
        with rig.consuming():
            until(cron.fired)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert cron.fired() == [0]


def test_of_two_consumers_only_one_fires_a_minute(tmp_path: Path) -> None:
    with rig_in(tmp_path) as one, rig_in(tmp_path) as two:
        two.clock = two.huey.now = one.clock
        one.clock.set(NOON)
        crons = [Cron(one), Cron(two)]
        with one.consuming(), two.consuming():
            for minute in range(1, 6):
                for rig in (one, two):
                    go_to(rig, minute)
                one.clock.set(NOON + minute * MINUTE)
                until(lambda minute=minute: len(crons[0].fired()) == minute + 1)
            assert [row[0] for row in one.rows("SELECT SUM(clock) FROM postroom_instances")] == [1]
        assert crons[0].fired() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("away", "fired"),
    [(1, [0, 1]), (5, [0, 5]), (6 * 24 * 60, [0, 6 * 24 * 60])],
    ids=["a minute", "five", "six days"],
)
def test_minutes_missed_while_nobody_was_there_are_caught_up_by_one_run(
    rig: Rig, away: int, fired: list[int]
) -> None:
    cron = Cron(rig)
    with rig.consuming():
        until(cron.fired)
    go_to(rig, away)
    with rig.consuming():
        until(lambda: len(cron.fired()) == 2)
    assert cron.fired() == fired


def test_a_rare_run_that_was_missed_is_caught_up_however_long_ago(rig: Rig) -> None:
    cron = Cron(rig, minute="0", hour="12", day="3")
    for away, jobs in ((0, 1), (30 * DAY + 6 * DAY, 2), (60 * DAY + 20 * DAY, 3)):
        rig.clock.set(NOON + away)
        with rig.consuming():
            until(lambda jobs=jobs: len(cron.fired()) == jobs)
    rig.run_all()
    assert rig.states() == {"done": 3}


def test_a_task_that_never_ran_is_not_caught_up(rig: Rig) -> None:
    cron = Cron(rig, minute="58", hour="11")
    with rig.consuming() as consumer:
        until(lambda: consumer.is_consuming() and instances(rig) == [1])
        go_to(rig, 1)
    assert cron.fired() == []


@pytest.mark.parametrize("jump", [-60, 60], ids=["back", "forward"])
def test_a_clock_that_jumps_by_an_hour_fires_no_minute_twice(rig: Rig, jump: int) -> None:
    cron = Cron(rig)
    with rig.consuming():
        for minute in (0, 1, 2):
            go_to(rig, minute)
            until(lambda minute=minute: len(cron.fired()) == minute + 1)
        go_to(rig, 2 + jump)
        go_to(rig, 3 + max(jump, 0))
        until(lambda: 3 + max(jump, 0) in cron.fired())
    assert sorted(set(cron.fired())) == cron.fired()
    assert len(cron.fired()) <= 5


def test_a_run_that_outlasts_its_period_is_not_piled_upon_where_the_task_says_so(rig: Rig) -> None:
    go_on = threading.Event()
    body = rig.huey.periodic_task(crontab(), name="long_cron", pile_up=False)
    body(lambda: go_on.wait(PATIENCE_S))
    with rig.consuming():
        until(lambda: rig.states() == {"running": 1})
        for minute in (1, 2, 3):
            go_to(rig, minute)
            until(lambda minute=minute: last_noted(rig) == minute)
        assert rig.states() == {"running": 1}
        go_on.set()
        until(lambda: rig.states() == {"done": 1})
        go_to(rig, 4)
        until(lambda: rig.states() == {"done": 2})


def last_noted(rig: Rig) -> int:
    """Return the last minute since noon that was dealt with."""
    return int(rig.rows("SELECT MAX(minute) FROM postroom_cron_runs")[0][0]) - int(NOON // 60)


# Who holds the clock


def instances(rig: Rig) -> list[int]:
    return [row[0] for row in rig.rows("SELECT clock FROM postroom_instances ORDER BY started_at, id")]


def test_the_clock_is_taken_over_from_an_instance_that_leaves(tmp_path: Path) -> None:
    with rig_in(tmp_path) as one, rig_in(tmp_path) as two, two.consuming():
        until(lambda: instances(two) == [1])
        with one.consuming():
            until(lambda: len(instances(two)) == 2)
            assert sum(instances(two)) == 1
        until(lambda: instances(two) == [1])


def test_the_clock_of_a_killed_process_is_taken_over_within_two_seconds(rig: Rig, tmp_path: Path) -> None:
    rig.clock.offset_s = 0
    with child(tmp_path, "consume") as process:
        until(lambda: instances(rig) == [1], "the child's clock")
        with rig.consuming() as consumer:
            until(consumer.is_consuming)
            assert instances(rig) == [1, 0]
            process.kill()
            process.wait()
            began = time.monotonic()
            until(lambda: instances(rig) == [1], "taking over")
            assert time.monotonic() - began < 3  # two, and a little for a busy machine


# Pauses


def test_a_pause_with_an_end_ends_by_itself(rig: Rig) -> None:
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.huey.pause(seconds=60)
    with rig.consuming():
        go_to(rig, 0.9)
        assert rig.states() == {"ready": 1}
        go_to(rig, 1.1)
        assert result.get(blocking=True, timeout=PATIENCE_S) == 1


def test_a_clock_that_stumbles_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.kit.engine.consumer.clock.LOOK_S", 0.01)
    failures: list[Any] = [OSError("disk I/O error")] * 3
    version = rig.database.data_version

    def broken_disk() -> int:
        if failures:
            raise failures.pop()
        return version()

    monkeypatch.setattr(rig.database, "data_version", broken_disk)
    cron = Cron(rig)
    with rig.consuming():
        until(lambda: not failures)
        go_to(rig, 1)
        until(cron.fired)
