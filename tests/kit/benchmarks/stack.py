"""A contestant as a whole: its site behind gunicorn, its workers, its redis-server; started, asked, killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import fields
from http.client import HTTPConnection, HTTPException
from typing import Any

from app.settings import Settings
from tests.kit.benchmarks import machine
from tests.kit.benchmarks.measures import (
    LAST_WORDS,
    FailedError,
    Run,
    Stage,
    ask_driver,
    stage,
)
from tests.kit.benchmarks.rivals import PROJECT_DIR
from tests.kit.benchmarks.workers import PROBE, Workers

HOST = "127.0.0.1"
UP_WITHIN_S = 60.0
LOOK_S = 0.005
WEB_THREADS = 8
"""The threads of each rival's gunicorn: as many as Postroom's has. All else of it is as it comes."""
GUNICORN = [sys.executable, "-m", "gunicorn", "--config", str(PROJECT_DIR / "gunicorn.conf.py")]
SITE = [*GUNICORN, "tests.kit.benchmarks.contestants.postroom_site:app"]
"""Postroom with the tasks that are measured."""
MAIN = [sys.executable, str(PROJECT_DIR / "main.py")]
"""Postroom as its user starts it."""
SYNCHRONOUS = {"FULL": 2, "NORMAL": 1}


class Stack:
    """The processes of one contestant. Postroom's site is its workers, too."""

    def __init__(self, run: Run, scene: Stage, site: list[str], environ: dict[str, str]) -> None:
        self.is_postroom = run.contestant.is_postroom
        self.port = machine.free_port()
        self.environ = scene.environ | environ
        self._synchronous = run.contestant.environ.get("BENCHMARK_SYNCHRONOUS", "")
        self._redis = [] if scene.redis_pid is None else [scene.redis_pid]
        self._web_commands: list[list[str]] = []
        if self.is_postroom:
            self.environ = self._environ_of_postroom()
            self._worker_commands = [site]
        else:
            said = ask_driver(run, scene, "commands")
            options = ["--bind", f"{HOST}:{self.port}", "--threads", str(WEB_THREADS)]
            options += ["--config", os.devnull]  # else it would find Postroom's
            self._web_commands = [["gunicorn", *options, said["web"]]]
            self._worker_commands = said["workers"]
        self._web, self._workers = Workers([], self.environ), Workers([], self.environ)
        self.marks = self._workers.marks

    def _environ_of_postroom(self) -> dict[str, str]:
        """Return the environment of a published site, none of whose settings is the user's own."""
        settings = {field.metadata["variable"] for field in fields(Settings)}
        environ = {name: value for name, value in self.environ.items() if name not in settings}
        own = {"APP_ENV": "production", "HOST": HOST, "PORT": str(self.port)}
        own |= {"DATA_DIR": environ["BENCHMARK_FOLDER"], "SQLITE_SYNCHRONOUS": self._synchronous}
        return environ | own

    def start(self) -> None:
        """Start all of it, and return when it serves and has run a first job."""
        self.launch()
        self.wait_until_up()
        self.enqueue(PROBE)
        self.wait_for_marks(1)
        if self.is_postroom:
            self._check_settings()

    def launch(self) -> None:
        """Start all of it."""
        self._web = Workers(self._web_commands, self.environ)
        self.launch_workers()

    def launch_workers(self) -> None:
        """Start what runs the jobs."""
        self._workers = Workers(self._worker_commands, self.environ)

    def kill_workers(self) -> None:
        """SIGKILL what runs the jobs, all at once; redis-server lives on."""
        _kill(self._workers)

    def kill(self) -> None:
        """SIGKILL all but redis-server."""
        _kill(self._web)
        _kill(self._workers)

    def stop(self) -> None:
        """End all but redis-server in an orderly way."""
        self._web.stop()
        self._workers.stop()

    def pids(self) -> list[int]:
        """Return the ids of all processes that are needed: the site's, the workers', redis-server's."""
        processes = [*self._web.processes, *self._workers.processes]
        return machine.process_tree(*(process.pid for process in processes), *self._redis)

    def wait_until_up(self) -> None:
        """Return when /up answers."""
        deadline = time.monotonic() + UP_WITHIN_S
        while True:
            for process in (*self._web.processes, *self._workers.processes):
                assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
            with suppress(OSError, HTTPException):
                self.ask("GET", "/up")
                return
            assert time.monotonic() < deadline, f"the site did not answer within {UP_WITHIN_S:g} s"
            time.sleep(LOOK_S)

    def ask(self, method: str, path: str) -> str:
        """Return the text of an answer that must be a good one."""
        with closing(HTTPConnection(HOST, self.port, timeout=30)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            text = answer.read().decode()
        assert 200 <= answer.status < 300, f"{method} {path} was answered with {answer.status}"
        return text

    def get(self, path: str) -> Any:
        """Return the JSON of an answer."""
        return json.loads(self.ask("GET", path))

    def enqueue(self, n: int) -> None:
        """Have the site enqueue job n."""
        self.ask("POST", f"/api/enqueue/{n}")

    def wait_for_marks(self, count: int) -> None:
        """Return once so many bodies have begun."""
        self._workers.wait_for_marks(count)

    def _check_settings(self) -> None:
        found = self.get("/api/benchmark")
        expected = {
            "environment": "production",
            "journal_mode": "wal",
            "max_pending_jobs": 100_000,
            "synchronous": SYNCHRONOUS[self._synchronous],
            "task_threads": 4,
        }
        assert found == expected, f"it ran with {found}, expected {expected}"


@contextmanager
def stack(run: Run, site: list[str] = SITE, **environ: str) -> Iterator[Stack]:
    """Prepare a contestant's stack, and end it; `site` is the command of Postroom's.

    Raises: FailedError for whatever went wrong in the block.
    """
    with stage(run) as scene:
        made = Stack(run, scene, site, environ)
        try:
            yield made
        except (AssertionError, OSError, HTTPException) as error:
            log = run.folder / "workers.log"
            said = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
            print("\n".join(said[-LAST_WORDS:]), file=sys.stderr, flush=True)
            raise FailedError(str(error)) from error
        finally:
            made.kill()


def _kill(workers: Workers) -> None:
    for pid in machine.process_tree(*(process.pid for process in workers.processes)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for process in workers.processes:
        process.wait()
