"""Where Flask-Limiter keeps its counts: in the memory of this process, bounded, exact, without a thread."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any

from limits.storage import Storage

MOST_KEYS = 20_000
"""Counts that are kept at most, about 5 MB; past that the oldest goes."""


class CountsInMemory(Storage):
    """Counts by key until their window ends.

    Flask-Limiter's own memory:// starts a thread with each count, has no bound, and lets two threads count as one.
    """

    STORAGE_SCHEME = ["counts"]

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **_options: Any) -> None:
        super().__init__(uri, wrap_exceptions)
        self._lock = Lock()
        self._counts: dict[str, list[float]] = {}  # key: [count, ends_at], oldest first

    @property
    def base_exceptions(self) -> type[Exception]:
        """Name what may go wrong here: nothing of a network."""
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, in a window of `expiry` seconds that begins with the first of them."""
        now = time.time()
        with self._lock:
            entry = self._counts.get(key)
            if entry is None or entry[1] <= now:
                self._counts.pop(key, None)  # so that a new window goes to the end
                self._forget(now)
                entry = self._counts[key] = [0, now + expiry]
            entry[0] += amount
            return int(entry[0])

    def get(self, key: str) -> int:
        """Return the count of a window that has not ended."""
        count, ends_at = self._counts.get(key, (0, 0))
        return int(count) if ends_at > time.time() else 0

    def get_expiry(self, key: str) -> float:
        """Return when the key's window ends."""
        return self._counts.get(key, (0, time.time()))[1]

    def check(self) -> bool:
        """Say that it works."""
        return True

    def reset(self) -> int:
        """Forget every count."""
        with self._lock:
            count = len(self._counts)
            self._counts.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget one count."""
        with self._lock:
            self._counts.pop(key, None)

    def _forget(self, now: float) -> None:
        while self._counts:
            oldest = next(iter(self._counts))
            if len(self._counts) < MOST_KEYS and self._counts[oldest][1] > now:
                break
            del self._counts[oldest]
