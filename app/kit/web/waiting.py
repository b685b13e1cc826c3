"""Requests that wait for news: at most half of the web threads, the others are told when to come again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LONGEST_WAIT_S = 25.0
"""Shorter than the 30 s after which proxies commonly give up."""

TURNED_AWAY_PER_S = 20
"""How many of those who found no seat come again in a second, however many they are."""

SOONEST_S, LATEST_S = 1, 30


class Seats:
    """The web threads that may wait; whoever finds none free is given a moment of his own to ask again."""

    def __init__(self, count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._clock = clock
        self._lock = threading.Lock()
        self._next_turn_at = 0.0

    def wait(self, wait: Callable[[], object]) -> int | None:
        """Wait in a seat and return None; without a seat return at once the seconds until asking again."""
        if not self._free.acquire(blocking=False):
            return self._turn_away()
        try:
            wait()
        finally:
            self._free.release()
        return None

    def _turn_away(self) -> int:
        # One after the other: 200 open pages come back over ten seconds, three come back after one.
        with self._lock:
            now = self._clock()
            turn_at = max(now + SOONEST_S, self._next_turn_at + 1 / TURNED_AWAY_PER_S)
            self._next_turn_at = min(turn_at, now + LATEST_S)
            return round(self._next_turn_at - now)
