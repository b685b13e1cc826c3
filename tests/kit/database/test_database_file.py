"""The database's file: opening and closing, migrations, and other programs that lock it (P1)."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlite_utils import Database as Tables

from app.kit.database.damage import see_to_damage
from app.kit.database.file import LARGE_WAL_BYTES, QUIET_WAL_BYTES, Database
from app.kit.database.setup import Migrations
from app.kit.errors import DatabaseBusyError, DatabaseUnusableError, DatabaseUnwritableError
from tests.kit.engine_rig import Threads, numbers, put, until

PROJECT_DIR = Path(__file__).resolve().parents[3]
CHILD = """
import os, sys, sqlite3
from filelock import lock_descriptor
path, what = sys.argv[1:]
if what == "turn":
    lock_descriptor(os.open(path + ".turn", os.O_RDWR))
else:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with one table."""
    database = Database(tmp_path / "a.db", wait_s=0.2)
    database.write(lambda connection: connection.execute("CREATE TABLE numbers (n INTEGER NOT NULL)"))
    yield database
    database.close()


# The file


def test_a_new_file_is_in_wal_mode_with_incremental_vacuum_and_full_synchronous(database: Database) -> None:
    asked = {
        name: database.write(lambda connection, name=name: connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("journal_mode", "auto_vacuum", "synchronous", "foreign_keys")
    }
    assert asked == {"journal_mode": "wal", "auto_vacuum": 2, "synchronous": 2, "foreign_keys": 1}


def test_synchronous_is_as_set(tmp_path: Path) -> None:
    database = Database(tmp_path / "normal.db", synchronous="NORMAL")
    assert database.write(lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0]) == 1
    database.close()


def test_a_closed_database_opens_again_at_the_next_use(database: Database) -> None:
    put(database, 1)
    database.close()
    database.close()
    put(database, 2)
    assert numbers(database) == [1, 2]


def test_a_folder_with_strange_letters_in_its_name_is_fine(tmp_path: Path) -> None:
    database = Database(tmp_path / "new" / "100% of my data? #1 & é" / "a b.db")
    database.write(lambda connection: connection.execute("CREATE TABLE numbers (n)"))
    put(database, 1)
    assert numbers(database) == [1]
    database.close()


def test_a_file_of_another_environment_is_refused(tmp_path: Path) -> None:
    development = Database(tmp_path / "a.db", environment="development")
    development.open()
    development.close()
    production = Database(tmp_path / "a.db", environment="production")
    with pytest.raises(
        DatabaseUnusableError, match="belongs to the development environment, this is production"
    ):
        production.open()
    development.write(lambda connection: connection.execute("CREATE TABLE numbers (n)"))
    development.close()


@pytest.mark.parametrize("content", [b"not a database, but a letter to my aunt\n" * 200, b"x" * 4096])
def test_a_garbage_file_is_set_aside_untouched_and_said_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    database = Database(path)
    assert database.read("SELECT 1") != []
    database.close()
    (aside,) = tmp_path.glob("a.db.damaged-*")
    assert aside.read_bytes() == content
    assert "a.db is damaged (file is not a database)" in caplog.text
    assert aside.name in caplog.text


def test_a_second_damage_in_the_same_second_does_not_overwrite_the_first(tmp_path: Path) -> None:
    for content in (b"x" * 4096, b"y" * 4096, b"z" * 4096):
        (tmp_path / "a.db").write_bytes(content)
        see_to_damage(tmp_path / "a.db", 0.2, "development")
        assert not (tmp_path / "a.db").exists()
    assert {path.read_bytes()[:1] for path in tmp_path.glob("*.damaged-*")} == {b"x", b"y", b"z"}


def test_a_file_whose_rows_break_a_rule_is_not_taken_for_damaged(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE numbers (n INTEGER CHECK (n > 0))")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("INSERT INTO numbers VALUES (-1)")
        connection.execute("PRAGMA ignore_check_constraints = OFF")
        assert "CHECK" in connection.execute("PRAGMA quick_check").fetchone()[0]
    database = Database(tmp_path / "a.db")
    assert numbers(database) == [-1]
    database.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DatabaseUnusableError, match="taken"):
        Database(tmp_path / "taken" / "a.db").open()


# Migrations


def migrations_with(*steps: Callable[[Tables], None]) -> Migrations:
    migrations = Migrations("test")
    for step in steps:
        migrations()(step)
    return migrations


def first_step(tables: Tables) -> None:
    tables.execute("CREATE TABLE firsts (n)")
    tables.execute("INSERT INTO firsts VALUES (1)")


def failing_step(tables: Tables) -> None:
    tables.execute("CREATE TABLE seconds (n)")
    tables.execute("INSERT INTO firsts VALUES (2)")
    raise ValueError("half way through")


def test_a_migration_is_applied_once(tmp_path: Path) -> None:
    for _ in range(3):
        database = Database(tmp_path / "a.db", migrations=[migrations_with(first_step)])
        assert len(database.read("SELECT * FROM firsts")) == 1
        database.close()


def test_a_new_migration_is_applied_to_an_older_file(tmp_path: Path) -> None:
    def second_step(tables: Tables) -> None:
        tables.execute("INSERT INTO firsts VALUES (2)")

    older = Database(tmp_path / "a.db", migrations=[migrations_with(first_step)])
    older.open()
    older.close()
    newer = Database(tmp_path / "a.db", migrations=[migrations_with(first_step, second_step)])
    assert [tuple(row) for row in newer.read("SELECT n FROM firsts")] == [(1,), (2,)]
    newer.close()


def test_what_is_applied_is_what_sqlite_utils_has_applied() -> None:
    first, both = migrations_with(first_step), migrations_with(first_step, failing_step)
    with closing(sqlite3.connect(":memory:")) as connection:
        assert not first.are_applied(connection)
        first.of_sqlite_utils().apply(Tables(connection))
        assert (first.are_applied(connection), both.are_applied(connection)) == (True, False)


def test_two_migrations_of_one_name_are_refused_where_the_second_is_written() -> None:
    with pytest.raises(ValueError, match="there is a migration first_step in test already"):
        migrations_with(first_step, first_step)


def test_triggers_are_recursive_as_sqlite_utils_has_them(tmp_path: Path) -> None:
    for _ in range(2):  # a new file, and one in which nothing is to be done
        database = Database(tmp_path / "a.db", migrations=[migrations_with(first_step)])
        asked = database.write(lambda connection: connection.execute("PRAGMA recursive_triggers").fetchone())
        assert asked[0] == 1
        database.close()


def test_a_migration_that_raises_leaves_nothing_half_done(tmp_path: Path) -> None:
    broken = Database(tmp_path / "a.db", migrations=[migrations_with(first_step, failing_step)])
    with pytest.raises(ValueError, match="half way through"):
        broken.open()
    mended = Database(tmp_path / "a.db", migrations=[migrations_with(first_step)])
    assert [tuple(row) for row in mended.read("SELECT n FROM firsts")] == [(1,)]
    assert mended.read("SELECT 1 FROM sqlite_schema WHERE name = 'seconds'") == []
    mended.close()


def test_two_processes_worth_of_databases_migrate_one_file_once(tmp_path: Path) -> None:
    databases = [Database(tmp_path / "a.db", migrations=[migrations_with(first_step)]) for _ in range(4)]
    with Threads() as threads:
        for database in databases:
            threads.start(database.open)
    assert (threads.errors, len(databases[0].read("SELECT * FROM firsts"))) == ([], 1)
    for database in databases:
        database.close()


# Other programs


@contextmanager
def held_by_another_process(database: Database, what: str) -> Iterator[subprocess.Popen[str]]:
    """Let a child process hold the file of turns ("turn") or SQLite's own lock ("lock")."""
    command = [sys.executable, "-c", CHILD, str(database.path), what]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT_DIR, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.parametrize(
    ("what", "who"),
    [("turn", "another process of this kit"), ("lock", "another program .*")],
    ids=["turn", "lock"],
)
def test_a_writer_waits_for_another_process_then_gives_up(database: Database, what: str, who: str) -> None:
    with held_by_another_process(database, what):
        for write in (lambda: put(database, 1), lambda: database.transaction().__enter__()):
            began = time.monotonic()
            with pytest.raises(DatabaseBusyError, match=f"{who} held the database for 0.2 s"):
                write()
            assert time.monotonic() - began >= 0.2
        assert numbers(database) == []  # reading goes on
    put(database, 2)
    assert numbers(database) == [2]


@pytest.mark.parametrize("what", ["turn", "lock"])
def test_a_writer_goes_on_when_the_process_that_held_the_file_is_killed(
    database: Database, what: str
) -> None:
    database.wait_s = database.writer.wait_s = 10
    with held_by_another_process(database, what) as child, Threads() as threads:
        threads.start(lambda: put(database, 1))
        until(lambda: database.writer.line.is_taken)
        child.kill()
    assert (threads.errors, numbers(database)) == ([], [1])


def test_a_database_that_cannot_have_its_turn_closes_all_the_same(database: Database) -> None:
    put(database, 1)
    with held_by_another_process(database, "turn"):
        database.close()
    assert numbers(database) == [1]


def test_a_large_wal_is_emptied_in_a_quiet_moment(database: Database) -> None:
    wal = database.path.with_name(database.path.name + "-wal")
    with database.transaction() as connection:
        connection.execute("CREATE TABLE letters (text BLOB)")
        connection.executemany("INSERT INTO letters VALUES (?)", [(b"x" * 100_000,) for _ in range(60)])
    assert wal.stat().st_size > QUIET_WAL_BYTES
    database.shrink_wal()
    assert wal.stat().st_size == 0
    assert database.read("SELECT COUNT(*) FROM letters")[0][0] == 60


# Damage in production, newer code, files that go


@pytest.mark.parametrize(
    "left", ["", "-wal", ".restoring", ".turn"], ids=["garbage", "wal", "restore", "turn"]
)
def test_in_production_what_is_wrong_with_the_file_stops_the_start_and_changes_nothing(
    tmp_path: Path, left: str
) -> None:
    (tmp_path / f"a.db{left}").write_bytes(b"x" * 4096)
    with pytest.raises(DatabaseUnusableError, match=r"a\.db is .*python3 main\.py restore FILE"):
        Database(tmp_path / "a.db", environment="production").open()
    assert {path.name for path in tmp_path.iterdir()} <= {f"a.db{left}", "a.db.turn"}
    assert (tmp_path / f"a.db{left}").read_bytes() == b"x" * 4096


def test_in_production_a_first_start_makes_the_file(tmp_path: Path) -> None:
    for _ in range(2):
        database = Database(tmp_path / "data" / "a.db", environment="production")
        database.open()
        database.close()


def test_elsewhere_a_wal_without_its_file_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "a.db-wal").write_bytes(b"x" * 4096)
    database = Database(tmp_path / "a.db")
    database.open()
    database.close()
    assert len(list(tmp_path.glob("a.db.damaged-*-wal"))) == 1


def test_a_file_that_newer_code_has_changed_is_refused(tmp_path: Path) -> None:
    def second_step(tables: Tables) -> None:
        tables.execute("INSERT INTO firsts VALUES (2)")

    newer = Database(tmp_path / "a.db", migrations=[migrations_with(first_step, second_step)])
    newer.open()
    newer.close()
    older = Database(tmp_path / "a.db", migrations=[migrations_with(first_step)])
    with pytest.raises(DatabaseUnusableError, match=r"newer code \(test: second_step\)"):
        older.open()
    without = Database(tmp_path / "a.db")  # a set of somebody's that was deleted is no newer code
    without.open()
    without.close()


@pytest.fixture
def always_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each write look whether the file is there."""
    monkeypatch.setattr("app.kit.database.presence.LOOK_S", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no file that is open")
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("is_replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_goes_while_it_is_open_takes_no_write(
    always_looks: None, database: Database, suffix: str, is_replaced: bool
) -> None:
    put(database, 1)
    path = database.path.with_name(database.path.name + suffix)
    content = path.read_bytes()
    path.unlink()
    if is_replaced:
        path.write_bytes(content)
    for write in (lambda: put(database, 2), lambda: database.transaction().__enter__()):
        with pytest.raises(DatabaseUnwritableError, match=f"{path.name} was removed or replaced"):
            write()
    with Threads() as threads:
        threads.start(lambda: numbers(database))  # a thread that has not read before
    assert isinstance(threads.errors[0], DatabaseUnwritableError)


@pytest.mark.parametrize("lock", ["PRAGMA locking_mode = EXCLUSIVE", "SELECT 1"])
def test_a_file_that_another_program_holds_while_it_is_opened_means_try_again(
    database: Database, lock: str
) -> None:
    put(database, 1)
    database.close()
    with closing(sqlite3.connect(database.path, isolation_level=None)) as another:
        another.execute(lock)
        another.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseBusyError, match=r"held the database for 0\.2 s"):
            database.open()
    assert numbers(database) == [1]


def test_what_a_reader_that_never_ends_keeps_in_the_wal_is_known(database: Database) -> None:
    def write_much() -> None:
        with database.transaction() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS letters (text BLOB)")
            connection.executemany("INSERT INTO letters VALUES (?)", [(b"x" * 100_000,) for _ in range(200)])

    with closing(sqlite3.connect(database.path, isolation_level=None)) as reader:
        write_much()
        assert database.stuck_wal_bytes() == 0  # large, but nobody keeps it so
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM letters").fetchone()
        for _ in range(2):
            write_much()
        assert database.stuck_wal_bytes() > LARGE_WAL_BYTES
        reader.execute("COMMIT")
    assert database.stuck_wal_bytes() == 0


@pytest.mark.skipif(os.name != "posix", reason="needs the modes of files")
def test_the_folder_and_its_files_are_nobody_elses(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "instances").mkdir(parents=True)
    ours = ["postroom.db", "secret_key", "clock.lock", "instances/1.lock"]
    for name in [*ours, "a holiday.jpg"]:
        (folder / name).touch()
        (folder / name).chmod(0o644)
    folder.chmod(0o755)
    database = Database(folder / "postroom.db")
    database.write(lambda connection: connection.execute("CREATE TABLE numbers (n)"))
    modes = {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    database.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert modes.pop("a holiday.jpg") == 0o644
    assert modes.pop("instances") == 0o700
    assert set(modes) == {*ours, "postroom.db-wal", "postroom.db-shm", "postroom.db.turn"}
    assert set(modes.values()) == {0o600}
