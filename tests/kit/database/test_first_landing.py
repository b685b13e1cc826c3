"""A file whose tables have no prefix yet, as the first version wrote it: nothing in it is lost (P1)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from app.kit.database.file import Database
from app.kit.engine.jobs import schema
from app.kit.errors import DatabaseUnusableError
from app.kit.mail import ledger

FIRST_LANDING = Path(__file__).with_name("first_landing.sql").read_text()


def older_file(folder: Path, *changes: str) -> Path:
    path = folder / "postroom.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(FIRST_LANDING)
        for change in changes:
            connection.execute(change)
        connection.commit()
    return path


def open_today(path: Path) -> Database:
    database = Database(path, migrations=[schema.migrations, ledger.migrations])
    database.open()
    return database


def things(database: Database) -> set[tuple[str, str, str]]:
    """Return the schema, without the spaces in which a renamed table differs from a new one."""
    rows = database.read(
        "SELECT type, name, sql FROM sqlite_schema WHERE sql NOTNULL AND name LIKE 'postroom%'"
    )
    return {(row["type"], row["name"], "".join(row["sql"].replace('"', "").split())) for row in rows}


def columns(database: Database) -> set[tuple[str, str, int]]:
    rows = database.read(
        "SELECT tables.name, columns.name AS field, columns.cid FROM sqlite_schema AS tables,"
        " pragma_table_info(tables.name) AS columns WHERE tables.name LIKE 'postroom%'"
    )
    return {(row["name"], row["field"], row["cid"]) for row in rows}


def test_its_rows_are_all_there_under_their_new_names(tmp_path: Path) -> None:
    path = older_file(tmp_path)
    with closing(sqlite3.connect(path)) as older:
        before = {name: older.execute(f"SELECT * FROM {name}").fetchall() for name in schema.OLDER_NAMES}
    with closing(open_today(path)) as database:
        after = {
            name: [
                tuple(row)[: len(before[name][0])] for row in database.read(f"SELECT * FROM postroom_{name}")
            ]
            for name in schema.OLDER_NAMES
            if before[name]
        }
        assert all(expires_at for _, _, expires_at, _ in after["huey_data"]), (
            "what is kept by key has an end now"
        )
        after["huey_data"] = [(key, value, None, job) for key, value, _, job in after["huey_data"]]
        assert after == {name: rows for name, rows in before.items() if rows}
        assert database.read("SELECT to_address, state FROM postroom_emails")[0]["state"] == "queued"
        assert database.read("SELECT value FROM postroom_about WHERE key = 'environment'")


def test_it_has_what_a_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with (
        closing(open_today(older_file(tmp_path))) as older,
        closing(open_today(tmp_path / "new" / "a.db")) as new,
    ):
        assert columns(older) == columns(new)
        assert {thing for thing in things(older) if thing[0] != "table"} == {
            thing for thing in things(new) if thing[0] != "table"
        }
        names = {row["name"] for row in older.read("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert names.isdisjoint({*schema.OLDER_NAMES, "emails", "about"})


def test_ids_go_on_where_they_were(tmp_path: Path) -> None:
    path = older_file(tmp_path, "DELETE FROM jobs")
    with closing(open_today(path)) as database:
        assert database.read_one("SELECT seq FROM sqlite_sequence WHERE name = 'postroom_jobs'")["seq"] == 4


def test_a_file_that_is_older_still_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = older_file(tmp_path, "DELETE FROM _sqlite_migrations WHERE name = 'lighten_arrivals'")
    before = path.read_bytes()
    with pytest.raises(DatabaseUnusableError, match="older version"):
        open_today(path)
    with closing(sqlite3.connect(path)) as older, closing(sqlite3.connect(":memory:")) as then:
        then.deserialize(before)
        assert list(older.iterdump()) == list(then.iterdump())


def test_tables_of_your_own_may_have_any_name_without_the_prefix(tmp_path: Path) -> None:
    path = tmp_path / "postroom.db"
    with closing(sqlite3.connect(path)) as own:
        for name in (*schema.OLDER_NAMES, "emails", "about"):
            own.execute(f"CREATE TABLE {name} (mine TEXT)")
            own.execute(f"INSERT INTO {name} VALUES ('here')")
        own.commit()
    with closing(open_today(path)) as database:
        for name in (*schema.OLDER_NAMES, "emails", "about"):
            assert [row["mine"] for row in database.read(f"SELECT mine FROM {name}")] == ["here"]
