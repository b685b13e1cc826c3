"""What the doctor finds on the disk: each check is made to fail by the real thing where there is one."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.kit.database.file import Database
from app.kit.doctor import disk as doctor_data, hosts as doctor_hosts
from app.kit.doctor.disk import Check
from app.settings import Settings

GIB = 1024**3


# The data folder


def states(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    everything_works = {"data folder": "ok", "SQLite": "ok", "file locks": "ok"}
    assert states(doctor_data.check_folder(tmp_path)) == everything_works
    assert states(doctor_data.check_folder(tmp_path / "not" / "there")) == everything_works
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", [".", "data"])
def test_file_in_place_of_the_folder_is_wrong(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    (check,) = doctor_data.check_folder(tmp_path / "file" / below)
    assert check.state == "wrong"
    assert f"{tmp_path / 'file'} is no folder" in check.sentence


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: a folder that not even root can write")
def test_folder_that_cannot_be_written_is_wrong() -> None:
    (check,) = doctor_data.check_folder(Path("/proc"))
    assert check.state == "wrong"
    assert "/proc cannot be written" in check.sentence


@pytest.mark.skipif(
    sys.platform == "win32", reason="needs another system than Windows: SQLite's dotfile locks"
)
def test_disk_on_which_wal_does_not_work_is_named(tmp_path: Path) -> None:
    check = doctor_data.check_wal(tmp_path, vfs="unix-dotfile")
    assert check.state == "warning"
    assert "journal mode delete" in check.sentence


def test_disk_on_which_sqlite_does_not_work_is_wrong(tmp_path: Path) -> None:
    assert doctor_data.check_wal(tmp_path / "absent").state == "wrong"


@pytest.mark.parametrize(
    "answers", [[True, True, True], [False, False, False], [True, False, False]], ids=["all", "none", "first"]
)
def test_disk_on_which_locks_do_not_work_is_named(tmp_path: Path, answers: list[bool]) -> None:
    """Locks that all get, as on some network disks; that nobody gets; that outlive whoever had them."""
    left = iter(answers)
    check = doctor_data.check_locks(tmp_path, lambda _descriptor, blocking: next(left))
    assert check.state == "warning"
    assert "one process only" in check.sentence


@pytest.mark.parametrize(("free_gib", "state"), [(10, "ok"), (0.4, "warning"), (0.04, "wrong"), (0, "wrong")])
def test_full_disk_is_wrong(tmp_path: Path, free_gib: float, state: str) -> None:
    usage = lambda _path: SimpleNamespace(free=free_gib * GIB)  # noqa: E731
    assert doctor_data.check_space(tmp_path / "absent", usage).state == state
    assert doctor_data.check_space(tmp_path).name == "room"


ROOT = "/dev/vda / ext4 rw 0 0"
VOLUME = "/dev/vdb {folder} ext4 rw 0 0"


@pytest.mark.parametrize(
    ("mounts", "environ", "state", "words"),
    [
        ([ROOT], {}, "ok", "keeps files"),
        ([], {}, "ok", "as far as can be seen"),
        (["tmpfs / tmpfs rw 0 0"], {}, "wrong", "in memory"),
        ([ROOT, "tmpfs {folder} tmpfs rw 0 0"], {}, "wrong", "in memory"),
        (["overlay / overlay rw 0 0"], {}, "warning", "inside a container"),
        (["overlay / overlay rw 0 0", VOLUME], {}, "ok", ""),
        (["overlay / overlay rw 0 0"], {"REPL_ID": "1"}, "ok", ""),
        (
            ["overlay / overlay rw 0 0", VOLUME],
            {"REPL_ID": "1", "REPLIT_DEPLOYMENT": "1"},
            "warning",
            "Replit",
        ),
        ([ROOT], {"RENDER": "true"}, "warning", "Render"),
        ([ROOT, VOLUME], {"RENDER": "true"}, "ok", ""),
        ([ROOT, VOLUME], {"FLY_APP_NAME": "books"}, "ok", ""),
        ([ROOT, VOLUME], {"DYNO": "web.1"}, "warning", "Heroku"),
        ([ROOT], {"KOYEB_APP_NAME": "books"}, "ok", ""),
        ([ROOT, "server:/data {folder} nfs4 rw 0 0"], {}, "warning", "network (nfs4)"),
        ([ROOT, "bucket {folder} fuse.gcsfuse rw 0 0"], {}, "warning", "network (fuse.gcsfuse)"),
        ([ROOT, "tmpfs {cut} tmpfs rw 0 0"], {}, "ok", ""),
        ([ROOT, VOLUME, "tmpfs {folder} tmpfs rw 0 0"], {}, "wrong", "in memory"),
        (["tmpfs {folder} tmpfs rw 0 0", ROOT], {}, "wrong", "in memory"),
    ],
)
def test_disk_that_does_not_keep_files_is_named(
    tmp_path: Path, mounts: list[str], environ: dict[str, str], state: str, words: str
) -> None:
    folder, listed = tmp_path / "a disk", tmp_path / "mounts"
    folder.mkdir()
    written = str(folder.resolve()).replace(" ", "\\040")
    listed.write_text(
        "".join(f"{line.format(folder=written, cut=written[:-1])}\n" for line in mounts), "utf-8"
    )
    check = doctor_data.check_disk(folder / "data", environ, listed)
    assert check.state == state, check
    assert words in check.sentence


def test_system_that_lists_no_mounts_is_no_trouble(tmp_path: Path) -> None:
    assert doctor_hosts.find_mount(tmp_path, tmp_path / "absent") is None
    assert doctor_data.check_disk(tmp_path, {}, tmp_path / "absent").state == "ok"


# The database


def test_no_database_is_made(settings: Settings) -> None:
    assert doctor_data.check_database(settings).state == "ok"
    assert not settings.data_dir.exists()


def test_database_is_looked_at_while_the_site_writes(settings: Settings) -> None:
    database = Database(settings.database_path)
    with closing(database), database.transaction() as connection:
        connection.execute("CREATE TABLE things (thing TEXT)")
        check = doctor_data.check_database(settings)
        assert check.state == "ok"
        assert "is sound" in check.sentence
        connection.execute("INSERT INTO things VALUES ('still mine')")
    with closing(database):
        assert len(database.read("SELECT * FROM things")) == 1
    source = settings.database_path.read_bytes()
    assert doctor_data.check_database(settings).state == "ok"
    assert settings.database_path.read_bytes() == source


def test_damaged_database_is_wrong_and_left_alone(settings: Settings) -> None:
    database = Database(settings.database_path)
    with closing(database):
        database.open()
    with settings.database_path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)
    source = settings.database_path.read_bytes()
    check = doctor_data.check_database(settings)
    assert check.state == "wrong"
    assert "is damaged" in check.sentence
    assert settings.database_path.read_bytes() == source


def test_database_of_another_environment_is_wrong(settings: Settings) -> None:
    database = Database(settings.database_path, "development")
    with closing(database):
        database.open()
    assert doctor_data.check_database(settings).state == "ok"
    check = doctor_data.check_database(replace(settings, environment="production"))
    assert check.state == "wrong"
    assert "belongs to the development environment" in check.sentence


def test_database_of_another_program_is_wrong(settings: Settings) -> None:
    settings.data_dir.mkdir()
    with closing(sqlite3.connect(settings.database_path)) as connection:
        connection.execute("CREATE TABLE theirs (thing TEXT)")
    check = doctor_data.check_database(settings)
    assert check.state == "wrong"
    assert "Is it a database of this kit?" in check.sentence


def test_a_large_write_ahead_log_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "postroom.db"
    assert doctor_data.check_wal_size(path).state == "ok"
    with path.with_name("postroom.db-wal").open("wb") as wal:
        wal.truncate(17 * 1024 * 1024)
    assert "17 MiB" in doctor_data.check_wal_size(path).sentence
    assert doctor_data.check_wal_size(path).state == "warning"


@pytest.mark.parametrize(
    ("environment", "then"), [("production", "does not start"), ("development", "sets it aside")]
)
def test_damage_is_told_with_what_the_next_start_does(tmp_path: Path, environment: str, then: str) -> None:
    settings = Settings(data_dir=tmp_path, environment=environment)
    settings.database_path.write_bytes(b"x" * 4096)
    found = doctor_data.check_database(settings)
    assert (found.state, then in found.sentence) == ("wrong", True)
