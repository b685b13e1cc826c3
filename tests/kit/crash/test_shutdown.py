"""SIGTERM, Ctrl-C, reloads: gone within 10 s, jobs finished or back in the queue, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.kit.crash_rig import WORKER, CrashSite, is_alive, until
from tests.kit.site_process import PROJECT_DIR, Site

pytestmark = pytest.mark.slow

WITHIN_S = 10
ENDS = [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGINT, True)]
NAMES = ["SIGTERM", "SIGINT", "Ctrl-C"]


def wait_for_starts(site: Site, notes: Path, count: int) -> None:
    """Wait until that many bodies have started."""
    while notes.read_text().count("start ") < count:
        assert site.get("/up")[0] == 200


def start_slow(site: Site, seconds: float, count: int) -> list[str]:
    """Enqueue slow jobs."""
    body = {"seconds": seconds}
    return [site.post("/api/test/slow", body | {"marker": str(n)})[1]["id"] for n in range(count)]


@pytest.mark.parametrize(("number", "to_all"), ENDS, ids=NAMES)
def test_long_jobs_and_a_long_poll_do_not_hold_up_the_end(
    site: Site, notes: Path, number: int, to_all: bool
) -> None:
    jobs = start_slow(site, 30, 4)
    wait_for_starts(site, notes, 4)
    poll = HTTPConnection("127.0.0.1", site.port, timeout=30)
    poll.request("GET", f"/api/jobs/{jobs[0]}?wait=25")
    assert site.get("/up")[0] == 200  # came later and is answered: the poll is being waited on
    took_s = site.stop(number, to_all)
    answer = poll.getresponse()
    assert took_s < WITHIN_S
    assert answer.status == 200
    assert json.load(answer)["state"] == "running"
    poll.close()
    assert not site.has_processes()
    assert "Traceback" not in "".join(site.log)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", site.port), timeout=1)

    site.start()
    wait_for_starts(site, notes, 8)  # picked up again at once, the same four
    for job in jobs:
        seen = site.get(f"/api/jobs/{job}")[1]
        assert (seen["state"], seen["attempt"], seen["deaths"]) == ("running", 1, 0)


@pytest.mark.parametrize(("number", "to_all"), ENDS, ids=NAMES)
def test_short_jobs_finish_before_the_end(site: Site, notes: Path, number: int, to_all: bool) -> None:
    running, waiting = start_slow(site, 1.5, 4), start_slow(site, 0, 1)
    wait_for_starts(site, notes, 4)
    assert site.stop(number, to_all) < WITHIN_S
    assert notes.read_text().count("end ") == 4  # the fifth was not started any more
    site.start()
    for job in running + waiting:
        assert site.get(f"/api/jobs/{job}?wait=10")[1]["state"] == "done"
    assert notes.read_text().count("end ") == 5


def test_signals_that_come_while_bodies_finish_change_nothing(site: Site, notes: Path) -> None:
    running = start_slow(site, 1.5, 4)
    wait_for_starts(site, notes, 4)
    (pid,) = [one["pid"] for one in site.get("/api/queue", as_operator=True)[1]["instances"]]
    assert site.process is not None
    site.process.send_signal(signal.SIGTERM)

    def is_gone_when_told_again() -> bool:
        try:
            os.kill(pid, signal.SIGTERM)  # systemd sends it to each process, the parent sends it on, too
        except ProcessLookupError:
            return True
        return False

    until(is_gone_when_told_again, "the end", WITHIN_S)
    site.process.wait(WITHIN_S)
    assert "Traceback" not in "".join(site.log)
    assert notes.read_text().count("end ") == len(running)


def test_a_thread_that_a_body_left_busy_does_not_keep_the_site(site: Site) -> None:
    job = site.post("/api/test/leave-thread-busy", {"seconds": 60})[1]["id"]
    assert site.get(f"/api/jobs/{job}?wait=10")[1]["state"] == "done"
    (pid,) = [one["pid"] for one in site.get("/api/queue", as_operator=True)[1]["instances"]]
    os.kill(pid, signal.SIGTERM)  # as a process does to itself whose bodies all hang: another takes its place
    until(lambda: not is_alive(pid), "the end of the first", WITHIN_S)

    job = site.post("/api/test/leave-thread-busy", {"seconds": 60})[1]["id"]
    assert site.get(f"/api/jobs/{job}?wait=10")[1]["state"] == "done"
    assert site.stop() < WITHIN_S


def test_a_thread_that_a_body_left_busy_does_not_keep_a_worker_process(tmp_path: Path) -> None:
    site = CrashSite(tmp_path)  # only its folder and its environment: the worker is alone
    enqueue = [
        sys.executable,
        "-c",
        "from tests.kit import crash_site, site_under_test as s; s.leave_thread_busy(60)",
    ]
    subprocess.run(enqueue, cwd=PROJECT_DIR, env=site.environ, check=True)
    worker = subprocess.Popen(WORKER, cwd=PROJECT_DIR, env=site.environ, stderr=subprocess.DEVNULL)
    try:
        until(lambda: site.rows("SELECT state FROM postroom_jobs") == [("done",)], "the end of the body")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(WITHIN_S) == 0
    finally:
        worker.kill()
        worker.wait(10)


def test_reloads_fail_no_request_and_leave_no_pipe_open(site: Site) -> None:
    assert site.process is not None
    may_end, failures = threading.Event(), []

    def ask() -> None:
        client = HTTPConnection("127.0.0.1", site.port, timeout=30)
        try:
            while not may_end.is_set():
                client.request("GET", "/up")  # on one connection for as long as it is told to go on
                assert client.getresponse().read() == b"ok\n"
        except Exception as error:
            failures.append(error)
        client.close()

    def open_pipes() -> int:
        assert site.process is not None
        files = Path(f"/proc/{site.process.pid}/fd").glob("*") if sys.platform == "linux" else ()
        return [os.readlink(file).startswith("pipe:") for file in files if file.is_symlink()].count(True)

    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    opened = []
    for _ in range(3):
        before = {one["pid"] for one in site.get("/api/queue", as_operator=True)[1]["instances"]}
        site.process.send_signal(signal.SIGHUP)
        while before & {one["pid"] for one in site.get("/api/queue", as_operator=True)[1]["instances"]}:
            assert not failures
        opened.append(open_pipes())
    may_end.set()
    for asker in askers:
        asker.join()
    assert failures == []
    assert len(set(opened)) == 1
