"""What a new writing connection is told, and the tables the file must have before anybody uses it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from app.errors import DatabaseUnusableError

if TYPE_CHECKING:
    from sqlite_utils import Migrations

WAL_LIMIT_BYTES = 64 * 1024 * 1024

log = logging.getLogger("postroom.database")


def configure(connection: sqlite3.Connection, synchronous: str, wait_s: float) -> None:
    """Set up the writing connection."""
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout = {round(wait_s * 1000)}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect on a new file only
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        log.warning("SQLite keeps journal mode %s on this disk: readers will wait for the writer", mode)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    connection.execute("PRAGMA busy_timeout = 0")  # the writer waits in its own, fair way


def prepare(
    connection: sqlite3.Connection, path: Path, environment: str, sets_of_migrations: Sequence[Migrations]
) -> None:
    """Bring the tables up to date, inside the caller's transaction.

    Raises: DatabaseUnusableError when the file belongs to another environment.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    connection.execute("INSERT OR IGNORE INTO about VALUES ('environment', ?)", (environment,))
    found = connection.execute("SELECT value FROM about WHERE key = 'environment'").fetchone()[0]
    if found != environment:
        raise DatabaseUnusableError(
            f"{path} belongs to the {found} environment, this is {environment}: its jobs and mails must not run "
            "in the wrong one. Set DATA_DIR to another folder."
        )
    if sets_of_migrations:
        from sqlite_utils import Database as Tables

        tables = Tables(connection)
        for migrations in sets_of_migrations:
            migrations.apply(tables)
