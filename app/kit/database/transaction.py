"""What the present thread has open on the writing connection: a transaction, and savepoints in it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.kit.errors import DeadlockError


def current_task() -> object | None:
    """Return the coroutine's task that runs on this thread, if one does."""
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        return None


class OpenTransaction(threading.local):
    """A thread's open transaction, its depth, what to do after the commit, and which coroutine holds it."""

    connection: sqlite3.Connection | None = None
    depth = 0
    callbacks: list[Callable[[], None]]
    owner: object | None = None

    def begin(self, connection: sqlite3.Connection) -> None:
        """Note that a transaction begins."""
        self.connection, self.callbacks, self.owner = connection, [], current_task()

    def end(self) -> list[Callable[[], None]]:
        """Note that it has ended; return what is to be called if it was kept."""
        self.connection = self.owner = None
        callbacks, self.callbacks = self.callbacks, []
        return callbacks

    @property
    def mine(self) -> sqlite3.Connection | None:
        """Return the connection of the transaction that the present coroutine, or code without any, has open."""
        if self.connection is None or self.owner is None or self.owner is current_task():
            return self.connection
        return None

    def joined(self) -> sqlite3.Connection | None:
        """Return what `mine` does.

        Raises: DeadlockError when another coroutine of this thread has a transaction open: to wait for it here
        would keep it from ever ending, and to join it would undo or keep one with the other.
        """
        connection = self.mine
        if connection is None and self.connection is not None:
            raise DeadlockError(
                "another coroutine of this thread awaits something inside transaction(), so nothing else can be "
                "written here: await before the transaction, or after it."
            )
        return connection

    @contextmanager
    def savepoint(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        """Hold a savepoint: what is written in the block is kept with the transaction, or undone by itself."""
        if not connection.in_transaction:
            raise sqlite3.OperationalError("SQLite has rolled this transaction back; let its error end it")
        self.depth += 1
        before, self.owner = self.owner, current_task()
        name, waiting = f"depth{self.depth}", len(self.callbacks)
        connection.execute(f"SAVEPOINT {name}")
        try:
            yield connection
            connection.execute(f"RELEASE {name}")
        except BaseException:
            del self.callbacks[waiting:]
            if connection.in_transaction:
                connection.execute(f"ROLLBACK TO {name}")
                connection.execute(f"RELEASE {name}")
            raise
        finally:
            self.depth -= 1
            self.owner = before
