"""Periodic tasks: each minute fires once, missed ones are caught up by one run (P2)."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huey import crontab

from app.kit.engine.api.wrapper import DEFAULT_TIMEOUT_S
from app.kit.engine.consumer.clock import Clock
from app.kit.engine.jobs import cron
from tests.kit.engine_rig import Rig, Threads, rig_in, until
from tests.kit.still_clock import NOW, stop_the_clock

MINUTE = int(NOW // 60)
HOUR_S, DAY_S = 3600, 24 * 3600
DAILY = crontab(minute="0", hour="*/24")
HOURLY = crontab(minute="0")


class Kind:
    """A periodic task as far as cron looks at it."""

    def __init__(self, when: Callable[[dt.datetime], bool]) -> None:
        self.validate_datetime = when


@pytest.fixture
def rig(rig: Rig) -> Rig:
    """A queue whose clock stands still."""
    stop_the_clock(rig)
    return rig


def start_clock(rig: Rig) -> Clock:
    """Make a clock that has seen nothing yet, as a process that starts does."""
    clock: Clock = rig.huey.create_consumer(workers=1)._create_scheduler()
    return clock


def periodic(rig: Rig, when: Any = HOURLY, name: str = "tick", **options: Any) -> Any:
    return rig.huey.periodic_task(when, name=name, **options)(lambda: None)


def fired(rig: Rig) -> int:
    return sum(rig.states().values())


# When


@pytest.mark.parametrize(
    ("last_run", "minute", "expected"),
    [
        (MINUTE - 1, MINUTE, MINUTE),
        (MINUTE, MINUTE, None),
        (MINUTE, MINUTE + 59, None),
        (MINUTE, MINUTE + 60, MINUTE + 60),
        (MINUTE - 60 * 24, MINUTE + 59, MINUTE),
        (MINUTE - 60 * 24 * 365, MINUTE + 59, MINUTE),
        (MINUTE + 100, MINUTE, None),
    ],
    ids=["due", "done", "not yet", "next", "missed many", "missed a year", "clock set back"],
)
def test_the_latest_missed_minute_is_due(last_run: int, minute: int, expected: int | None) -> None:
    assert cron.last_due(Kind(HOURLY), last_run, minute) == expected


def test_a_rare_run_is_caught_up_however_long_ago_it_was_up_to_a_year() -> None:
    year = 366 * 24 * 60
    task = Kind(lambda moment: int(moment.replace(tzinfo=dt.UTC).timestamp() // 60) == MINUTE)
    assert cron.last_due(task, 0, MINUTE + year) == MINUTE
    assert cron.last_due(task, 0, MINUTE + year + 1) is None


def test_the_next_minute_is_known() -> None:
    assert cron.next_due(Kind(HOURLY), MINUTE) == MINUTE + 60
    assert cron.next_due(Kind(HOURLY), MINUTE + 59) == MINUTE + 60


def test_what_is_over_a_month_away_has_no_next_minute() -> None:
    assert cron.next_due(Kind(lambda moment: False), MINUTE) is None


def test_a_next_minute_that_is_known_is_not_looked_for_again() -> None:
    looks: list[dt.datetime] = []

    def hourly(moment: dt.datetime) -> bool:
        looks.append(moment)
        return HOURLY(moment)

    fires = cron.NextFires()
    assert [fires.next_due("a", Kind(hourly), MINUTE + minute) for minute in (0, 1, 59)] == [MINUTE + 60] * 3
    assert len(looks) == 60
    assert fires.next_due("a", Kind(hourly), MINUTE + 60) == MINUTE + 120
    assert fires.next_due("b", Kind(DAILY), MINUTE + 60) == cron.next_due(Kind(DAILY), MINUTE + 60)
    assert fires.next_due("a", Kind(hourly), MINUTE - 1) == MINUTE  # the clock was set back


def test_what_is_over_a_month_away_is_looked_for_once_an_hour() -> None:
    looks: list[dt.datetime] = []
    never, fires = Kind(lambda moment: bool(looks.append(moment))), cron.NextFires()
    assert fires.next_due("a", never, MINUTE) is None
    once = len(looks)
    assert fires.next_due("a", never, MINUTE + 59) is None
    assert len(looks) == once
    assert fires.next_due("a", never, MINUTE + 60) is None
    assert len(looks) == 2 * once


def test_periodic_tasks_are_told_with_their_next_fire_and_last_run(rig: Rig) -> None:
    for name, when in (("daily", DAILY), ("hourly", HOURLY), ("never", lambda moment: False)):
        rig.huey.periodic_task(when, name=name)(lambda: None)
    rig.clock.advance(61)
    hourly = next(task for task in rig.huey.periodic_tasks() if task.name == "hourly")
    rig.huey.enqueue_cron(hourly, MINUTE)
    assert [one["last_at"] for one in rig.huey.cron()] == [None, None, None]  # none has run yet
    rig.run_next()
    told = [(one["task"].rpartition(".")[2], one["next_at"], one["last_at"]) for one in rig.huey.cron()]
    midnight = (NOW // DAY_S + 1) * DAY_S
    assert told == [("hourly", NOW + HOUR_S, NOW + 61), ("daily", midnight, None), ("never", None, None)]


def test_crontab_is_utc(rig: Rig) -> None:
    hour = dt.datetime.fromtimestamp(NOW, dt.UTC).hour
    assert cron.last_due(Kind(crontab(minute="0", hour=str(hour))), MINUTE - 1, MINUTE) == MINUTE


# Once


def test_a_minute_fires_once_however_often_the_clock_looks(rig: Rig) -> None:
    periodic(rig)
    clock = start_clock(rig)
    for _ in range(3):
        clock._fire_cron()
        start_clock(rig)._fire_cron()
        rig.clock.advance(7)
    assert fired(rig) == 1


def test_sixteen_clocks_that_race_fire_a_minute_once(rig: Rig) -> None:
    kind = periodic(rig)
    line, answers = threading.Barrier(16), []

    def fire() -> None:
        line.wait()
        answers.append(rig.huey.enqueue_cron(kind.task_class(), MINUTE))

    with Threads() as threads:
        for _ in range(16):
            threads.start(fire)
    assert (threads.errors, sorted(answers), fired(rig)) == ([], [False] * 15 + [True], 1)


def test_every_minute_of_an_hour_fires_once(rig: Rig) -> None:
    periodic(rig, crontab())
    clock = start_clock(rig)
    for _ in range(60):
        clock._fire_cron()
        rig.clock.advance(60)
    assert fired(rig) == 60


# Catching up


def test_missed_runs_are_caught_up_by_one(rig: Rig) -> None:
    periodic(rig)
    start_clock(rig)._fire_cron()
    rig.clock.advance(5 * HOUR_S + 120)
    start_clock(rig)._fire_cron()
    rig.clock.advance(60)
    start_clock(rig)._fire_cron()
    assert fired(rig) == 2


def test_a_monthly_run_is_caught_up_after_weeks(rig: Rig) -> None:
    periodic(rig, crontab(minute="0", hour="0", day="1"))
    start_clock(rig)._fire_cron()
    before = fired(rig)
    rig.clock.advance(75 * DAY_S)
    for _ in range(2):
        start_clock(rig)._fire_cron()
        rig.clock.advance(60)
    assert fired(rig) - before == 1


def test_a_clock_looks_at_a_minute_once(rig: Rig) -> None:
    looks: list[dt.datetime] = []
    periodic(rig, lambda moment: bool(looks.append(moment)))
    clock = start_clock(rig)
    clock._fire_cron()
    rig.clock.advance(DAY_S)
    clock._fire_cron()
    looked = len(looks)
    rig.clock.advance(60)
    clock._fire_cron()
    assert (looked, len(looks) - looked) == (24 * 60 + 1, 1)


def test_a_clock_that_was_far_ahead_for_a_minute_fires_what_comes_after(rig: Rig) -> None:
    periodic(rig, HOURLY)
    clock = start_clock(rig)
    clock._fire_cron()
    rig.clock.advance(40 * DAY_S + 60)
    clock._fire_cron()
    rig.clock.advance(-40 * DAY_S)
    clock._fire_cron()
    before = fired(rig)
    rig.clock.advance(HOUR_S)
    clock._fire_cron()
    assert fired(rig) == before + 1


def test_a_run_missed_before_the_first_ever_is_caught_up_too(rig: Rig) -> None:
    periodic(rig, DAILY)
    rig.clock.advance(HOUR_S)
    start_clock(rig)._fire_cron()
    assert fired(rig) == 0
    rig.clock.advance(DAY_S)  # the process slept through the moment, as it does every night
    start_clock(rig)._fire_cron()
    assert fired(rig) == 1


def test_a_new_task_does_not_fire_for_the_time_before_it_was_written(rig: Rig) -> None:
    periodic(rig)
    rig.clock.advance(60)
    start_clock(rig)._fire_cron()
    assert fired(rig) == 0


def test_a_new_task_fires_in_its_first_minute(rig: Rig) -> None:
    periodic(rig)
    start_clock(rig)._fire_cron()
    assert fired(rig) == 1


def test_a_clock_set_back_an_hour_fires_no_minute_twice(rig: Rig) -> None:
    periodic(rig, crontab(minute="*/10"))
    clock = start_clock(rig)
    for _ in range(12):
        clock._fire_cron()
        rig.clock.advance(600)
    assert fired(rig) == 12
    rig.clock.advance(-HOUR_S)
    for _ in range(6):
        clock._fire_cron()
        rig.clock.advance(600)
    assert fired(rig) == 12
    clock._fire_cron()
    assert fired(rig) == 13


def test_a_clock_that_was_a_year_ahead_is_forgiven(rig: Rig) -> None:
    periodic(rig)
    rig.clock.advance(365 * DAY_S)
    start_clock(rig)._fire_cron()
    rig.clock.advance(-365 * DAY_S)
    start_clock(rig)._fire_cron()
    assert fired(rig) == 2


# One that outlasts its period


def test_runs_pile_up_by_default(rig: Rig) -> None:
    periodic(rig)
    for _ in range(3):
        start_clock(rig)._fire_cron()
        rig.clock.advance(HOUR_S)
    assert fired(rig) == 3


@pytest.mark.parametrize("state", ["ready", "running", "scheduled"])
def test_with_pile_up_off_a_run_is_left_out_while_another_is_live(rig: Rig, state: str) -> None:
    kind = periodic(rig, pile_up=False)
    if state == "scheduled":
        kind.schedule(delay=1e9)
    else:
        start_clock(rig)._fire_cron()
    if state == "running":
        assert rig.claim()
    rig.clock.advance(HOUR_S)
    start_clock(rig)._fire_cron()
    assert rig.states() == {state: 1}


def test_with_pile_up_off_the_next_run_comes_after_the_end_and_not_at_once(rig: Rig) -> None:
    periodic(rig, pile_up=False)
    start_clock(rig)._fire_cron()
    rig.clock.advance(HOUR_S)
    start_clock(rig)._fire_cron()
    rig.run_next()
    start_clock(rig)._fire_cron()
    assert rig.states() == {"done": 1}
    rig.clock.advance(HOUR_S)
    start_clock(rig)._fire_cron()
    assert rig.states() == {"done": 1, "ready": 1}


# Trouble


def test_a_task_that_cannot_say_when_does_not_stop_the_others(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    def nonsense(moment: dt.datetime) -> bool:
        raise ValueError("no idea")

    periodic(rig, nonsense, name="a_broken_one")
    periodic(rig, name="good")
    with caplog.at_level(logging.ERROR):
        start_clock(rig)._fire_cron()
    assert fired(rig) == 1
    assert "a_broken_one cannot fire" in caplog.text


def test_a_full_queue_refuses_no_periodic_run(tmp_path: Path) -> None:
    with rig_in(tmp_path, max_pending_jobs=1) as rig:
        stop_the_clock(rig)
        rig.huey.task(name="any")(lambda: None)()
        periodic(rig)
        start_clock(rig)._fire_cron()
        assert fired(rig) == 2


def test_a_periodic_run_that_expires_is_cancelled(rig: Rig) -> None:
    periodic(rig, expires=60)
    start_clock(rig)._fire_cron()
    rig.clock.advance(10 * 365 * DAY_S)
    rig.run_next()
    assert rig.states() == {"cancelled": 1}


def test_a_periodic_task_is_overdue_like_any_other(rig: Rig) -> None:
    periodic(rig)
    start_clock(rig)._fire_cron()
    assert rig.rows("SELECT timeout_s FROM postroom_jobs") == [(DEFAULT_TIMEOUT_S,)]


def test_the_consumers_clock_fires_when_the_minute_comes(rig: Rig) -> None:
    periodic(rig)
    rig.clock.advance(-1)
    with rig.consuming():
        until(lambda: rig.rows("SELECT * FROM postroom_cron_runs"))
        assert fired(rig) == 0
        rig.clock.advance(1)
        rig.huey.clock_bell.ring()
        until(lambda: rig.states() == {"done": 1})
