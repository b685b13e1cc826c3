"""The line of those who want to write: whose turn it is among the threads of this process, and among processes."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any

from filelock import lock_descriptor, unlock_descriptor

from app.kit.errors import DatabaseBusyError

Work = Callable[[sqlite3.Connection], Any]

RETRY_S = 0.001
"""A constant short retry is fair among processes; SQLite's own growing one lets late comers win."""


class Ticket:
    """One place in the line: a small piece of work, or (work is None) a whole transaction's turn."""

    __slots__ = ("_context", "_is_called", "_place", "done", "durable", "error", "result", "work")

    def __init__(self, work: Work | None = None, durable: bool = True) -> None:
        self.work = work
        self.durable = durable
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._is_called = False
        self._context: Context | None = None

    def run(self, connection: sqlite3.Connection) -> Any:
        """Do the work, on whatever thread, as the one that brought it would: in its request, say."""
        assert self.work is not None
        return self.work(connection) if self._context is None else self._context.run(self.work, connection)

    def take_place(self) -> None:
        """Get ready to wait."""
        self._place = threading.Lock()  # a fifth of what a threading.Event costs
        self._place.acquire()
        self._context = copy_context()

    def wait(self, seconds: float = -1) -> bool:
        """Return True once it is called, False when the time is up; it may be asked again, after Ctrl-C say."""
        return self._is_called or self._place.acquire(timeout=seconds) or self._is_called

    def call(self) -> None:
        """Wake the thread that waits."""
        self._is_called = True
        self._place.release()


class Line:
    """Gives the turn to one thread at a time, in order of arrival."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._mutex = threading.Lock()
        self._waiting: deque[Ticket] = deque()
        self.is_taken = False

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, ticket: Ticket, wait_s: float | None = None) -> None:
        """Return when `ticket` is done, or when its thread has the turn.

        Raises: DatabaseBusyError.
        """
        wait_s = self._wait_s if wait_s is None else wait_s
        with self._mutex:
            if not self.is_taken:
                self.is_taken = True
                return
            ticket.take_place()
            self._waiting.append(ticket)
        try:
            if ticket.wait(wait_s) or not self._leave(ticket):
                ticket.wait()  # at the latest, a leader took it up at the last moment and will finish it
                return
        except BaseException:  # Ctrl-C: the turn must not go to one who has left
            if not self._leave(ticket):
                ticket.wait()
                if not ticket.done:
                    self.pass_on()
            raise
        raise DatabaseBusyError(
            f"the database's writer was busy for {wait_s:g} s; the log names a transaction that takes long, "
            "or another program holds the file"
        )

    def pass_on(self) -> None:
        """Give the turn to the next in line."""
        with self._mutex:
            if not self._waiting:
                self.is_taken = False
                return
            heir = self._waiting.popleft()
        heir.call()

    def next_small(self, durable: bool) -> Ticket | None:
        """Take the first in line, if it is a small piece of work that may go into such a commit."""
        with self._mutex:
            if self._waiting and self._waiting[0].work and (durable or not self._waiting[0].durable):
                return self._waiting.popleft()
        return None

    def has_durable(self) -> bool:
        """Say whether a small piece of work that must reach the disk waits."""
        with self._mutex:
            return any(ticket.work and ticket.durable for ticket in self._waiting)

    def put_back(self, tickets: Iterable[Ticket]) -> None:
        """Put tickets back to where they were, before all others."""
        with self._mutex:
            self._waiting.extendleft(reversed(list(tickets)))

    def _leave(self, ticket: Ticket) -> bool:
        with self._mutex:
            if ticket not in self._waiting:
                return False
            self._waiting.remove(ticket)
            return True


@contextmanager
def turn_among_processes(descriptor: int, deadline: float, wait_s: float) -> Iterator[None]:
    """Hold the lock of a file of turns, which a fork does not take along.

    Raises: DatabaseBusyError when another process held it until the deadline, for `wait_s` that is.
    """
    pid = os.getpid()
    while not lock_descriptor(descriptor, blocking=False):
        pause(deadline, wait_s, "another process of this kit")
    try:
        yield
    finally:
        if os.getpid() == pid:
            unlock_descriptor(descriptor)


def pause(deadline: float, wait_s: float, who: str) -> None:
    """Wait a moment for somebody else.

    Raises: DatabaseBusyError once the deadline is over.
    """
    if time.monotonic() >= deadline:
        raise DatabaseBusyError(f"{who} held the database for {wait_s:g} s; stop it, or try again")
    time.sleep(RETRY_S)
