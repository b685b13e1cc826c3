"""A backup is whole or not there, and one that is brought back holds what waited in it (P1, P5)."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import main
from app.kit.database.file import Database
from app.kit.engine.consumer import instances
from app.kit.engine.consumer.instances import Instance
from app.kit.engine.operate import commands
from app.kit.errors import ConflictError, DatabaseUnusableError, InvalidInputError
from tests.kit.engine_rig import Rig, numbers, put, rig_in

PROJECT_DIR = Path(__file__).resolve().parents[3]
NOBODY: Callable[[], list[str]] = list
WRITES_AND_ENDS = """
import sys
from pathlib import Path
from app.kit.database.file import Database
database = Database(Path(sys.argv[1]))
database.write(lambda connection: connection.execute("CREATE TABLE numbers (n)"))
database.write(lambda connection: connection.execute("INSERT INTO numbers VALUES (7)"))
sys.exit(3)
"""
BACKS_UP_SLOWLY = """
import sqlite3, sys, time
from pathlib import Path
from app import database_copies
database_copies._put = lambda draft, target: (print("written", flush=True), time.sleep(60))
database_copies.backup(sqlite3.connect(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with one table."""
    database = Database(tmp_path / "data" / "a.db", wait_s=0.2)
    database.write(lambda connection: connection.execute("CREATE TABLE numbers (n INTEGER NOT NULL)"))
    yield database
    database.close()


def files(database: Database) -> set[str]:
    return {path.name for path in database.path.parent.iterdir()}


def content(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n")]


# The end of a process


def test_a_process_that_ends_leaves_everything_in_the_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    command = [sys.executable, "-c", WRITES_AND_ENDS, str(path)]
    assert subprocess.run(command, cwd=PROJECT_DIR, check=False).returncode == 3
    assert not path.with_name("a.db-wal").exists()
    assert content(path) == [7]


def test_a_process_that_ends_beside_another_leaves_nothing_in_the_wal_either(database: Database) -> None:
    put(database, 1)
    with closing(sqlite3.connect(database.path)) as another:
        another.execute("SELECT COUNT(*) FROM numbers").fetchone()
        database.close_for_good()
        assert database.path.with_name("a.db-wal").stat().st_size == 0
    with pytest.raises(DatabaseUnusableError, match="about to end"):
        database.read("SELECT 1")


# Backups


def test_a_backup_is_one_file_that_only_its_owner_reads(database: Database, tmp_path: Path) -> None:
    put(database, 1)
    database.backup(tmp_path / "monday.db")
    assert [path.name for path in tmp_path.glob("monday.db*")] == ["monday.db"]
    assert content(tmp_path / "monday.db") == [1]
    if os.name == "posix":
        assert (tmp_path / "monday.db").stat().st_mode & 0o777 == 0o600


def test_a_backup_overwrites_nothing_and_one_that_cannot_be_written_leaves_nothing(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "monday.db").write_text("mine")
    for target in (tmp_path / "monday.db", tmp_path / "nowhere" / "monday.db"):
        with pytest.raises(InvalidInputError):
            database.backup(target)
    assert {path.name for path in tmp_path.iterdir()} == {"monday.db", "data"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_backup_that_is_killed_leaves_no_file_of_its_name(database: Database, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BACKS_UP_SLOWLY, str(database.path), str(tmp_path / "monday.db")]
    with subprocess.Popen(command, cwd=PROJECT_DIR, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
    assert not (tmp_path / "monday.db").exists()
    database.backup(tmp_path / "monday.db")


# Bringing one back


def test_a_backup_is_brought_back_and_the_old_file_stays_beside_it(
    database: Database, tmp_path: Path
) -> None:
    put(database, 1)
    database.backup(tmp_path / "monday.db")
    put(database, 2)
    aside = database.restore(tmp_path / "monday.db", NOBODY)
    assert aside is not None
    assert (numbers(database), content(aside)) == ([1], [1, 2])
    assert content(tmp_path / "monday.db") == [1]
    assert files(database) == {"a.db", "a.db-wal", "a.db-shm", "a.db.turn", aside.name}


def test_a_damaged_file_is_moved_aside_with_all_that_lies_beside_it(
    database: Database, tmp_path: Path
) -> None:
    put(database, 1)
    database.backup(tmp_path / "monday.db")
    database.close()
    for suffix in ("", "-wal"):
        database.path.with_name(f"a.db{suffix}").write_bytes(b"x" * 5000)
    aside = database.restore(tmp_path / "monday.db", NOBODY)
    assert aside is not None
    assert numbers(database) == [1]
    assert all(aside.with_name(aside.name + suffix).read_bytes() == b"x" * 5000 for suffix in ("", "-wal"))


def test_a_file_that_is_gone_is_brought_back(database: Database, tmp_path: Path) -> None:
    put(database, 1)
    database.backup(tmp_path / "monday.db")
    database.close()
    database.path.unlink()
    assert database.restore(tmp_path / "monday.db", NOBODY) is None
    assert numbers(database) == [1]


def a_letter(path: Path) -> None:
    path.write_bytes(b"a letter to my aunt" * 500)


def a_foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE numbers (n)")


def nothing(_path: Path) -> None:
    """Make no file."""


@pytest.mark.parametrize("make", [a_letter, a_foreign_database, nothing])
def test_what_is_no_backup_is_refused_and_changes_nothing(
    database: Database, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    put(database, 1)
    make(tmp_path / "monday.db")
    before = files(database)
    with pytest.raises(InvalidInputError, match=r"monday\.db"):
        database.restore(tmp_path / "monday.db", NOBODY)
    assert (numbers(database), files(database)) == ([1], before)


def test_a_backup_of_another_environment_is_refused(database: Database, tmp_path: Path) -> None:
    database.backup(tmp_path / "monday.db")
    production = Database(tmp_path / "production" / "a.db", environment="production")
    with pytest.raises(DatabaseUnusableError, match="belongs to the development environment"):
        production.restore(tmp_path / "monday.db", NOBODY)
    assert not production.path.exists()


def test_while_a_process_lives_nothing_is_brought_back(rig: Rig, tmp_path: Path) -> None:
    rig.database.backup(tmp_path / "monday.db")
    instance = Instance(rig.database, rig.clock, lambda _id: 0)
    instance.join(threads=1)
    living = instances.living(rig.database.path.parent)
    assert living == [f"process {os.getpid()}"]
    with pytest.raises(ConflictError, match=f"process {os.getpid()}"):
        rig.database.restore(tmp_path / "monday.db", lambda: living)
    instance.leave()
    assert instances.living(rig.database.path.parent) == []


def test_while_another_program_has_the_file_open_nothing_is_brought_back(
    database: Database, tmp_path: Path
) -> None:
    database.backup(tmp_path / "monday.db")
    with closing(sqlite3.connect(database.path)) as another:
        another.execute("SELECT COUNT(*) FROM numbers").fetchone()
        with pytest.raises(ConflictError, match="open"):
            database.restore(tmp_path / "monday.db", NOBODY)
    assert not list(database.path.parent.glob("*.replaced-*"))


def test_a_restore_that_was_cut_short_is_seen_at_the_start_and_made_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "data" / "a.db", environment="production")
    database.open()
    database.backup(tmp_path / "monday.db")
    database.close()
    database.path.rename(database.path.with_name("a.db.restoring"))
    with pytest.raises(DatabaseUnusableError, match="cut short"):
        database.open()
    database.restore(tmp_path / "monday.db", NOBODY)
    database.open()
    database.close()


def test_a_backup_that_was_copied_over_the_file_is_not_undone_by_the_old_wal(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(database, 1)
    database.backup(tmp_path / "monday.db")
    for number in range(2, 50):
        put(database, number)
    killed = tmp_path / "killed"
    killed.mkdir()
    for suffix in ("-wal", "-shm"):
        shutil.copy(f"{database.path}{suffix}", killed / f"a.db{suffix}")
    shutil.copy(tmp_path / "monday.db", killed / "a.db")
    again = Database(killed / "a.db")
    assert numbers(again) == [1]
    put(again, 2)
    again.close()
    assert len(list(killed.glob("a.db.replaced-*-wal"))) == 1
    assert "in place of another file" in caplog.text


def test_a_restored_file_does_not_take_its_own_wal_for_a_strange_one(
    database: Database, tmp_path: Path
) -> None:
    database.backup(tmp_path / "monday.db")
    database.restore(tmp_path / "monday.db", NOBODY)
    put(database, 1)
    killed = tmp_path / "killed"
    shutil.copytree(database.path.parent, killed)  # as a kill leaves it: with its WAL
    again = Database(killed / "a.db")
    assert numbers(again) == [1]
    again.close()


# What waited in it


def test_what_waited_or_ran_is_held_until_the_operator_says_go(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with rig_in(tmp_path / "data") as rig:
        give = rig.huey.task(name="give")(lambda: "given")
        ran, waits = give(), give()
        instance = Instance(rig.database, rig.clock, rig.huey.free)
        instance.join(threads=1)
        rig.claim(instance.id)
        rig.database.backup(tmp_path / "monday.db")
        instance.leave()
        rig.database.restore(tmp_path / "monday.db", NOBODY)
        with rig.consuming(workers=1):
            assert not rig.huey.wait_until_idle(0.2)
            assert rig.row(ran.id)["deaths"] == 0  # nobody knows that its process died
            assert rig.states() == {"ready": 2}
            assert "restored from a backup of 20" in rig.huey.pauses()[0]["reason"]
            assert commands.run(rig.huey, ["resume"]) == 0
            assert rig.huey.wait_until_idle(10)
        assert rig.row(waits.id)["state"] == "done"
        assert "goes on" in capsys.readouterr().out
        with pytest.raises(InvalidInputError, match="not paused"):
            commands.run(rig.huey, ["resume"])


@pytest.mark.slow
def test_the_command_brings_a_backup_back(tmp_path: Path) -> None:
    environ = os.environ | {"DATA_DIR": str(tmp_path / "data")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PROJECT_DIR / "main.py"), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    assert run("backup", "monday.db").returncode == 0
    restored = run("restore", "monday.db")
    assert (restored.returncode, "jobs resume" in restored.stdout) == (0, True), restored.stderr
    assert "goes on" in run("jobs", "resume").stdout
    assert run("restore", "tuesday.db").returncode == 1
    assert "restore" in main.USAGE


DIES_AT_A_RENAME = """
import os, sys
from pathlib import Path
from app.kit.database.file import Database
left, rename = [int(sys.argv[3])], Path.rename
def rename_or_die(path, target):
    if left[0] == 0:
        os._exit(9)
    left[0] -= 1
    return rename(path, target)
Path.rename = rename_or_die
Database(Path(sys.argv[1]), environment="production").restore(Path(sys.argv[2]), list)
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_damaged", [False, True], ids=["sound", "damaged"])
def test_a_restore_that_dies_anywhere_leaves_the_old_file_the_new_one_or_a_refusal(
    tmp_path: Path, is_damaged: bool
) -> None:
    backup, path = tmp_path / "monday.db", tmp_path / "data" / "a.db"
    database = Database(path, environment="production")
    database.write(lambda connection: connection.execute("CREATE TABLE numbers (n)"))
    database.backup(backup)
    put(database, 1)
    database.close()
    if is_damaged:
        for suffix in ("", "-wal"):
            path.with_name(f"a.db{suffix}").write_bytes(b"x" * 5000)
    found = set()
    for renames in range(10):
        command = [sys.executable, "-c", DIES_AT_A_RENAME, str(path), str(backup), str(renames)]
        status = subprocess.run(command, cwd=PROJECT_DIR, check=False).returncode
        if status == 0:
            break
        try:
            found.add(str(numbers(database)))
        except DatabaseUnusableError:
            found.add("refused")
        database.close()
    assert (status, renames > 0) == (0, True)
    assert found <= {"refused", "[1]"}
    assert numbers(database) == []
    database.close()
