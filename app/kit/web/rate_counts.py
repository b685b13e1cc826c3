"""Where Flask-Limiter keeps its counts: in the memory of this process, bounded, exact, without a thread."""

from __future__ import annotations

import time
from threading import Lock
from typing import Any

from limits.storage import Storage

MOST_KEYS = 20_000
"""Counts that are kept at most, about 5 MB. Half of the room is for those that grew past one, so that whoever makes
up a new key for each request pushes out only others that did."""


class CountsInMemory(Storage):
    """Counts by key until their window ends.

    Flask-Limiter's own memory:// starts a thread with each count, has no bound, and lets two threads count as one.
    """

    STORAGE_SCHEME = ["counts"]

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **_options: Any) -> None:
        super().__init__(uri, wrap_exceptions)
        self._lock = Lock()
        # key: [count, ends_at, expiry], in the order of their last change: what is forgotten goes from the front
        self._once: dict[str, list[float]] = {}
        self._more: dict[str, list[float]] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        """Name what may go wrong here: nothing of a network."""
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, in a window of `expiry` seconds that begins with the first of them."""
        now = time.time()
        with self._lock:
            found = self._once.pop(key, None) or self._more.pop(key, None)
            count, ends_at = found[:2] if found and _is_open(found, now) else (0, now + expiry)
            count += amount
            kept = self._once if count <= 1 else self._more
            self._make_room(kept, now)
            kept[key] = [count, ends_at, expiry]
            return int(count)

    def get(self, key: str) -> int:
        """Return the count of a window that has not ended."""
        found = self._find(key)
        return int(found[0]) if _is_open(found, time.time()) else 0

    def get_expiry(self, key: str) -> float:
        """Return when the key's window ends."""
        return self._find(key)[1]

    def check(self) -> bool:
        """Say that it works."""
        return True

    def reset(self) -> int:
        """Forget every count."""
        with self._lock:
            count = len(self)
            self._once.clear()
            self._more.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget one count."""
        with self._lock:
            self._once.pop(key, None)
            self._more.pop(key, None)

    def __len__(self) -> int:
        """Say how many counts are kept."""
        return len(self._once) + len(self._more)

    def _find(self, key: str) -> list[float]:
        with self._lock:
            return self._once.get(key) or self._more.get(key) or [0, time.time(), 0]

    @staticmethod
    def _make_room(kept: dict[str, list[float]], now: float) -> None:
        while kept:
            oldest = next(iter(kept))
            if len(kept) < MOST_KEYS // 2 and kept[oldest][1] > now:
                break
            del kept[oldest]


def _is_open(found: list[float], now: float) -> bool:
    """Say whether a window has not ended; one that ends too far ahead was begun by a clock that was wrong."""
    _, ends_at, expiry = found
    return now < ends_at <= now + expiry
