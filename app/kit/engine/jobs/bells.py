"""Waking without polling: bells for those who wait for work, and a call for those who wait for one job."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.kit.engine.jobs.job import ClaimedJob


class Seat:
    """Where one thread waits. Whoever takes a worker's off the bell must give it something, if only no jobs."""

    def __init__(self, who: tuple[str, str] = ("", "")) -> None:
        self.who = who
        self.given: Sequence[ClaimedJob] = ()
        self._called = threading.Lock()
        self._called.acquire()

    def give(self, claimed: Sequence[ClaimedJob] = ()) -> None:
        """Wake the thread; jobs that are claimed for it are its to run."""
        self.given = claimed
        self._called.release()

    def wait(self, timeout_s: float | None = None) -> None:
        """Return when something is given, or after the time."""
        self._called.acquire(timeout=-1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))


class Bell:
    """Rung after a commit that made work; a waiter says which ring it has seen, so none is ever missed."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._seats: list[Seat] = []
        self.rings = 0

    def ring(self, waiters: int = 1) -> None:
        """Wake that many waiters; those who are not waiting yet will not wait."""
        with self._mutex:
            self.rings += 1
            woken = [self._seats.pop() for _ in range(min(waiters, len(self._seats)))]
        for seat in woken:
            seat.give()

    def ring_all(self) -> None:
        """Wake everybody."""
        self.ring(sys.maxsize)

    def wait(self, seen: int, timeout_s: float | None = None) -> None:
        """Return once the bell has rung since `seen` was read, or after the time."""
        self._sit(Seat(), seen, timeout_s)

    def _sit(self, seat: Seat, seen: int, timeout_s: float | None) -> None:
        with self._mutex:
            if self.rings != seen:
                return
            self._seats.append(seat)
        try:
            seat.wait(timeout_s)
        finally:
            with self._mutex:
                if seat in self._seats:
                    self._seats.remove(seat)


class ReadyBell(Bell):
    """The workers' bell: a job may also be claimed for one that waits, and handed to it."""

    def take_seat(self) -> Seat | None:
        """Take a worker that waits off the bell, if there is one: the last that came, whose memory is warm."""
        with self._mutex:
            return self._seats.pop() if self._seats else None

    def wait_for_jobs(self, seen: int, who: tuple[str, str]) -> Sequence[ClaimedJob]:
        """Wait for the bell as (instance, worker); return the jobs that were claimed for it meanwhile, if any."""
        seat = Seat(who)
        self._sit(seat, seen, None)
        return seat.given


class EndCalls:
    """Calls those who wait for a job's end, and only those."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[threading.Event]] = {}
        self._every_step: set[threading.Event] = set()
        self.closed = False

    @contextmanager
    def expect(self, uuids: Sequence[str], every_step: bool = False) -> Iterator[threading.Event]:
        """Give an event that is set when one of these jobs ends (or when the process is about to stop).

        With `every_step` it is set when one starts, too.
        """
        event = threading.Event()
        with self._lock:
            if every_step:
                self._every_step.add(event)
            for uuid in uuids:
                self._waiting.setdefault(uuid, []).append(event)
            if self.closed:
                event.set()
        try:
            yield event
        finally:
            with self._lock:
                self._every_step.discard(event)
                for uuid in uuids:
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
