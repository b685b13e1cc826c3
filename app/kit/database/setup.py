"""What a new writing connection is told, and the tables the file must have before anybody uses it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from app.kit.errors import DatabaseUnusableError

if TYPE_CHECKING:
    import sqlite_utils

Step: TypeAlias = "Callable[[sqlite_utils.Database], None]"

PREFIX = "postroom_"
"""Begins the name of every table of the kit: a table of your own never meets one of them."""
BACKUP_AT = "backup_at"
"""Where a copy says that it is one, and of when, until it is opened as the database."""
WAL_LIMIT_BYTES = 64 * 1024 * 1024

log = logging.getLogger("postroom.database")


class Migrations:
    """A named set of sqlite-utils' migrations, kept apart from it: its 3 MB are needed only when one has to run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps: list[Step] = []
        self.when_restored: list[Callable[[sqlite3.Connection, str], None]] = []
        """Called in the first transaction of a restored backup, with the moment it was made."""

    def __call__(self) -> Callable[[Step], Step]:
        """Return the decorator that makes a function the last step."""

        def add(step: Step) -> Step:
            if step.__name__ in self._names():
                raise ValueError(f"there is a migration {step.__name__} in {self.name} already")
            self.steps.append(step)
            return step

        return add

    def add_statements(self, name: str, statements: Sequence[str]) -> None:
        """Add a last step that executes these statements."""

        def execute(tables: sqlite_utils.Database) -> None:
            for statement in statements:
                tables.execute(statement)

        execute.__name__ = name
        self()(execute)

    def of_sqlite_utils(self) -> sqlite_utils.Migrations:
        """Return the set that can be applied."""
        import sqlite_utils

        migrations = sqlite_utils.Migrations(self.name)
        for step in self.steps:
            migrations()(step)
        return migrations

    def are_applied(self, connection: sqlite3.Connection) -> bool:
        """Look into the table in which sqlite-utils keeps what it has applied."""
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = '_sqlite_migrations'").fetchone():
            return False
        return self._names() <= self._applied(connection)

    def unknown(self, connection: sqlite3.Connection) -> set[str]:
        """Name the steps that were applied to a file and are not known here: newer code has made them."""
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = '_sqlite_migrations'").fetchone():
            return set()
        return self._applied(connection) - self._names()

    def _applied(self, connection: sqlite3.Connection) -> set[str]:
        sql = "SELECT name FROM _sqlite_migrations WHERE migration_set = ?"
        return {name for (name,) in connection.execute(sql, (self.name,))}

    def _names(self) -> set[str]:
        return {step.__name__ for step in self.steps}


def adopt(tables: sqlite_utils.Database, older_set: str, last_step: str, names: Sequence[str]) -> bool:
    """Give the kit's prefix to tables that an older version made without it; False when it made none.

    Their indexes, triggers and views are dropped: the caller makes them anew.
    Raises: DatabaseUnusableError when the older version had not made all of them.
    """
    sql = "SELECT name FROM _sqlite_migrations WHERE migration_set = ?"
    applied = {name for (name,) in tables.execute(sql, (older_set,))}
    if not applied:
        return False
    if last_step not in applied:
        raise DatabaseUnusableError(
            f"its tables are of an older version than this one can take over (the step {last_step} of "
            f"{older_set} is missing). Start that version's last release once, then this one again."
        )
    marks = ", ".join("?" * len(names))
    found = tables.execute(
        f"SELECT type, name FROM sqlite_schema WHERE tbl_name IN ({marks}) AND sql NOTNULL", tuple(names)
    ).fetchall()
    for kind, name in found:
        if kind != "table":
            tables.execute(f'DROP {kind} "{name}"')
    for kind, name in found:
        if kind == "table":
            tables.execute(f'ALTER TABLE "{name}" RENAME TO "{PREFIX}{name}"')
    return True


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
    connection.execute("PRAGMA recursive_triggers = ON")  # as sqlite-utils has it; triggers hear of a REPLACE
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    connection.execute("PRAGMA busy_timeout = 0")  # the writer waits in its own, fair way


def prepare(
    connection: sqlite3.Connection, path: Path, environment: str, sets_of_migrations: Sequence[Migrations]
) -> bool:
    """Bring the tables up to date, inside the caller's transaction; return whether this is a restored backup.

    Raises: DatabaseUnusableError when the file belongs to another environment, or to newer code.
    """
    about = "SELECT 1 FROM sqlite_schema WHERE name = ? AND sql LIKE '%(key TEXT PRIMARY KEY, value TEXT NOT NULL)'"
    if (
        connection.execute(about, ("about",)).fetchone()
        and not connection.execute(about, ("postroom_about",)).fetchone()
    ):
        connection.execute("ALTER TABLE about RENAME TO postroom_about")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS postroom_about (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
    )
    connection.execute("INSERT OR IGNORE INTO postroom_about VALUES ('environment', ?)", (environment,))
    check_fits(connection, path, environment, sets_of_migrations)
    pending = [migrations for migrations in sets_of_migrations if not migrations.are_applied(connection)]
    if pending:
        from sqlite_utils import Database as Tables

        tables = Tables(connection)
        for migrations in pending:
            migrations.of_sqlite_utils().apply(tables)
    take_back = "DELETE FROM postroom_about WHERE key = ? RETURNING value"
    copies = connection.execute(take_back, (BACKUP_AT,)).fetchall()
    for (made_at,) in copies:
        log.warning("%s is a backup of %s that was restored", path, made_at)
        for migrations in sets_of_migrations:
            for hold in migrations.when_restored:
                hold(connection, made_at)
    return bool(copies)


def check_fits(
    connection: sqlite3.Connection, path: Path, environment: str, sets_of_migrations: Sequence[Migrations]
) -> None:
    """See whether a file belongs to this environment, and to code that is no newer than this.

    Raises: DatabaseUnusableError.
    """
    about = "SELECT 1 FROM sqlite_schema WHERE name = 'postroom_about'"
    sql = "SELECT value FROM postroom_about WHERE key = 'environment'"
    row = connection.execute(sql).fetchone() if connection.execute(about).fetchone() else None
    if row is not None and row[0] != environment:
        raise DatabaseUnusableError(
            f"{path} belongs to the {row[0]} environment, this is {environment}: its jobs and mails must not run "
            "in the wrong one. Set DATA_DIR to another folder."
        )
    for migrations in sets_of_migrations:
        if newer := migrations.unknown(connection):
            raise DatabaseUnusableError(
                f"{path} was changed by newer code ({migrations.name}: {', '.join(sorted(newer))}), and this code "
                "cannot know what its tables mean now. Start the newer code, or restore a backup from before it."
            )
