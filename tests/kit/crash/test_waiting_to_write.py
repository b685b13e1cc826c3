"""Ends that cannot be written for longer than a body may run, and processes that are frozen (P1, P2, P6)."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.kit.crash_rig import WORKER, CrashSite, until
from tests.kit.site_process import PROJECT_DIR

pytestmark = pytest.mark.slow

THREADS = 4
TIMEOUT_S = 1.0
"""That of the brief bodies."""


@contextmanager
def held(site: CrashSite) -> Iterator[None]:
    """Have another program hold the file while the block runs."""
    with closing(sqlite3.connect(site.data_dir / "postroom.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def read_only(site: CrashSite) -> Iterator[None]:
    """Have the disk take no writes while the block runs."""
    assert site.post("/api/test/pragma", {"pragma": "query_only = 1"})[0] == 200
    yield
    assert site.post("/api/test/pragma", {"pragma": "query_only = 0"})[0] == 200


def pids(site: CrashSite) -> set[int]:
    return {row[0] for row in site.rows("SELECT pid FROM postroom_instances")}


def assert_each_ran_once(site: CrashSite, markers: list[str]) -> None:
    """See that these jobs ran, each once to its end and without a death."""
    until(site.is_idle, "the end of every job")
    assert site.notes.count("start") == site.notes.count("end") == dict.fromkeys(markers, 1)
    assert site.rows("SELECT SUM(deaths) FROM postroom_jobs") == [(0,)]
    assert site.get("/ready") == (200, {"ready": True, "reasons": []})


@pytest.mark.parametrize("trouble", [read_only, held])
def test_bodies_whose_ends_wait_longer_than_their_timeout_are_no_hung_ones(
    tmp_path: Path, trouble: object
) -> None:
    assert callable(trouble)
    with CrashSite(tmp_path, APP_ENV="production") as site:
        markers = [f"brief-{number}" for number in range(THREADS)]
        before = pids(site)
        site.start_steps(markers, 0.5, brief=True)
        site.wait_for_notes("start", THREADS)
        with trouble(site):
            site.wait_for_notes("end", THREADS)
            time.sleep(
                TIMEOUT_S + 4
            )  # a process that took them for hung would replace itself in a second or two
            status, answer = site.get("/ready")
            assert (status, answer["ready"]) == (503, False)
            assert site.get("/up")[0] == 200
            assert site.counts()["running"] == THREADS
            assert pids(site) == before
        assert_each_ran_once(site, markers)
        assert pids(site) == before


@contextmanager
def worker_that_freezes(site: CrashSite, point: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python3 main.py worker` beside a site; it stops at a point, once."""
    environ = site.environ | {"FREEZE_AT": point}
    process = subprocess.Popen(WORKER, cwd=PROJECT_DIR, env=environ, stderr=subprocess.DEVNULL)
    try:
        until(lambda: process.pid in pids(site), "the worker")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.wait(10)


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL])
def test_a_process_frozen_inside_a_commit_holds_up_writing_until_it_goes_on_or_is_killed(
    tmp_path: Path, then: signal.Signals
) -> None:
    with (
        CrashSite(tmp_path, APP_ENV="production") as site,
        worker_that_freezes(site, "before the finish commits") as worker,
    ):
        markers = [f"step-{number}" for number in range(40)]
        site.start_steps(markers, 0.2)
        until(lambda: site.notes.read("freeze"), "the freeze")
        began = time.monotonic()
        status, answer = site.post("/api/test/steps", {"markers": ["refused"], "seconds": 0})
        assert (status, 9 < time.monotonic() - began < 20) == (503, True), answer
        status, answer = site.get("/ready")
        assert (status, "held the database" in answer["reasons"][0]) == (503, True)
        assert (site.get("/up")[0], site.counts()["running"] > 0) == (200, True)  # reading goes on
        worker.send_signal(then)
        began = time.monotonic()
        until(lambda: site.post("/api/test/steps", {"markers": ["after"], "seconds": 0})[0] == 200, "writing")
        print(f"writes go on {time.monotonic() - began:.2f} s after {then.name}")
        until(site.is_idle, "the end of every job")
        ends = site.notes.count("end")
        again = {marker for marker in markers if ends[marker] != 1}
        assert set(ends) == {*markers, "after"}
        assert len(again) <= (THREADS if then == signal.SIGKILL else 0), "only what the killed one ran"
        assert site.counts()["failed"] == 0
        assert site.get("/ready") == (200, {"ready": True, "reasons": []})


def test_while_the_process_with_the_clock_is_frozen_another_does_its_work(tmp_path: Path) -> None:
    with (
        CrashSite(tmp_path, APP_ENV="production", TICKS="1") as site,
        worker_that_freezes(site, "") as worker,
    ):
        clock = "SELECT pid FROM postroom_instances WHERE clock"
        until(lambda: site.notes.read("tick"), "the first minute")
        ((holder,),) = site.rows(clock)
        assert holder != worker.pid
        markers = [f"late-{number}" for number in range(20)]
        site.start_steps(markers, 0, delay_s=2)
        os.kill(holder, signal.SIGSTOP)
        try:
            began = time.monotonic()
            until(lambda: len(site.notes.read("end")) == len(markers), "the jobs whose time has come")
            print(f"due jobs ran {time.monotonic() - began - 2:.2f} s late")
            assert {note.pid for note in site.notes.read("end")} == {worker.pid}
            site.set_clock(60)
            until(lambda: len(site.notes.read("tick")) == 2, "the next minute")
        finally:
            os.kill(holder, signal.SIGCONT)
        until(lambda: site.get("/ready")[0] == 200, "the thaw")
        until(site.is_idle, "the end of every job")
        assert site.notes.count("start") == site.notes.count("end") == dict.fromkeys(markers, 1)
        assert set(site.notes.count("tick").values()) == {1}
