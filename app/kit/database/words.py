"""What SQLite says of the file and its disk, turned into the kit's own errors."""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.kit.errors import DatabaseBusyError, DatabaseUnusableError, DatabaseUnwritableError

log = logging.getLogger("postroom.database")

GONE = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
DISK = (*GONE, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY)
BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_of(error: sqlite3.Error, codes: tuple[int, ...]) -> bool:
    """Say whether SQLite's error has one of these codes."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in codes


def raise_clearly(error: sqlite3.Error, *, writing: bool = False) -> None:
    """Raise the kit's error for what ails the file or its disk; return when it is the statement that is wrong."""
    if is_of(error, BUSY):
        raise DatabaseBusyError(f"another program holds the database ({error}). Try again") from error
    if is_of(error, DAMAGED):
        raise DatabaseUnusableError(
            f"the database is damaged ({error}). Stop the site and restore a backup: python3 main.py restore FILE."
        ) from error
    if writing and is_of(error, DISK):
        raise DatabaseUnwritableError(
            f"the database cannot be written: {error}. Nothing of this was kept; make room, or make the folder of "
            "DATA_DIR writable."
        ) from error
    if is_of(error, GONE):
        raise DatabaseUnwritableError(
            f"the database cannot be read: {error}. See that its disk is there."
        ) from error


@contextmanager
def said_clearly() -> Iterator[None]:
    """Turn what is wrong with the file or its disk into the kit's own error."""
    try:
        yield
    except sqlite3.Error as error:
        raise_clearly(error, writing=True)
        raise


def warn_slow(seconds: float, asked_in: str) -> None:
    """Name who held the writer for long: the caller of the module that asks."""
    frame = sys._getframe()
    while frame.f_back and frame.f_code.co_filename in (
        __file__,
        asked_in,
        contextmanager.__code__.co_filename,
    ):
        frame = frame.f_back
    log.warning(
        "A transaction held the writer for %.1f s at %s:%d: move what is slow (sending, waiting) out of it.",
        seconds, frame.f_code.co_filename, frame.f_lineno,
    )  # fmt: skip
