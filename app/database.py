"""The SQLite file: one writer, many readers, transactions, migrations."""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from flask import current_app
from werkzeug.local import LocalProxy

from app import database_damage, database_forks, database_setup
from app.database_setup import Migrations
from app.errors import DatabaseUnusableError, InvalidInputError
from app.writer import Writer

T = TypeVar("T")
Parameters = Sequence[Any] | dict[str, Any]

WAIT_S = 10.0
SLOW_TRANSACTION_S = 2.0
QUIET_WAL_BYTES = 4 * 1024 * 1024
DISK_ERRORS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)

log = logging.getLogger("postroom.database")
_abandoned: list[object] = []
"""Connections a fork brought along. Closing one would drop the parent's locks, so they are only kept."""


class _Transaction(threading.local):
    """What the present thread has open: the writing connection, its depth, what to do after the commit."""

    connection: sqlite3.Connection | None = None
    depth = 0
    callbacks: list[Callable[[], None]]


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
        self._writer: Writer | None = None
        self._readers: dict[threading.Thread, sqlite3.Connection] = {}
        self._local = threading.local()
        self._open_transaction = _Transaction()

    # Reading

    def read(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """Return all rows of a query, as of the last commit (inside `transaction()`: as of this line)."""
        return self._connection_to_read().execute(sql, parameters).fetchall()

    def read_one(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        return cast("sqlite3.Row | None", self._connection_to_read().execute(sql, parameters).fetchone())

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
        if self.in_transaction:
            with self.transaction() as connection:
                return work(connection)
        with _said_clearly():
            return cast(T, self.writer.write(work, durable))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the writer: everything written in the block is kept together, or not at all.

        Nested blocks are savepoints. Work that does not belong inside (sending, waiting) delays every other
        writer; after 2 s a warning names the caller.
        Raises: DatabaseBusyError when the writer's turn did not come in time.
        """
        mine = self._open_transaction
        if mine.connection is not None:
            with self._savepoint(mine, mine.connection) as connection:
                yield connection
            return
        with _said_clearly(), self.writer.exclusive() as connection:
            mine.connection, mine.callbacks = connection, []
            started = time.monotonic()
            try:
                yield connection
            finally:
                mine.connection = None
                callbacks, mine.callbacks = mine.callbacks, []
                if time.monotonic() - started > SLOW_TRANSACTION_S:
                    self._warn_slow(time.monotonic() - started)
        with ExitStack() as all_of_them:  # though one may raise
            for callback in reversed(callbacks):
                all_of_them.callback(callback)

    @property
    def in_transaction(self) -> bool:
        """Say whether the present thread is inside `transaction()`."""
        return self._open_transaction.connection is not None

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

        Raises: DatabaseUnusableError.
        """
        with self._opening:
            if self._writer is not None:
                return self._writer
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                database_damage.set_aside_if_damaged(self.path, self._beside(".turn"), self.wait_s)
                self._writer = self._open_writer()
                return self._writer
            except (sqlite3.Error, OSError) as error:
                raise DatabaseUnusableError(
                    f"{self.path} cannot be used: {error}. The folder must exist and be writable, the file must "
                    "be a database of this kit; DATA_DIR names another folder."
                ) from error

    def backup(self, target: Path) -> None:
        """Copy the database as of this moment into a new file, by SQLite's own means, while everybody works.

        Raises: InvalidInputError when the file exists or cannot be written.
        """
        if target.exists():
            raise InvalidInputError(f"{target} exists. Name a new file: a backup overwrites nothing.")
        try:
            with closing(sqlite3.connect(target)) as copy:
                self._reader().backup(copy)
        except sqlite3.Error as error:
            raise InvalidInputError(f"{target} cannot be written: {error}.") from error

    def close(self) -> None:
        """Close every connection of this process; the next use opens the file again."""
        with self._opening:
            if self._writer is None:
                return
            for reader in self._readers.values():
                reader.close()
            self._readers, self._local = {}, threading.local()
            self._writer.close()
            self._writer = None

    def writer_to_hold(self) -> Writer | None:
        """Return the writer that must do nothing while the process forks; the forking thread's own goes on."""
        return None if self.in_transaction else self._writer

    def start_as_child(self) -> None:
        """Start closed in a forked child."""
        if self._writer is not None:
            self._writer.forget()
            _abandoned.append((self._writer, self._readers, self._local, self._open_transaction))
        self._start_closed()

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _open_writer(self) -> Writer:
        with ExitStack() as undo:
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            undo.callback(connection.close)
            database_setup.configure(connection, self.synchronous, self.wait_s)
            writer = Writer(connection, self._beside(".turn"), self.wait_s, self.synchronous)
            undo.callback(writer.close)
            with writer.exclusive():
                database_setup.prepare(connection, self.path, self.environment, self.migrations)
            undo.pop_all()
        return writer

    # Connections of the present thread

    def _connection_to_read(self) -> sqlite3.Connection:
        return self._open_transaction.connection or self._reader()

    def _reader(self) -> sqlite3.Connection:
        if self._writer is None:
            self.open()
        reader: sqlite3.Connection | None = getattr(self._local, "reader", None)
        if reader is None:
            # Read-only in the file's own mode: a connection that merely promises not to write would still
            # checkpoint when it closes last.
            reader = sqlite3.connect(
                f"{self.path.as_uri()}?mode=ro",
                uri=True, timeout=self.wait_s, isolation_level=None, check_same_thread=False,
            )  # fmt: skip
            reader.row_factory = sqlite3.Row
            self._local.reader = reader
            self._keep_reader(reader)
        return reader

    def _keep_reader(self, reader: sqlite3.Connection) -> None:
        with self._opening:
            for thread in [thread for thread in self._readers if not thread.is_alive()]:
                self._readers.pop(thread).close()
            self._readers[threading.current_thread()] = reader

    @contextmanager
    def _savepoint(self, mine: _Transaction, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        if not connection.in_transaction:
            raise sqlite3.OperationalError("SQLite has rolled this transaction back; let its error end it")
        mine.depth += 1
        name, waiting = f"depth{mine.depth}", len(mine.callbacks)
        connection.execute(f"SAVEPOINT {name}")
        try:
            yield connection
            connection.execute(f"RELEASE {name}")
        except BaseException:
            del mine.callbacks[waiting:]
            if connection.in_transaction:
                connection.execute(f"ROLLBACK TO {name}")
                connection.execute(f"RELEASE {name}")
            raise
        finally:
            mine.depth -= 1

    def _warn_slow(self, seconds: float) -> None:
        frame = sys._getframe()
        while frame.f_back and frame.f_code.co_filename in (__file__, contextmanager.__code__.co_filename):
            frame = frame.f_back
        log.warning(
            "A transaction held the writer for %.1f s at %s:%d: move what is slow (sending, waiting) out of it.",
            seconds, frame.f_code.co_filename, frame.f_lineno,
        )  # fmt: skip


@contextmanager
def _said_clearly() -> Iterator[None]:
    """Turn what the disk says through SQLite into the kit's own error."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in DISK_ERRORS:
            raise
        raise DatabaseUnusableError(
            f"the database cannot be written: {error}. Nothing of this was kept; make room, or make the folder of "
            "DATA_DIR writable."
        ) from error


database = cast(Database, LocalProxy(lambda: current_app.extensions["database"]))
"""The app's database, wherever an app context is: in requests and in task bodies."""
