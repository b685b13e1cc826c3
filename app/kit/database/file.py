"""The SQLite file: one writer, many readers, transactions, migrations."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from flask import current_app
from werkzeug.local import LocalProxy

from app.kit.database import (
    copies as database_copies,
    damage as database_damage,
    forks as database_forks,
    setup as database_setup,
)
from app.kit.database.presence import Presence
from app.kit.database.readers import Readers
from app.kit.database.setup import Migrations
from app.kit.database.transaction import OpenTransaction
from app.kit.database.words import BUSY, is_of, raise_clearly, said_clearly, warn_slow
from app.kit.database.writer import Writer
from app.kit.errors import DatabaseBusyError, DatabaseUnusableError, PostroomError
from app.kit.host import private_files

T = TypeVar("T")
Parameters = Sequence[Any] | dict[str, Any]

WAIT_S = 10.0
END_WAIT_S = 1.0
RETRY_S = 0.01
SLOW_TRANSACTION_S = 2.0
QUIET_WAL_BYTES = 4 * 1024 * 1024
LARGE_WAL_BYTES = 16 * 1024 * 1024

log = logging.getLogger("postroom.database")
_abandoned: list[object] = []
"""Connections a fork brought along. Closing one would drop the parent's locks, so they are only kept."""


class Database:
    """Opens the file at first use, in whichever process uses it."""

    def __init__(
        self,
        path: Path,
        environment: str = "development",
        synchronous: str = "FULL",
        migrations: Sequence[Migrations] = (),
        wait_s: float = WAIT_S,
    ) -> None:
        self.path = path
        self.environment = environment
        self.synchronous = synchronous
        self.migrations = migrations
        self.wait_s = wait_s
        self._start_closed()
        database_forks.watch(self)

    def _start_closed(self) -> None:
        self._opening = threading.Lock()
        self._ended = False
        self._writer: Writer | None = None
        self._readers = Readers(self.path, self.wait_s)
        self._open_transaction = OpenTransaction()

    def is_like(self, other: Database) -> bool:
        """Say whether another one would open the same file in the same way: a process opens a file once."""
        mine, others = ((one.path, one.environment, one.synchronous, one.migrations) for one in (self, other))
        return mine == others

    # Reading

    def read(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Return all rows of a query, as of the last commit (inside `transaction()`: as of this line)."""
        try:
            return self._connection_to_read().execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise_clearly(error)
            raise

    def read_one(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        try:
            return cast("sqlite3.Row | None", self._connection_to_read().execute(sql, parameters).fetchone())
        except sqlite3.Error as error:
            raise_clearly(error)
            raise

    def data_version(self) -> int:
        """Return a number that changes whenever somebody commits."""
        return int(self._reader().execute("PRAGMA data_version").fetchone()[0])

    # Writing

    def write(self, work: Callable[[sqlite3.Connection], T], durable: bool = True) -> T:
        """Run one small piece of work and commit it, together with others that wait.

        Inside `transaction()` it joins that transaction instead, as a savepoint of its own. What may be
        forgotten in a power cut says `durable=False` and waits for no disk.
        `work` may run again after a roll-back, so it must touch nothing but the connection.
        """
        if self._open_transaction.joined() is not None:
            with self.transaction() as connection:
                return work(connection)
        try:
            return cast(T, self.writer.write(work, durable))
        except sqlite3.Error as error:
            raise_clearly(error, writing=True)
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the writer: everything written in the block is kept together, or not at all.

        Nested blocks are savepoints. Work that does not belong inside (sending, waiting) delays every other
        writer; after 2 s a warning names the caller.
        Raises: DatabaseBusyError when the writer's turn did not come in time; DeadlockError in a coroutine while
        another one of the thread is inside its own.
        """
        mine = self._open_transaction
        if (joined := mine.joined()) is not None:
            with mine.savepoint(joined) as connection:
                yield connection
            return
        with said_clearly(), self.writer.exclusive() as connection:
            mine.begin(connection)
            started = time.monotonic()
            try:
                yield connection
            finally:
                callbacks = mine.end()
                if time.monotonic() - started > SLOW_TRANSACTION_S:
                    warn_slow(time.monotonic() - started, __file__)
        with ExitStack() as all_of_them:  # though one may raise
            for callback in reversed(callbacks):
                all_of_them.callback(callback)

    @property
    def in_transaction(self) -> bool:
        """Say whether the present thread, or the coroutine that runs on it, is inside `transaction()`."""
        return self._open_transaction.mine is not None

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back once the outermost transaction of this thread has committed, or at once."""
        if self.in_transaction:
            self._open_transaction.callbacks.append(callback)
        else:
            callback()

    @property
    def writer(self) -> Writer:
        """Return the one writer of this process, opening the file if need be."""
        return self._writer or self.open()

    def shrink_wal(self) -> None:
        """Empty the write-ahead log if a busy time has left it large; for quiet moments."""
        wal = self._beside("-wal")
        if wal.exists() and wal.stat().st_size > QUIET_WAL_BYTES:
            self.writer.checkpoint()

    # Opening and closing

    def open(self) -> Writer:
        """Open the file and bring its tables up to date, if this process has not done so; return its writer.

        Raises: DatabaseUnusableError; DatabaseBusyError when another program holds it.
        """
        with self._opening:
            if self._writer is not None:
                return self._writer
            if self._ended:
                raise DatabaseUnusableError(
                    "the process is about to end, so nothing is read or written any more"
                )
            try:
                private_files.make_folder(self.path.parent)
                database_damage.see_to_damage(self.path, self.wait_s, self.environment)
                private_files.make_file(self.path)
                private_files.tighten(self.path.parent)
                self._writer = self._open_writer()
                return self._writer
            except (sqlite3.Error, OSError) as error:
                if isinstance(error, sqlite3.Error) and is_of(error, BUSY):
                    raise DatabaseBusyError(
                        f"another program held the database for {self.wait_s:g} s ({error}); stop it, or try again"
                    ) from error
                raise DatabaseUnusableError(
                    f"{self.path} cannot be used: {error}. The folder must exist and be writable, the file must "
                    "be a database of this kit; DATA_DIR names another folder."
                ) from error

    def backup(self, target: Path) -> None:
        """Copy the database as of this moment into a new file, by SQLite's own means, while everybody works.

        Raises: InvalidInputError when the file exists or cannot be written.
        """
        database_copies.backup(self._reader(), target)

    def restore(self, source: Path, living: Callable[[], Sequence[str]]) -> Path | None:
        """Put a copy of a backup in this database's place; return where the old file is now, if there was one.

        `living` names the processes that use the database.
        Raises: InvalidInputError, ConflictError, DatabaseUnusableError; then nothing was changed.
        """
        self.close()
        return database_copies.restore(
            source, self.path, self.environment, self.migrations, living, self.wait_s
        )

    def stuck_wal_bytes(self) -> int:
        """Say how much must stay in a large write-ahead log, since a program reads on and on from before it."""
        wal = self._beside("-wal")
        if not wal.exists() or wal.stat().st_size < LARGE_WAL_BYTES:
            return 0
        pages = self.writer.checkpoint("PASSIVE")
        stuck_bytes = pages * int(self.read("PRAGMA page_size")[0][0])
        return stuck_bytes if stuck_bytes >= LARGE_WAL_BYTES else 0

    def close(self, wait_s: float | None = None) -> None:
        """Close every connection of this process; the next use opens the file again."""
        with self._opening:
            if self._writer is None:
                return
            self._readers.close()
            self._readers = Readers(self.path, self.wait_s)
            self._writer.close(wait_s)
            self._writer = None

    def close_for_good(self) -> None:
        """At the end of the process: leave all that is in the WAL in the file."""
        self._ended = True
        if self._writer is not None:
            with suppress(PostroomError, sqlite3.Error):
                self._writer.checkpoint(wait_s=END_WAIT_S)
            with suppress(PostroomError, sqlite3.Error):
                self.close(END_WAIT_S)

    def writer_to_hold(self) -> Writer | None:
        """Return the writer that must do nothing while the process forks; the forking thread's own goes on."""
        return self._writer if self._open_transaction.connection is None else None

    def start_as_child(self) -> None:
        """Start closed in a forked child."""
        if self._writer is not None:
            self._writer.forget()
            _abandoned.append((self._writer, self._readers, self._open_transaction))
        self._start_closed()

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _open_writer(self) -> Writer:
        with ExitStack() as undo:
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            undo.callback(connection.close)
            database_setup.configure(connection, self.synchronous, self.wait_s)
            writer = Writer(connection, self._beside(database_damage.TURN), self.wait_s, self.synchronous)
            undo.callback(writer.close)
            with writer.exclusive():
                was_restored = database_setup.prepare(
                    connection, self.path, self.environment, self.migrations
                )
            # Until then the file says that it is a backup, and a WAL beside it is taken for that of another.
            deadline = time.monotonic() + self.wait_s
            while was_restored and writer.checkpoint():
                if time.monotonic() > deadline:
                    raise DatabaseBusyError("another program reads the restored file; stop it, or try again")
                time.sleep(RETRY_S)
            writer.check = Presence(self.path).check
            undo.pop_all()
        return writer

    # Connections of the present thread

    def _connection_to_read(self) -> sqlite3.Connection:
        return self._open_transaction.mine or self._reader()

    def _reader(self) -> sqlite3.Connection:
        if self._writer is None:
            self.open()
        reader = self._readers.mine()
        if reader is None:
            self.writer.check()  # or it would read another file than the others
            reader = self._readers.add()
        return reader


database = cast(Database, LocalProxy(lambda: current_app.extensions["database"]))
"""The app's database, wherever an app context is: in requests and in task bodies."""
