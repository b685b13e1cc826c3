"""Lanes: pauses that grow and end, and a bounded number of mails a minute, both known after a restart."""

from __future__ import annotations

import pytest

from app.kit.mail import lanes
from app.kit.mail.replies import Reply

NOW = 1_000_000.0
FAULT = Reply("connect", None, "", "nobody there")
DELAYS_S = (5, 30, 60)

pytestmark = pytest.mark.usefixtures("app")


def test_each_fault_in_a_row_pauses_for_longer_until_the_last_repeats() -> None:
    now, pauses = NOW, []
    for _ in range(5):
        pauses.append(lanes.note_fault("smtp", FAULT, DELAYS_S, now))
        now += pauses[-1]
    assert pauses == [5, 30, 60, 60, 60]
    assert lanes.find("smtp").reason == "at connect: nobody there"


def test_mails_that_fail_together_are_one_fault() -> None:
    assert lanes.note_fault("smtp", FAULT, DELAYS_S, NOW) == 5
    assert lanes.note_fault("smtp", FAULT, DELAYS_S, NOW + 1) == 4
    assert lanes.find("smtp").faults == 1


def test_a_pause_made_by_a_clock_that_was_ahead_does_not_hold() -> None:
    assert lanes.note_fault("smtp", FAULT, DELAYS_S, NOW + 3 * 86400) == 5
    lane = lanes.find("smtp")
    assert [lane.left_s(NOW + 3 * 86400), lane.left_s(NOW)] == [5, 0]
    assert lanes.note_fault("smtp", FAULT, DELAYS_S, NOW) == 30


def test_a_mail_that_went_forgets_the_faults() -> None:
    lanes.note_fault("smtp", FAULT, DELAYS_S, NOW)
    lanes.note_success("smtp")
    assert lanes.find("smtp") == lanes.Lane("smtp", 0, 0.0, "")
    assert lanes.note_fault("smtp", FAULT, DELAYS_S, NOW + 1) == 5


def test_the_servers_wish_goes_before_but_not_beyond_a_day() -> None:
    patient = Reply("http", 429, "", "slow down", retry_after_s=120)
    assert lanes.note_fault("a", patient, DELAYS_S, NOW) == 120
    hasty = Reply("http", 429, "", "slow down", retry_after_s=1)
    assert lanes.note_fault("b", hasty, DELAYS_S, NOW) == 5
    absurd = Reply("http", 429, "", "slow down", retry_after_s=1e9)
    assert lanes.note_fault("c", absurd, DELAYS_S, NOW) == 24 * 3600


def test_lanes_know_nothing_of_each_other() -> None:
    lanes.note_fault("a", FAULT, DELAYS_S, NOW)
    assert lanes.find("b").faults == 0


def test_opening_all_ends_the_pauses_and_keeps_the_faults() -> None:
    assert not lanes.open_all(NOW)
    lanes.note_fault("smtp", FAULT, DELAYS_S, NOW)
    assert not lanes.open_all(NOW + 6)
    assert lanes.open_all(NOW + 1)
    assert lanes.note_fault("smtp", FAULT, DELAYS_S, NOW + 1) == 30


def test_no_limit_asks_for_no_token_and_writes_nothing() -> None:
    assert [lanes.take_token("smtp", 0, NOW) for _ in range(5)] == [0.0] * 5
    assert lanes.database.read("SELECT * FROM postroom_mail_lanes") == []


@pytest.mark.parametrize(("per_minute", "at_once", "wait_s"), [(30, 1, 2.0), (60, 1, 1.0), (600, 10, 0.1)])
def test_tokens_of_one_second_go_at_once_and_then_evenly(
    per_minute: int, at_once: int, wait_s: float
) -> None:
    assert [lanes.take_token("smtp", per_minute, NOW) for _ in range(at_once)] == [0.0] * at_once
    assert lanes.take_token("smtp", per_minute, NOW) == pytest.approx(wait_s)
    assert lanes.take_token("smtp", per_minute, NOW + wait_s / 2) == pytest.approx(wait_s / 2)
    assert lanes.take_token("smtp", per_minute, NOW + wait_s) == 0.0


def test_no_more_than_allowed_in_any_minute() -> None:
    now, sent = NOW, 0
    while now < NOW + 60:
        wait_s = lanes.take_token("smtp", 100, now)
        now, sent = now + wait_s, sent + (not wait_s)
    assert 100 <= sent <= 102


def test_a_clock_that_goes_back_gives_no_tokens_away() -> None:
    assert lanes.take_token("smtp", 60, NOW) == 0.0
    assert lanes.take_token("smtp", 60, NOW - 3600) == pytest.approx(1.0)
    assert lanes.take_token("smtp", 60, NOW - 3599) == 0.0
