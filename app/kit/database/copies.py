"""Copies of the database: a backup made while everybody works, and a backup brought back."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from app.kit.database.damage import RESTORING, find_damage, set_aside, turn
from app.kit.database.setup import BACKUP_AT, Migrations, check_fits
from app.kit.database.words import BUSY, is_of
from app.kit.errors import ConflictError, InvalidInputError
from app.kit.host import private_files

FILES = ("", "-wal", "-shm", "-journal")
LOOK_S = 1.0


def backup(source: sqlite3.Connection, target: Path) -> None:
    """Copy a database as of this moment into a new file, which is there as a whole or not at all.

    Raises: InvalidInputError when the file exists or cannot be written.
    """
    if target.exists():
        raise InvalidInputError(f"{target} exists. Name a new file: a backup overwrites nothing.")
    draft = target.with_name(f"{target.name}.unfinished-{secrets.token_hex(4)}")
    try:
        with _draft(draft):
            _copy(source, draft)
            if target.exists():
                raise InvalidInputError(f"{target} was made meanwhile. Name a new file.")
            _put(draft, target)
    except (sqlite3.Error, OSError) as error:
        raise InvalidInputError(f"{target} cannot be written: {error}.") from error


def restore(
    source: Path,
    path: Path,
    environment: str,
    sets_of_migrations: Sequence[Migrations],
    living: Callable[[], Sequence[str]],
    wait_s: float,
) -> Path | None:
    """Put a copy of a backup in the place of the database; return where the old file is now, if there was one.

    `living` names the processes that use the database, which must not be there.
    Raises: InvalidInputError when the backup cannot be used, ConflictError when somebody uses the database,
    DatabaseUnusableError when the backup is of another environment or of newer code. Then nothing was changed.
    """
    if not source.is_file() or (path.exists() and source.samefile(path)):
        raise InvalidInputError(f"{source} is no backup. Name a file that `python3 main.py backup` has made.")
    damage = find_damage(source, LOOK_S, float("inf"))
    if damage is not None:
        raise InvalidInputError(f"{source} is damaged ({damage}). Name another backup; nothing was changed.")
    private_files.make_folder(path.parent)
    draft = path.with_name(path.name + RESTORING)
    with turn(path, wait_s):
        if names := living():
            raise ConflictError(
                f"A process uses {path.name} ({', '.join(names)}). Stop the site and its workers first."
            )
        for suffix in FILES:
            draft.with_name(draft.name + suffix).unlink(missing_ok=True)
        try:
            with _draft(draft), closing(_open(source)) as backup_of:
                if not _copy(backup_of, draft):
                    raise InvalidInputError(f"{source} is no database of this kit. Nothing was changed.")
                with closing(sqlite3.connect(draft)) as copy:
                    check_fits(copy, source, environment, sets_of_migrations)
                _close_for_all(path)
                # The old file goes first: should we die here, the draft tells the next start that it is incomplete.
                aside = set_aside(path, "replaced", FILES) if path.exists() else None
                _put(draft, path)
                return aside
        except (sqlite3.Error, OSError) as error:
            raise InvalidInputError(
                f"{source} cannot be brought back: {error}. Nothing was changed."
            ) from error


def _open(source: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)


def _copy(source: sqlite3.Connection, draft: Path) -> bool:
    """Copy all of a database; return whether it is one of this kit's, which then knows that it is a copy."""
    with closing(sqlite3.connect(draft, isolation_level=None)) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # all of it in the one file
        about = copy.execute(
            "SELECT name FROM sqlite_schema WHERE name IN ('postroom_about', 'about') ORDER BY name DESC"
        ).fetchone()
        if about is None:
            return False
        moment = datetime.now(UTC).isoformat(" ", "seconds")
        copy.execute(f"INSERT OR IGNORE INTO {about[0]} VALUES (?, ?)", (BACKUP_AT, moment))
        return True


def _close_for_all(path: Path) -> None:
    """Move what the WAL holds into the old file; that works only while nobody else has it open.

    Raises: ConflictError.
    """
    if not path.exists() or find_damage(path, LOOK_S) is not None:
        return  # of what is damaged, nothing is to be lost by opening it
    try:
        with closing(sqlite3.connect(path, timeout=LOOK_S, isolation_level=None)) as old:
            old.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.DatabaseError as error:
        if is_of(error, BUSY):
            raise ConflictError(
                f"A program has {path.name} open. Stop the site, its workers and the others first."
            ) from error


@contextmanager
def _draft(draft: Path) -> Iterator[None]:
    """Begin an empty file, and take it away at the end unless it has got its name."""
    private_files.make_file(draft)
    try:
        yield
    finally:
        for suffix in FILES:
            with suppress(OSError):
                draft.with_name(draft.name + suffix).unlink(missing_ok=True)


def _put(draft: Path, target: Path) -> None:
    """Give a finished file its name, so that a power cut cannot take it back."""
    draft.rename(target)
    if os.name == "posix":
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
