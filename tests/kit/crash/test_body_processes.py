"""Bodies in processes on a real site: killed, stopped or reloaded, it leaves none behind (P2, P6)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.crash.patience import ask_until, finished
from tests.kit.crash_rig import WORKER, Notes, until
from tests.kit.process_bodies import is_running
from tests.kit.site_process import PROJECT_DIR, SITE_UNDER_TEST, Site

pytestmark = pytest.mark.slow

WITHIN_S = 10
ENDS = [
    (signal.SIGTERM, False, False),
    (signal.SIGINT, False, False),
    (signal.SIGINT, True, False),
    (signal.SIGTERM, False, True),
]
NAMES = ["SIGTERM", "SIGINT", "Ctrl-C", "SIGTERM to the children too, as systemd sends it"]


@pytest.fixture
def site(tmp_path: Path, notes: Path) -> Iterator[Site]:
    """The site under test, which runs two bodies at once."""
    environ = {"NOTES": str(notes), "APP_ENV": "production", "TASK_THREADS": "2"}
    with Site(tmp_path / "data", SITE_UNDER_TEST, **environ) as site:
        yield site


def start(site: Site, seconds: float = 0, computing: int = 0, hanging: int = 0) -> dict[str, list[str]]:
    """Enqueue bodies that run in processes; return their jobs."""
    body = {"seconds": seconds, "computing": computing, "hanging": hanging}
    status, jobs = site.post("/api/test/processes", body)
    assert status == 200, jobs
    return dict(jobs)


def wait_for_starts(notes: Path, count: int) -> set[int]:
    """Wait until that many bodies have started; return the processes in which they did."""
    until(lambda: len(Notes(notes).read("start")) >= count, f"{count} starts")
    return {note.pid for note in Notes(notes).read("start")}


def wait_for_the_end_of(pids: set[int]) -> None:
    until(lambda: not any(map(is_running, pids)), "the end of every process")


def test_a_killed_site_takes_them_along_so_that_no_job_runs_twice_at_once(site: Site, notes: Path) -> None:
    jobs = start(site, seconds=4, computing=2)["computing"]
    before = wait_for_starts(notes, 2)
    site.kill()
    site.start()
    for job in jobs:
        seen = site.get(f"/api/jobs/{job}?wait=25")[1]
        assert (seen["state"], seen["deaths"]) == ("done", 1)
        assert seen["result"] not in before
    ends = Notes(notes).read("end")
    assert len(ends) == 2
    assert not {note.pid for note in ends} & before


HELD_CHILDREN = """
import os, sys, time
while os.path.exists(os.environ["HOLD"]) and any("engine.body.child" in word for word in sys.orig_argv):
    time.sleep(0.01)
"""
"""What Python runs first in every process, as sitecustomize.py: those that run bodies do not get to it."""


def test_kills_before_the_body_has_begun_count_for_nobody(tmp_path: Path, notes: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    (tmp_path / "sitecustomize.py").write_text(HELD_CHILDREN, "utf-8")
    environ = {"NOTES": str(notes), "APP_ENV": "production", "HOLD": str(hold), "PYTHONPATH": str(tmp_path)}
    with Site(tmp_path / "data", SITE_UNDER_TEST, **environ) as site:
        (job,) = start(site, computing=1)["computing"]
        for _ in range(4):
            ask_until(site, "/api/queue", lambda _, queue: queue["counts"]["running"] == 1, 20)
            site.kill()
            assert Notes(notes).read("start") == []
            site.start()
        hold.unlink()
        seen = site.get(f"/api/jobs/{job}?wait=25")[1]
        assert (seen["state"], seen["attempt"], seen["deaths"]) == ("done", 1, 0)


@pytest.mark.parametrize(("number", "to_all", "to_children"), ENDS, ids=NAMES)
def test_long_bodies_are_cut_off_with_the_site(
    site: Site, notes: Path, number: int, to_all: bool, to_children: bool
) -> None:
    jobs = start(site, seconds=30, computing=2)["computing"]
    children = wait_for_starts(notes, 2)
    for child in children if to_children else ():
        os.kill(child, number)
    assert site.stop(number, to_all) < WITHIN_S
    wait_for_the_end_of(children)
    assert "Traceback" not in "".join(site.log)
    site.start()
    wait_for_starts(notes, 4)
    for job in jobs:
        seen = site.get(f"/api/jobs/{job}")[1]
        assert (seen["state"], seen["attempt"], seen["deaths"]) == ("running", 1, 0)


@pytest.mark.parametrize(("number", "to_all", "to_children"), ENDS, ids=NAMES)
def test_short_bodies_finish_before_the_end(
    site: Site, notes: Path, number: int, to_all: bool, to_children: bool
) -> None:
    jobs = start(site, seconds=1.5, computing=3)["computing"]
    children = wait_for_starts(notes, 2)
    for child in children if to_children else ():
        os.kill(child, number)
    assert site.stop(number, to_all) < WITHIN_S
    assert len(Notes(notes).read("end")) == 2  # the third was not started any more
    wait_for_the_end_of(children)
    site.start()
    assert [site.get(f"/api/jobs/{job}?wait=20")[1]["state"] for job in jobs] == ["done"] * 3
    assert len(Notes(notes).read("end")) == 3


def test_a_reload_lets_them_finish_and_then_ends_their_processes(site: Site, notes: Path) -> None:
    start(site, seconds=2, computing=4)
    children = wait_for_starts(notes, 2)
    assert site.process is not None
    site.process.send_signal(signal.SIGHUP)
    ask_until(site, "/api/queue", finished, within_s=30)
    assert sorted(Notes(notes).count("end").values()) == [1] * 4
    wait_for_the_end_of(children)


def test_bodies_that_hang_are_killed_and_the_site_goes_on(site: Site) -> None:
    instances = [one["pid"] for one in site.get("/api/queue", as_operator=True)[1]["instances"]]
    hung = start(site, hanging=4)["hung"]
    others = start(site, computing=4)["computing"]
    ask_until(site, "/api/queue", finished, within_s=30)
    seen = [site.get(f"/api/jobs/{job}", as_operator=True)[1] for job in hung]
    assert {(job["state"], job["deaths"], job["error"]["type"]) for job in seen} == {
        ("failed", 0, "TaskTimeout")
    }
    assert {site.get(f"/api/jobs/{job}")[1]["state"] for job in others} == {"done"}
    assert site.get("/ready")[0] == 200
    assert [one["pid"] for one in site.get("/api/queue", as_operator=True)[1]["instances"]] == instances


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_beside_the_site_leaves_none_behind_either(site: Site, notes: Path, number: int) -> None:
    worker = subprocess.Popen(WORKER, cwd=PROJECT_DIR, env=site.environ, stderr=subprocess.DEVNULL)
    try:
        ask_until(
            site,
            "/api/queue",
            lambda _, queue: len(queue["instances"]) == 2 and len(queue["workers"]) == 4,
            20,
        )
        start(site, seconds=60, computing=4)
        children = wait_for_starts(notes, 4)
        worker.send_signal(number)
        worker.wait(20)
        until(lambda: sum(map(is_running, children)) == 2, "the end of the worker's two")
    finally:
        worker.kill()
        worker.wait(10)
    site.kill()
    wait_for_the_end_of(children)
