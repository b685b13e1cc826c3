"""A damaged database file is set aside, never overwritten, so that the site starts and nothing in it is lost."""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

from app.errors import DatabaseBusyError

CHECK_UP_TO_BYTES = 64 * 1024 * 1024
"""Every page of a file up to this size is looked at, in well under a second; of a larger one the first."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
HARMLESS = re.compile(r"^ok$|^\*\*\*|is never used|^(NULL|NUMERIC|TEXT) value in|^CHECK constraint failed")
"""What SQLite's check names too, though the file works: rows that break a rule, pages that nobody uses."""
LOOK_S = 0.01

log = logging.getLogger("postroom.database")


def set_aside_if_damaged(path: Path, turn_path: Path, wait_s: float) -> None:
    """Rename a damaged database, with its WAL, to <name>.damaged-<UTC time>, and say so in the log.

    Raises: DatabaseBusyError when another process held the turn for all of `wait_s`.
    """
    if not path.is_file():
        return
    with _turn(turn_path, wait_s):  # of two processes that start together, one is to find the damage
        damage = find_damage(path, wait_s)
        if damage is None:
            return
        aside = _free_name(path)
        for suffix in (
            "-wal",
            "-shm",
            "",
        ):  # the file itself last: should we die here, the damage is found again
            beside = path.with_name(path.name + suffix)
            if beside.exists():
                beside.rename(aside.with_name(aside.name + suffix))
    log.error(
        "%s is damaged (%s). It was set aside as %s and the site starts with an empty one: the jobs, mails and "
        "data in it are missing until somebody restores a backup, or what `sqlite3 %s .recover` can save.",
        path, damage, aside.name, aside.name,
    )  # fmt: skip


def find_damage(path: Path, wait_s: float) -> str | None:
    """Say what is wrong with a file; None when nothing is, or when it cannot be known (its opener will)."""
    size, wal = path.stat().st_size, path.with_name(path.name + "-wal")
    if size == 0:
        # SQLite takes an empty file for a new one, and throws its WAL away.
        return "it is empty, but has a WAL" if wal.exists() and wal.stat().st_size else None
    try:
        # Read-only, so that what is damaged is not touched; never open(): closing drops SQLite's locks.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=wait_s)) as connection:
            if size > CHECK_UP_TO_BYTES:
                connection.execute("PRAGMA schema_version").fetchone()
                return None
            found = connection.execute("PRAGMA quick_check").fetchall()
            lines = [line for (text,) in found for line in str(text).splitlines()]
            return next((line for line in lines if not HARMLESS.search(line)), None)
    except sqlite3.DatabaseError as error:
        return str(error) if error.sqlite_errorcode & 0xFF in DAMAGED else None


def _free_name(path: Path) -> Path:
    moment = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    aside, number = path.with_name(f"{path.name}.damaged-{moment}"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{moment}-{number}")
    return aside


@contextmanager
def _turn(turn_path: Path, wait_s: float) -> Iterator[None]:
    """Hold the turn among the processes (see app/writer.py)."""
    deadline, descriptor = time.monotonic() + wait_s, os.open(turn_path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while not lock_descriptor(descriptor, blocking=False):
            if time.monotonic() >= deadline:
                raise DatabaseBusyError(
                    f"another process of this kit held the database for {wait_s:g} s; stop it, or try again"
                )
            time.sleep(LOOK_S)
        yield
    finally:
        unlock_descriptor(descriptor)
        os.close(descriptor)
