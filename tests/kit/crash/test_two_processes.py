"""gunicorn's parent and worker: what is no hang, a parent that dies, and who may keep the port (P2)."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from app.kit.host.listening import wait_until_free
from tests.kit.crash.patience import ask_until, finished
from tests.kit.crash_rig import Notes, until
from tests.kit.process_bodies import is_running
from tests.kit.site_process import SITE_UNDER_TEST, Site

pytestmark = pytest.mark.slow

LONG_S = 38
"""gunicorn's own patience is 30 s, and it looks every 3 s."""


def site_in(folder: Path, **environ: str) -> Site:
    folder.mkdir(exist_ok=True)
    (folder / "notes").touch()
    return Site(folder / "data", SITE_UNDER_TEST, NOTES=str(folder / "notes"), **environ)


def workers(site: Site) -> list[int]:
    return [one["pid"] for one in site.get("/api/queue", as_operator=True)[1]["instances"]]


def test_neither_a_body_in_c_nor_a_freeze_is_taken_for_a_hang(tmp_path: Path) -> None:
    with ExitStack() as stack:
        holding, frozen = (stack.enter_context(site_in(tmp_path / name)) for name in ("holding", "frozen"))
        pids = workers(holding), workers(frozen)
        jobs = [
            (holding, holding.post("/api/test/slow", {"seconds": 1, "marker": "neighbour"})[1]["id"]),
            (holding, holding.post("/api/test/hold-interpreter", {"seconds": LONG_S})[1]["id"]),
            (frozen, frozen.post("/api/test/slow", {"seconds": 1, "marker": "frozen"})[1]["id"]),
        ]
        assert frozen.process is not None
        os.killpg(frozen.process.pid, signal.SIGSTOP)
        time.sleep(LONG_S)
        os.killpg(frozen.process.pid, signal.SIGCONT)
        for site in (holding, frozen):
            ask_until(site, "/api/queue", finished, within_s=30)
        seen = [site.get(f"/api/jobs/{job}")[1] for site, job in jobs]
        assert [(job["state"], job["deaths"]) for job in seen] == [("done", 0)] * 3
        assert (workers(holding), workers(frozen)) == pids


def test_a_parent_that_is_killed_frees_its_port_at_once_and_bodies_end_in_order(tmp_path: Path) -> None:
    with site_in(tmp_path) as site:
        port = site.port
        job = site.post("/api/test/slow", {"seconds": 3, "marker": "long"})[1]["id"]
        until(lambda: "start" in (tmp_path / "notes").read_text(), "the body's start")
        assert site.process is not None
        site.process.kill()
        site.process.wait(10)

        began = time.monotonic()
        wait_until_free("0.0.0.0", port)
        assert time.monotonic() - began < 1
        with site_in(tmp_path, PORT=str(port)) as again:
            seen = again.get(f"/api/jobs/{job}?wait=20")[1]
            assert (seen["state"], seen["attempt"], seen["deaths"]) == ("done", 1, 0)
        until(lambda: not site.has_processes(), "the end of what was left")


def test_a_worker_that_hangs_as_it_stops_is_replaced(tmp_path: Path) -> None:
    with site_in(tmp_path) as site:
        job = site.post("/api/test/slow", {"seconds": 60, "marker": "long"})[1]["id"]
        (worker,) = workers(site)
        until(lambda: "start" in (tmp_path / "notes").read_text(), "the body's start")
        os.kill(worker, signal.SIGTERM)
        with closing(sqlite3.connect(site.data_dir / "postroom.db")) as connection:
            state = "SELECT state FROM postroom_instances"
            until(lambda: connection.execute(state).fetchone() == ("stopping",), "its stop")
        os.kill(worker, signal.SIGSTOP)
        seen = ask_until(site, f"/api/jobs/{job}", lambda status, _: status == 200, within_s=40)
        assert seen["deaths"] == 0
        assert worker not in workers(site)


def test_what_a_body_forked_keeps_neither_port_nor_clients_nor_processes_of_bodies(tmp_path: Path) -> None:
    with site_in(tmp_path) as site, socket.create_connection(("127.0.0.1", site.port)) as client:
        site.post("/api/test/processes", {"seconds": 60, "computing": 1, "hanging": 0})
        until(lambda: "start" in (tmp_path / "notes").read_text(), "the body's start")
        (computing,) = (note.pid for note in Notes(tmp_path / "notes").read("start"))
        job = site.post("/api/test/orphan", {"seconds": 60})[1]["id"]
        orphan = site.get(f"/api/jobs/{job}?wait=20")[1]["result"]
        assert site.process is not None
        for pid in (site.process.pid, *workers(site)):
            os.kill(pid, signal.SIGKILL)
        site.process.wait(10)
        until(lambda: not is_running(computing), "the end of the body's process")
        client.settimeout(10)
        assert client.recv(1) == b""
        with site_in(tmp_path, PORT=str(site.port)) as again:
            os.kill(orphan, 0)
            assert again.port == site.port
