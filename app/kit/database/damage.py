"""What is found wrong with the file before anybody uses it: damaged, gone, or beside a WAL of another one.

In production that stops the start, and nothing is touched; in development a damaged file is set aside.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from app.kit.database.line import turn_among_processes
from app.kit.database.setup import BACKUP_AT
from app.kit.database.words import DAMAGED, is_of
from app.kit.errors import DatabaseUnusableError

CHECK_UP_TO_BYTES = 64 * 1024 * 1024
"""Every page of a file up to this size is looked at, in well under a second; of a larger one the first."""
HARMLESS = re.compile(r"^ok$|^\*\*\*|is never used|^(NULL|NUMERIC|TEXT) value in|^CHECK constraint failed")
"""What SQLite's check names too, though the file works: rows that break a rule, pages that nobody uses."""
TURN = ".turn"
"""Ends the name of the file through which processes take turns."""
RESTORING = ".restoring"
"""Ends the name of the copy that is about to take the place of the file."""

log = logging.getLogger("postroom.database")


def see_to_damage(path: Path, wait_s: float, environment: str) -> None:
    """Look at the file: refuse a damaged one in production, set it aside elsewhere.

    Raises: DatabaseUnusableError; DatabaseBusyError when another process held the turn for all of `wait_s`.
    """
    if not path.is_file() and not _left_behind(path):
        if environment == "production" and _beside(path, TURN).exists():  # which is made after the file
            raise DatabaseUnusableError(f"{path} is gone, though there was one. {_remedy(path)}")
        return
    with turn(path, wait_s):  # of two processes that start together, one is to find the damage
        _set_strange_wal_aside(path)
        damage = find_damage(path, wait_s)
        if damage is None:
            return
        if environment == "production":
            saved = f"What can be saved of it: sqlite3 {path.name} .recover."
            raise DatabaseUnusableError(f"{path} is damaged ({damage}). {_remedy(path)} {saved}")
        aside = set_aside(path, "damaged")
    log.error(
        "%s is damaged (%s). It was set aside as %s and the site starts with an empty one: the jobs, mails and "
        "data in it are missing until somebody restores a backup, or what `sqlite3 %s .recover` can save.",
        path, damage, aside.name, aside.name,
    )  # fmt: skip


def find_damage(path: Path, wait_s: float, up_to_bytes: float = CHECK_UP_TO_BYTES) -> str | None:
    """Say what is wrong with a file; None when nothing is, or when it cannot be known (its opener will)."""
    if not path.is_file():
        return _left_behind(path)
    size, wal = path.stat().st_size, _beside(path, "-wal")
    if size == 0:
        # SQLite takes an empty file for a new one, and throws its WAL away.
        return "it is empty, but has a WAL" if wal.exists() and wal.stat().st_size else None
    try:
        # Read-only, so that what is damaged is not touched; never open(): closing drops SQLite's locks.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=wait_s)) as connection:
            if size > up_to_bytes:
                connection.execute("PRAGMA schema_version").fetchone()
                return None
            found = connection.execute("PRAGMA quick_check").fetchall()
            lines = [line for (text,) in found for line in str(text).splitlines()]
            return next((line for line in lines if not HARMLESS.search(line)), None)
    except sqlite3.DatabaseError as error:
        return str(error) if is_of(error, DAMAGED) else None


# The file itself last: should we die in between, what is wrong is found again.
DAMAGED_FIRST = ("-wal", "-shm", "-journal", RESTORING, "")


def set_aside(path: Path, word: str, suffixes: Sequence[str] = DAMAGED_FIRST) -> Path:
    """Rename a database and what lies beside it to <name>.<word>-<UTC time>; return the new name of the file."""
    aside = _free_name(path, word)
    for suffix in suffixes:
        beside = _beside(path, suffix)
        if beside.exists():
            beside.rename(_beside(aside, suffix))
    return aside


def _remedy(path: Path) -> str:
    return (
        "The site does not start without it, and nothing was changed. Bring a backup back: python3 main.py restore "
        f"FILE. To begin with nothing, move all that begins with {path.name} away."
    )


def _left_behind(path: Path) -> str | None:
    """Say by what is left that there was a file, for SQLite would make a new one and throw that away."""
    if _beside(path, RESTORING).exists():
        return "it is gone: a restore was cut short, so restore once more"
    wal = _beside(path, "-wal")
    return "it is gone, but its WAL is there" if wal.exists() and wal.stat().st_size else None


def _set_strange_wal_aside(path: Path) -> None:
    """Set a WAL aside beside which somebody copied a backup: SQLite would write it over the backup's pages."""
    wal = _beside(path, "-wal")
    if not (path.is_file() and path.stat().st_size and wal.exists() and wal.stat().st_size):
        return
    sql = f"SELECT 1 FROM postroom_about WHERE key = '{BACKUP_AT}'"
    try:
        # Immutable: what the file alone says, whatever the WAL has. The mark never outlives the first opening.
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
            is_backup = connection.execute(sql).fetchone() is not None
    except sqlite3.Error:
        return
    if is_backup:
        aside = _free_name(path, "replaced")
        for suffix in ("-shm", "-wal"):
            if (beside := _beside(path, suffix)).exists():
                beside.rename(_beside(aside, suffix))
        log.warning(
            "%s is a backup that was put in place of another file, whose WAL is now %s-wal", path, aside.name
        )


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _free_name(path: Path, word: str) -> Path:
    moment = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    aside, number = path.with_name(f"{path.name}.{word}-{moment}"), 1
    while aside.exists() or _beside(aside, "-wal").exists():
        number += 1
        aside = path.with_name(f"{path.name}.{word}-{moment}-{number}")
    return aside


@contextmanager
def turn(path: Path, wait_s: float) -> Iterator[None]:
    """Hold the turn among the processes of a database that is not open here."""
    descriptor = os.open(_beside(path, TURN), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with turn_among_processes(descriptor, time.monotonic() + wait_s, wait_s):
            yield
    finally:
        os.close(descriptor)
