"""Waking without polling: a bell for those who wait for work, and a call for those who wait for one job."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Rung after a commit that made work; a waiter says which ring it has seen, so none is ever missed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self.rings = 0

    def ring(self, waiters: int = 1) -> None:
        """Wake that many waiters; those who are not waiting yet will not wait."""
        with self._condition:
            self.rings += 1
            self._condition.notify(waiters)

    def ring_all(self) -> None:
        """Wake everybody."""
        with self._condition:
            self.rings += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout_s: float | None = None) -> None:
        """Return once the bell has rung since `seen` was read, or after the time."""
        with self._condition:
            self._condition.wait_for(lambda: self.rings != seen, timeout_s)


class EndCalls:
    """Calls those who wait for a job's end, and only those."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[threading.Event]] = {}
        self._every_step: set[threading.Event] = set()
        self.closed = False

    @contextmanager
    def expect(self, uuid: str, every_step: bool = False) -> Iterator[threading.Event]:
        """Give an event that is set when the job ends (or when the process is about to stop).

        With `every_step` it is set when the job starts, too.
        """
        event = threading.Event()
        with self._lock:
            if every_step:
                self._every_step.add(event)
            self._waiting.setdefault(uuid, []).append(event)
            if self.closed:
                event.set()
        try:
            yield event
        finally:
            with self._lock:
                self._every_step.discard(event)
                self._waiting[uuid].remove(event)
                if not self._waiting[uuid]:
                    del self._waiting[uuid]

    def call(self, uuid: str) -> None:
        """Wake those who wait for this job."""
        if not self._waiting:
            return
        with self._lock:
            for event in self._waiting.get(uuid, ()):
                event.set()

    def call_at_start(self, uuid: str) -> None:
        """Wake those who want to hear that this job starts: who waits for its result is not kept from it."""
        if not self._every_step:
            return
        with self._lock:
            for event in self._every_step.intersection(self._waiting.get(uuid, ())):
                event.set()

    def call_all(self) -> None:
        """Wake everybody, to look again."""
        with self._lock:
            for events in self._waiting.values():
                for event in events:
                    event.set()

    def open(self) -> None:
        """Let people wait (again)."""
        self.closed = False

    def close(self) -> None:
        """Wake everybody for good: the process stops, answers must go out now."""
        self.closed = True
        self.call_all()
