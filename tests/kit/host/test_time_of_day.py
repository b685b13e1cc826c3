"""The kit's clock: a jump of the machine's deletes nothing, and what is far off is not followed (P2, P6)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

import tasks
from app.kit.database.file import database
from app.kit.engine.consumer.clock import Clock as EngineClock
from app.kit.host.clock import BELIEVED_AFTER_S, Clock, clock
from app.kit.mail import by_hand, lanes, ledger, upkeep as housekeeping
from app.kit.mail.replies import Reply
from app.kit.mail.sending import send_email
from tests.kit.engine_rig import Rig, SettableClock, rig_in

DAY_S = 24 * 3600.0
HOUR_S = 3600.0
START = 1_800_000_000.0


class Machine:
    """A machine's two clocks: the one that people set, and the one that only counts."""

    def __init__(self) -> None:
        self.wrong_s = 0.0
        self.counted = 5000.0

    def wall(self) -> float:
        return START + self.counted - 5000 + self.wrong_s

    def right(self) -> float:
        return self.wall() - self.wrong_s

    def pass_time(self, seconds: float) -> None:
        self.counted += seconds


@pytest.fixture
def machine() -> Machine:
    """A machine whose clock a test can set."""
    return Machine()


def clock_of(machine: Machine) -> Clock:
    return Clock(machine.wall, lambda: machine.counted)


def test_a_clock_that_is_right_is_followed_and_not_doubted(machine: Machine) -> None:
    told = clock_of(machine)
    for wrong_s in (0, 20, -20, 30):  # what NTP corrects
        machine.wrong_s = wrong_s
        machine.pass_time(HOUR_S)
        assert (told(), told.settled(), told.doubt()) == (machine.wall(), machine.wall(), None)


@pytest.mark.parametrize("wrong_s", [40 * DAY_S, -40 * DAY_S])
def test_a_clock_that_is_far_off_for_a_minute_is_not_followed(machine: Machine, wrong_s: float) -> None:
    told = clock_of(machine)
    machine.wrong_s = wrong_s
    for _ in range(15):
        machine.pass_time(5)
        assert told() == machine.right()
        assert told.settled() <= machine.right()
    assert "40 days" in str(told.doubt())
    machine.wrong_s = 0
    assert (told(), told.settled(), told.doubt()) == (machine.wall(), machine.wall(), None)


@pytest.mark.parametrize("wrong_s", [HOUR_S, -HOUR_S])
def test_jobs_run_by_a_clock_that_was_set_a_little_but_nothing_is_deleted_by_it(
    machine: Machine, wrong_s: float
) -> None:
    told = clock_of(machine)
    machine.wrong_s = wrong_s
    assert told() == machine.wall()
    assert told.settled() == min(machine.wall(), machine.right())
    assert told.doubt() is not None


@pytest.mark.parametrize("wrong_s", [40 * DAY_S, -40 * DAY_S, HOUR_S])
def test_a_time_that_has_stood_for_a_while_is_believed(machine: Machine, wrong_s: float) -> None:
    told = clock_of(machine)
    machine.wrong_s = wrong_s
    told()
    machine.pass_time(BELIEVED_AFTER_S - 1)
    assert told.doubt() is not None
    machine.pass_time(1)
    assert (told(), told.settled(), told.doubt()) == (machine.wall(), machine.wall(), None)


def test_a_clock_that_jumps_on_and_on_is_never_believed(machine: Machine) -> None:
    told = clock_of(machine)
    for days in range(1, 50):
        machine.wrong_s = days * DAY_S
        machine.pass_time(BELIEVED_AFTER_S / 2)
        assert told.settled() == machine.right()


def test_a_machine_that_starts_before_ntp_has_spoken_goes_on_where_the_file_ends(machine: Machine) -> None:
    machine.wrong_s = -40 * DAY_S
    told = clock_of(machine)
    told.heed(machine.right() - 600)
    machine.pass_time(60)
    assert told() == machine.right() - 600
    assert "behind" in str(told.doubt())
    machine.wrong_s = 0
    assert told() == machine.wall()


def test_after_a_long_rest_jobs_run_at_once_and_nothing_is_deleted_yet(machine: Machine) -> None:
    told = clock_of(machine)
    told.heed(machine.wall() - 3 * DAY_S)
    assert (told(), told.settled()) == (machine.wall(), machine.wall() - 3 * DAY_S)
    machine.pass_time(BELIEVED_AFTER_S)
    assert told.settled() == machine.wall()


def test_an_empty_file_and_a_short_rest_tell_nothing(machine: Machine) -> None:
    told = clock_of(machine)
    for newest in (None, machine.wall() - HOUR_S):
        told.heed(newest)
        assert told.doubt() is None


def test_a_jump_that_was_seen_is_not_taken_for_a_long_rest(machine: Machine) -> None:
    told = clock_of(machine)
    machine.wrong_s = 3 * DAY_S
    told.heed(machine.right())
    assert told() == machine.right()


# What goes by it


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """A function that sets the clock of the machine ahead, or back."""
    right = clock._wall
    monkeypatch.setattr(clock, "_known", clock._known)

    def set_clock(by: timedelta) -> None:
        monkeypatch.setattr(clock, "_wall", lambda: right() + by.total_seconds())

    return set_clock


def test_forty_days_ahead_forget_no_mail_and_expire_none(
    app: Flask, run_jobs: Callable[[], None], set_clock: Callable[[timedelta], None]
) -> None:
    def send(reader: str) -> None:
        send_email(f"{reader}@example.com", "confirm_subscription", genres=[], confirm_url="", days=1)

    send("sent")
    run_jobs()
    send("waits")
    set_clock(timedelta(days=40))
    assert housekeeping.forget_old_mails.call_local() == 0
    run_jobs()
    assert [mail["state"] for mail in by_hand.find()] == ["sent", "sent"]


def test_a_pause_that_begins_while_the_clock_is_ahead_ends_in_time(
    app: Flask, set_clock: Callable[[timedelta], None]
) -> None:
    set_clock(timedelta(days=3))
    assert lanes.note_fault("lane", Reply("connect", None, "", "down"), (5,)) == 5
    tasks.huey.pause("a task", seconds=5)
    later = tasks.task(name="test.later")(lambda: None).schedule(delay=5)
    set_clock(timedelta(0))
    assert lanes.find("lane").paused_until - clock() <= 5
    assert tasks.huey.pauses()[0]["until_at"] - clock() <= 5
    assert database.read("SELECT run_at FROM postroom_jobs WHERE uuid = ?", (later.id,))[0][0] - clock() <= 5


def test_a_mail_written_before_ntp_has_spoken_has_its_whole_time(
    app: Flask, set_clock: Callable[[timedelta], None]
) -> None:
    set_clock(timedelta(days=-40))
    send_email("cleo@example.com", "confirm_subscription", genres=[], confirm_url="", days=1)
    set_clock(timedelta(0))
    email = ledger.find(1)
    assert email is not None
    assert email.expires_at is not None
    assert email.expires_at - clock.utc() > timedelta(days=3)
    assert clock.utc() - email.created_at < timedelta(hours=1)


def test_jobs_expire_and_go_by_the_settled_time(rig: Rig, machine: Machine) -> None:
    rig.huey.now = clock_of(machine)
    give = rig.huey.task(name="give")(lambda: "given")
    with rig.consuming() as consumer:
        in_an_hour = datetime.fromtimestamp(machine.right() + HOUR_S, UTC)
        done = give(expires=in_an_hour)
        rig.huey.wait_for_end(done.id, 10)
        machine.wrong_s = 5 * HOUR_S
        consumer.scheduler._upkeep_due = 0
        rig.huey.clock_bell.ring()
        ahead = give(expires=in_an_hour)
        rig.huey.wait_for_end(ahead.id, 10)
    assert rig.states() == {"done": 2}


def test_ready_says_that_the_clock_jumped(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, set_clock: Callable[[timedelta], None]
) -> None:
    monkeypatch.setattr(tasks.huey, "health", lambda: [])
    set_clock(timedelta(days=40))
    answer = client.get("/ready").get_json()
    assert answer["ready"] is True
    assert "40 days ahead" in answer["warnings"][0]


def test_upkeep_deletes_by_the_settled_time(tmp_path: Path, machine: Machine) -> None:
    with rig_in(tmp_path, done_ttl_s=3600) as rig:
        rig.huey.now = clock_of(machine)
        rig.huey.task(name="give")(lambda: "given")()
        rig.run_next()
        upkeep = EngineClock(rig.huey, threading.Event(), rig.huey.create_consumer())
        machine.wrong_s = 5 * HOUR_S
        for states in ({"done": 1}, {}):
            upkeep._upkeep_due = 0
            upkeep._keep_up()
            assert rig.states() == states
            machine.pass_time(BELIEVED_AFTER_S)


def test_the_newest_moment_of_the_file_is_that_of_its_last_job_run_or_process(rig: Rig) -> None:
    heeded: list[float | None] = []

    class Heeds(SettableClock):
        def heed(self, newest: float | None) -> None:
            heeded.append(newest)

    rig.huey.now = now = Heeds()
    rig.huey.heed_the_file()
    give = rig.huey.task(name="give")(lambda: "given")
    for days in (1, 2, 3):
        now.set(START + days * DAY_S)
        give() if days < 3 else rig.run_next()
        rig.huey.heed_the_file()
    assert heeded[0] is None
    assert [round((at or 0) - START) for at in heeded[1:]] == [DAY_S, 2 * DAY_S, 3 * DAY_S]
