"""The seats in which requests wait: no more than half of the web threads, and a turn for everybody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from app.kit.web.waiting import LATEST_S, TURNED_AWAY_PER_S, Seats


class Clock:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def somebody_waiting(seats: Seats) -> Iterator[None]:
    """Keep one seat taken."""
    sits, may_go = threading.Event(), threading.Event()

    def wait() -> None:
        sits.set()
        may_go.wait()

    thread = threading.Thread(target=seats.wait, args=(wait,))
    thread.start()
    assert sits.wait(10)
    try:
        yield
    finally:
        may_go.set()
        thread.join()


def test_whoever_finds_a_seat_waits() -> None:
    waited: list[str] = []
    assert Seats(1).wait(lambda: waited.append("waited")) is None
    assert waited == ["waited"]


def test_whoever_finds_none_is_sent_away_at_once() -> None:
    seats = Seats(2)
    waited: list[str] = []
    with somebody_waiting(seats), somebody_waiting(seats):
        assert seats.wait(lambda: waited.append("waited")) == 1
    assert waited == []
    assert seats.wait(lambda: waited.append("waited")) is None


def test_a_seat_is_free_again_after_a_wait_that_failed() -> None:
    seats = Seats(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            seats.wait(lambda: 1 // 0)


def test_many_who_are_sent_away_come_again_one_after_the_other() -> None:
    seats = Seats(1, Clock())
    with somebody_waiting(seats):
        turns = [seats.wait(int) for _ in range(10 * TURNED_AWAY_PER_S)]
    assert turns == sorted(turns, key=lambda turn: turn or 0)
    assert (turns[0], turns[-1]) == (1, 11)
    assert max(turns.count(turn) for turn in set(turns)) <= TURNED_AWAY_PER_S + 1


def test_nobody_is_sent_away_for_long_and_turns_nobody_takes_are_forgotten() -> None:
    clock = Clock()
    seats = Seats(1, clock)
    with ExitStack() as waits:
        waits.enter_context(somebody_waiting(seats))
        turns = [seats.wait(int) for _ in range(100 * LATEST_S)]
        assert turns[-1] == LATEST_S
        clock.now += LATEST_S
        assert seats.wait(int) == 1
