"""Locks and rate limits as Huey has them, kept for as long as they are needed (P4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from huey.api import RateLimit
from huey.exceptions import RateLimitExceeded


class WindowedRateLimit(RateLimit):
    """Huey's rate limit; one commit counts a call, and a window that is over leaves nothing behind."""

    def acquire(self) -> None:
        """Count a call in the present window.

        Raises: RateLimitExceeded when the window is full.
        """
        if self._huey.immediate:
            super().acquire()
            return
        now = self._huey.now()
        left_s = self._time_until_reset(now)
        if self._huey.storage.incr(self._counter_key, expires_at=now + left_s) > self._limit:
            raise RateLimitExceeded(self._name, left_s, retry=self._retry)


class StoredLocks:
    """The names of the locks that are held; Huey remembers every name that was ever used in the process."""

    def __init__(self, huey: Any) -> None:
        self._huey = huey

    def add(self, key: str) -> None:
        """Remember nothing: the storage knows."""

    def __iter__(self) -> Iterator[str]:
        yield from self._huey.storage.keys_from(f"{self._huey.name}.lock.")

    def __len__(self) -> int:
        return sum(1 for _ in self)
