"""Full and read-only disks, foreign locks, damaged files, clocks that jump: nothing is lost or silent (P1, P6)."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.kit.crash_rig import CrashSite, until
from tests.kit.site_process import Site

pytestmark = pytest.mark.slow

HOUR_S = 3600
LITTLE_IN_THE_WAL = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
connection.execute("INSERT INTO postroom_huey_counters (key, value) VALUES ('the last thing written', 1)")
os._exit(0)
"""
"""While the WAL still holds every page, SQLite mends whatever happens to the file."""
BALLAST_BYTES = 64 * 1024


@pytest.fixture
def site(tmp_path: Path) -> Iterator[CrashSite]:
    """The crash site, started; it is killed at the end."""
    with CrashSite(tmp_path) as site:
        yield site


def enqueue(site: CrashSite, marker: str, seconds: float = 0) -> int:
    """Enqueue a job; return the status of the answer."""
    return site.post("/api/test/steps", {"markers": [marker], "seconds": seconds})[0]


def assert_each_ran_once(site: CrashSite, markers: list[str]) -> None:
    """See that these jobs, and no others, ran, each to its end."""
    until(site.is_idle, "the end of every job")
    assert site.notes.count("start") == dict.fromkeys(markers, 1)
    assert site.notes.count("end") == dict.fromkeys(markers, 1)
    assert site.counts()["failed"] == 0
    assert site.rows("PRAGMA integrity_check") == [("ok",)]
    assert site.get("/ready")[0] == 200


# Disks


@pytest.mark.parametrize(
    ("bad", "good", "says"),
    [
        ("max_page_count = 1", "max_page_count = 1000000", "full"),
        ("query_only = 1", "query_only = 0", "readonly"),
    ],
    ids=["full", "read-only"],
)
def test_a_disk_that_stops_taking_writes_refuses_jobs_and_loses_none(
    site: CrashSite, bad: str, good: str, says: str
) -> None:
    assert enqueue(site, "running", seconds=0.5) == 200
    site.wait_for_notes("start", 1)
    assert site.post("/api/test/pragma", {"pragma": bad})[0] == 200
    accepted = ["running"]
    for number in range(1000):
        status = enqueue(site, f"late-{number}")
        if status != 200:
            break
        accepted.append(f"late-{number}")
    assert status in (500, 503)
    until(lambda: any(says in line for line in site.log), "a line of the log that says so")
    until(lambda: site.notes.count("end")["running"], "the end of the body")
    if says == "readonly":
        status, answer = site.get("/ready")
        assert (status, says in answer["reasons"][0]) == (503, True)
    assert site.get("/up")[0] == 200
    assert site.post("/api/test/pragma", {"pragma": good})[0] == 200
    assert_each_ran_once(site, accepted)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mount something at a folder, or skip the test where that is not permitted."""
    folder.mkdir(exist_ok=True)
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("needs Linux's mount")
    if subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("needs the permission to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as ballast:
        for size in (BALLAST_BYTES, 4096, 1):
            try:
                while ballast.write(b"\0" * size):
                    pass
            except OSError:
                continue


def test_a_small_disk_that_is_really_full_refuses_jobs_and_loses_none(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "data", "-t", "tmpfs", "-o", "size=4m", "none") as disk,
        CrashSite(tmp_path) as site,
    ):
        assert enqueue(site, "running", seconds=1) == 200
        site.wait_for_notes("start", 1)
        fill(disk / "ballast")
        accepted, status = ["running"], 200
        while status == 200:  # what was written before leaves some room in the WAL
            marker = f"late-{len(accepted)}"
            status = enqueue(site, marker, seconds=0)
            accepted += [marker] if status == 200 else []
            assert len(accepted) < 10_000
        assert status in (500, 503)
        until(lambda: any("full" in line for line in site.log), "a line of the log that says so")
        until(lambda: site.notes.count("end")["running"], "the end of the body")
        (disk / "ballast").unlink()
        assert_each_ran_once(site, accepted)
        print(f"accepted on a full disk: {len(accepted) - 1}")


@pytest.mark.parametrize("with_file", [False, True], ids=["empty-folder", "folder-with-a-database"])
def test_a_read_only_folder_stops_the_start_with_a_sentence(tmp_path: Path, with_file: bool) -> None:
    (tmp_path / "data").mkdir()
    if with_file:
        with CrashSite(tmp_path) as site:
            assert enqueue(site, "before") == 200
            site.wait_for_notes("end", 1)
            until(site.is_idle, "the record of that end")  # killed before it, the job would rightly run again
    with mounted(tmp_path / "data", "--bind", "-o", "ro", str(tmp_path / "data")):
        site = CrashSite(tmp_path)
        with pytest.raises(AssertionError):
            site.start()
        site.wait_for_death()
        log = "".join(site.log)
        assert "postroom.db cannot be used" in log
        assert "DATA_DIR names another folder" in log
        assert "Traceback" not in log
    with site:
        assert enqueue(site, "after") == 200
        assert_each_ran_once(site, ["before", "after"] if with_file else ["after"])


# Other programs


def test_another_programs_lock_of_ten_seconds_means_try_again_and_everything_resumes(site: CrashSite) -> None:
    assert enqueue(site, "before", seconds=1) == 200
    site.wait_for_notes("start", 1)
    with closing(sqlite3.connect(site.data_dir / "postroom.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        request = urllib.request.Request(
            f"http://127.0.0.1:{site.port}/api/test/steps",
            b'{"markers": ["refused"], "seconds": 0}',
            {"Content-Type": "application/json"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=30):
            pass
        assert (refused.value.code, refused.value.headers["Retry-After"]) == (503, "5")
        refused.value.close()
        assert 9 < time.monotonic() - began < 15
        assert site.get("/up")[0] == 200
        assert site.counts()["running"] == 1  # its end waits to be written
        other.execute("ROLLBACK")
    assert enqueue(site, "after") == 200
    assert_each_ran_once(site, ["before", "after"])


def test_a_start_while_another_program_holds_the_file_tries_again(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.stop()
    with closing(sqlite3.connect(tmp_path / "postroom.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        site = Site(tmp_path)
        with ThreadPoolExecutor(1) as pool:
            started = pool.submit(site.start, 60)
            until(lambda: any("cannot start yet" in line for line in site.log), "a word of the start")
            other.close()
            started.result()
    assert site.get("/ready")[1] == {"ready": True, "reasons": []}
    site.kill()


# Files that go


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no file that is open")
def test_a_file_that_is_removed_under_the_site_takes_nothing_and_is_named(tmp_path: Path) -> None:
    with Site(tmp_path, APP_ENV="production", SECRET_KEY="s" * 32, ADMIN_TOKEN="t" * 32) as site:
        wish = {"email": "cleo@example.com", "genre": "Mystery"}
        assert site.post("/api/subscriptions", wish)[0] == 201
        for path in tmp_path.glob("postroom.db*"):
            if path.suffix != ".turn":
                path.unlink()
        # The site looks every few milliseconds: for so long it may still take something.
        until(lambda: site.post("/api/subscriptions", wish)[0] == 503, "the refusal", within_s=1)
        for _ in range(3):
            assert site.post("/api/subscriptions", wish)[0] == 503
        status, answer = site.get("/ready")
        assert (status, "postroom.db was removed" in answer["reasons"][0]) == (503, True)
        site.stop()
        with pytest.raises(AssertionError):
            site.start()
        assert "postroom.db is gone" in "".join(site.log)


# Damaged files


def truncate(path: Path) -> None:
    """Cut the file off in the middle."""
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Leave nothing in the file."""
    path.write_bytes(b"")


def overwrite(path: Path) -> None:
    """Put something else in the file's place."""
    path.write_bytes(b"not a database, but a letter to my aunt\n" * 200)


def scribble(path: Path) -> None:
    """Write over pages in the middle of the file."""
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 16384)


@pytest.mark.parametrize("damage", [truncate, empty, overwrite, scribble])
def test_a_damaged_file_is_set_aside_and_the_site_starts_with_a_new_one_and_says_so(
    site: CrashSite, damage: object
) -> None:
    assert callable(damage)
    assert enqueue(site, "before") == 200
    site.wait_for_notes("end", 1)
    until(site.is_idle, "the record of that end")
    site.kill()
    path = site.data_dir / "postroom.db"
    subprocess.run([sys.executable, "-c", LITTLE_IN_THE_WAL, str(path)], check=True)
    damage(path)
    left = {suffix: path.with_name(path.name + suffix).read_bytes() for suffix in ("", "-wal")}
    site.start()
    sentence = next(line for line in site.log if "is damaged" in line)
    assert "set aside as postroom.db.damaged-" in sentence
    assert ".recover" in sentence
    (aside,) = [
        file for file in site.data_dir.glob("*.damaged-*") if not file.name.endswith(("-wal", "-shm"))
    ]
    assert aside.read_bytes() == left[""]
    assert aside.with_name(aside.name + "-wal").read_bytes() == left["-wal"]
    assert sum(site.counts().values()) == 0
    assert enqueue(site, "after") == 200
    assert_each_ran_once(site, ["before", "after"])
    site.kill()
    site.start()  # the new one is sound
    assert len([line for line in site.log if "is damaged" in line]) == 1


def test_two_processes_that_start_on_a_damaged_file_set_it_aside_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    overwrite(tmp_path / "data" / "postroom.db")
    with CrashSite(tmp_path) as first, CrashSite(tmp_path) as second:
        assert len(list(first.data_dir.glob("*.damaged-*"))) == 1
        assert enqueue(first, "first") == enqueue(second, "second") == 200
        assert_each_ran_once(first, ["first", "second"])


# The clock


@pytest.mark.parametrize("hours", [-1, 1], ids=["back", "forward"])
def test_a_clock_that_jumps_an_hour_and_back_loses_nothing_and_fires_nothing_twice(
    tmp_path: Path, hours: int
) -> None:
    with CrashSite(tmp_path, TICKS="1") as site:
        until(lambda: site.notes.read("tick"), "cron's first firing")
        site.start_steps(["now-1", "now-2"], 0.5)
        site.start_steps(["half-an-hour"], 0, delay_s=HOUR_S / 2)
        site.wait_for_notes("start", 2)
        site.set_clock(hours * HOUR_S)
        assert_the_clock_runs(site, "there")
        until(lambda: len(site.notes.read("tick")) == 2, "cron, once for all that was missed")
        assert site.notes.count("end")["half-an-hour"] == int(hours > 0)
        site.set_clock(0)
        assert_the_clock_runs(site, "and back")
        assert len(site.notes.read("tick")) == 2  # this minute has been
        site.set_clock(HOUR_S / 2)
        until(lambda: site.notes.count("end")["half-an-hour"], "the job whose time has come")
        until(lambda: len(site.notes.read("tick")) == 3, "cron at the time that is new again")
        until(site.is_idle, "the end of every job")
        for what in ("start", "end"):
            assert set(site.notes.count(what).values()) == {1}
            assert len(site.notes.count(what)) == 7
        assert site.counts()["failed"] == 0
        assert len(site.notes.count("tick")) == len(site.notes.read("tick")) == 3
        assert site.get("/ready")[0] == 200


def assert_the_clock_runs(site: CrashSite, where: str) -> None:
    """See jobs run at once, and in a while, by the clock as it is now."""
    marker = where.replace(" ", "-")
    site.start_steps([f"at-once-{marker}"], 0)
    site.start_steps([f"soon-{marker}"], 0, delay_s=1.2)
    until(lambda: site.notes.count("end")[f"at-once-{marker}"], "the job of the new time")
    until(lambda: site.notes.count("end")[f"soon-{marker}"], "the scheduled job of the new time")


def test_in_production_a_damaged_file_is_no_empty_shop(tmp_path: Path) -> None:
    (tmp_path / "postroom.db").write_bytes(b"x" * 4096)
    site = Site(tmp_path, APP_ENV="production", SECRET_KEY="s" * 32, ADMIN_TOKEN="t" * 32)
    with pytest.raises(AssertionError):
        site.start()
    site.kill()
    log = "".join(site.log)
    assert "postroom.db is damaged" in log
    assert "main.py restore FILE" in log
    assert "Traceback" not in log
    assert (tmp_path / "postroom.db").read_bytes() == b"x" * 4096


def test_the_kit_itself_says_that_its_file_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "postroom.db").write_bytes(b"x" * 4096)
    with Site(tmp_path) as site:
        assert "is damaged (file is not a database)" in "".join(site.log)
        assert site.get("/ready") == (200, {"ready": True, "reasons": []})
