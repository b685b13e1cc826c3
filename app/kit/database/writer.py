"""The one writing connection and whose turn it is.

Small writes that wait together commit together: the first in line leads, runs its own work, then that of
everybody waiting behind it (each under a savepoint), and one COMMIT serves them all.
"""

from __future__ import annotations

import gc
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from app.kit.database.line import Line, Ticket, Work, pause, turn_among_processes
from app.kit.errors import DatabaseUnusableError

MAX_GROUP = 256
COLLECT_EVERY_S = 1.0
LEFT_OPEN_S = 0.05


class Writer:
    """Gives the writing connection to one thread of one process at a time, in order of arrival."""

    def __init__(
        self, connection: sqlite3.Connection, turn_path: Path, wait_s: float, synchronous: str = "FULL"
    ) -> None:
        self.connection = connection
        self._synchronous, self._durable = synchronous, True
        self.wait_s = wait_s
        self._pid = os.getpid()
        self.commits = 0
        self.check: Callable[[], None] = lambda: None
        """Called before each transaction; what it raises refuses it."""
        self.line = Line(wait_s)
        # Writers of several processes take turns through this file: SQLite 3.7.0 to 3.51.2 can corrupt a WAL
        # when two connections write or checkpoint at the same moment. Source: sqlite.org/wal.html#walresetbug
        self._turn_fd = os.open(turn_path, os.O_RDWR | os.O_CREAT, 0o600)

    def write(self, work: Work, durable: bool = True) -> Any:
        """Run `work(connection)` and commit it, together with whatever else waits.

        Without `durable` the commit waits for no disk: only a power cut can undo it, and the next durable
        commit keeps it too.
        `work` may run more than once (after a roll-back), so it must touch nothing but the connection.
        Raises: what `work` raises; DatabaseBusyError when no turn came in time.
        """
        ticket = Ticket(work, durable)
        deadline = time.monotonic() + self.wait_s
        self.line.wait(ticket)
        if not ticket.done:
            self._lead(ticket, deadline)
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    @contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """Hold the turn for a transaction of the caller's own: commit at the end, roll back on any error."""
        deadline = time.monotonic() + self.wait_s
        self.line.wait(Ticket())
        try:
            with self._file_turn(deadline):
                self._set_durable(True)
                self._begin(deadline)
                try:
                    yield self.connection
                    self._check_process()
                    self._commit()
                except BaseException:
                    self._roll_back()
                    raise
        finally:
            self.pass_turn()

    def checkpoint(self, mode: str = "TRUNCATE", wait_s: float | None = None) -> int:
        """Move the WAL's content into the file and empty it, as far as readers allow.

        Returns: how many pages must stay in the WAL, since somebody still reads what was before them.
        """
        deadline = time.monotonic() + (self.wait_s if wait_s is None else wait_s)
        self.take_turn(wait_s)
        try:
            with self._file_turn(deadline):
                _, pages, moved = self.connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
                return max(0, int(pages) - int(moved))
        finally:
            self.pass_turn()

    def close(self, wait_s: float | None = None) -> None:
        """Close the connection, in turn."""
        self.take_turn(wait_s)
        try:
            # Needs no turn among the processes: SQLite checkpoints here only when nobody else has the file open.
            self.connection.close()
            self.forget()
        finally:
            self.pass_turn()

    def forget(self) -> None:
        """Let go of the file of turns: at the end, or as a fork's child, which must not hold it for its parent."""
        os.close(self._turn_fd)

    # The line within this process

    def take_turn(self, wait_s: float | None = None) -> None:
        """Wait for this process's turn, without opening anything.

        Raises: DatabaseBusyError.
        """
        self.line.wait(Ticket(), wait_s)

    def pass_turn(self) -> None:
        """Give the turn to the next in line."""
        self.line.pass_on()

    # One group, one commit

    def _lead(self, first: Ticket, deadline: float) -> None:
        group, first.error = [first], None
        try:
            with self._file_turn(deadline):
                self._run_group(group, deadline)
        except BaseException as error:
            first.error = error
            # Only this thread was interrupted: the others go on without it.
            self.line.put_back(ticket for ticket in group[1:] if not ticket.done)
        finally:
            self.pass_turn()
            for ticket in group[1:]:
                if ticket.done:
                    ticket.call()

    def _run_group(self, group: list[Ticket], deadline: float) -> None:
        first = group[0]
        # Whether a group must reach the disk SQLite lets one choose before BEGIN only.
        durable = first.durable or self.line.has_durable()
        self._set_durable(durable)
        self._begin(deadline)
        try:
            first.result = first.run(self.connection)
            while len(group) < MAX_GROUP and (ticket := self.line.next_small(durable)) is not None:
                group.append(ticket)
                self._run_in_savepoint(ticket)
            for ticket in group:
                ticket.done = True
            self._commit()
        except BaseException as error:
            if self.connection.in_transaction or isinstance(error, Exception):  # else: Ctrl-C, but committed
                for ticket in group:
                    ticket.done = False
            self._roll_back()
            if len(group) == 1 or isinstance(error, KeyboardInterrupt):
                raise
            # SQLite threw the whole group away (a full disk, say): each again alone, so that the small ones
            # get through and only the culprit hears of it.
            for ticket in group:
                self._run_alone(ticket, deadline)

    def _run_in_savepoint(self, ticket: Ticket) -> None:
        if not self.connection.in_transaction:
            raise sqlite3.OperationalError("the transaction was rolled back")
        ticket.error = None
        self.connection.execute("SAVEPOINT small")
        try:
            ticket.result = ticket.run(self.connection)
        except BaseException as error:
            # Ctrl-C is the leader's, whose thread this is; every other error is the ticket's own.
            if isinstance(error, KeyboardInterrupt) or not self.connection.in_transaction:
                raise
            ticket.error = error
            self.connection.execute("ROLLBACK TO small")
        self.connection.execute("RELEASE small")

    def _run_alone(self, ticket: Ticket, deadline: float) -> None:
        ticket.error = None
        try:
            self._set_durable(ticket.durable)
            self._begin(deadline)
            ticket.result = ticket.run(self.connection)
            self._commit()
        except BaseException as error:
            self._roll_back()
            if isinstance(error, KeyboardInterrupt):
                raise
            ticket.error = error
        ticket.done = True

    # SQLite and the other processes

    def _file_turn(self, deadline: float) -> AbstractContextManager[None]:
        return turn_among_processes(self._turn_fd, deadline, self.wait_s)

    def _begin(self, deadline: float) -> None:
        self.check()
        collect_at = time.monotonic() + LEFT_OPEN_S
        while True:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            if time.monotonic() > collect_at:
                # A connection of somebody's in this process that nobody refers to any more holds its transaction
                # until it is collected: Python's sqlite3 refers to itself, so that is not at once. Now and then
                # again, for collect() does nothing while another thread collects.
                gc.collect()
                collect_at = time.monotonic() + COLLECT_EVERY_S
            pause(deadline, self.wait_s, "another program (or a connection of a task's own)")

    def _set_durable(self, durable: bool) -> None:
        if durable != self._durable:
            self.connection.execute(f"PRAGMA synchronous = {self._synchronous if durable else 'NORMAL'}")
            self._durable = durable

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise DatabaseUnusableError("a transaction cannot be ended in a child that was forked inside it")

    def _commit(self) -> None:
        self.connection.execute("COMMIT")
        self.commits += 1

    def _roll_back(self) -> None:
        if self.connection.in_transaction and os.getpid() == self._pid:
            self.connection.execute("ROLLBACK")
