"""The benchmark's measures of whole stacks: their honesty; and that they work, in the small."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.kit.benchmarks import machine, marks, page_load, site_measures
from tests.kit.benchmarks.measures import Contestant, FailedError, Run, Stage
from tests.kit.benchmarks.stack import Stack, stack
from tests.kit.benchmarks.table import cell, figure
from tests.kit.small_project import PROJECT_DIR

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: reads /proc")

POSTROOM = Contestant("postroom", "postroom", {"BENCHMARK_SYNCHRONOUS": "FULL"})


def run_in(folder: Path) -> Run:
    """Return a run of Postroom."""
    return Run(POSTROOM, folder / "run", 1, is_quick=True)


# The machine


def test_cpu_time_is_exact_and_includes_threads_and_children_that_have_ended() -> None:
    in_thread = (
        "import os, subprocess, sys, threading\n"
        "def burn():\n"
        "    os.read(0, 1)\n"
        "    sum(range(5_000_000))\n"
        "thread = threading.Thread(target=burn); thread.start(); thread.join()\n"
        "subprocess.run([sys.executable, '-S', '-c', 'sum(range(5_000_000))'])\n"
        "print(flush=True); os.read(0, 1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", in_thread], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before_s = machine.cpu_s([process.pid])
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        used_s = machine.cpu_s([process.pid]) - before_s
        own_s = time.clock_gettime(machine._cpu_clock(process.pid))
        process.stdin.write("\n")
    assert own_s * 100 % 1 != 0, "it counts in ticks"
    assert used_s > 1.2 * own_s > 0.04
    assert machine.cpu_s([process.pid]) == 0


# Bodies that wait to be killed


def test_a_body_waits_after_its_mark_while_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, path = tmp_path / "hold", tmp_path / "marks"
    monkeypatch.setenv("BENCHMARK_MARKS", str(path))
    monkeypatch.setattr(marks, "HOLD", str(hold))
    hold.touch()
    body = threading.Thread(target=marks.mark, args=(3,))
    body.start()
    while not marks.read_marks(path):
        time.sleep(0.01)
    body.join(0.1)
    assert body.is_alive()
    hold.unlink()
    body.join(20)
    assert not body.is_alive()


ALL = [(n, 5_000_000_000) for n in range(site_measures.JOBS)]
"""Marks of a second after the restart."""


@pytest.mark.parametrize(
    ("after", "first_s", "lost"),
    [
        (ALL, 1.0, 0.0),
        ([(2, 4_500_000_000), *ALL, *ALL], 0.5, 0.0),
        (ALL[4:], math.inf, 4.0),
        (ALL[1:4], 1.0, 21.0),
        ([], math.inf, 24.0),
    ],
)
def test_what_ran_only_before_the_restart_is_lost(
    after: list[tuple[int, int]], first_s: float, lost: float
) -> None:
    before = [(n, 3_000_000_000) for n in range(-1, 4)]
    found = site_measures.came_back(before + after, {0, 1, 2, 3}, 4_000_000_000)
    assert found == {"first_s": first_s, "lost": lost}


def test_what_never_happened_is_said_so() -> None:
    assert figure(math.inf) == "never"
    assert cell([math.inf], 50) == "never"
    assert cell([0.5, math.inf, 0.4], 50) == "0.50 (0.40 to never)"


# The stack


def test_postroom_is_measured_as_published_and_without_the_users_own_settings(tmp_path: Path) -> None:
    environ = {"BENCHMARK_FOLDER": "data", "BENCHMARK_MARKS": str(tmp_path / "marks"), "LANG": "C"}
    users = {"MAIL_URL": "smtp://example.com", "WEB_THREADS": "64", "SQLITE_SYNCHRONOUS": "NORMAL"}
    made = Stack(run_in(tmp_path), Stage(environ | users, None), ["true"], {"BENCHMARK_HOLD": "hold"})
    assert made.environ == environ | {
        "APP_ENV": "production",
        "BENCHMARK_HOLD": "hold",
        "DATA_DIR": "data",
        "HOST": "127.0.0.1",
        "PORT": str(made.port),
        "SQLITE_SYNCHRONOUS": "FULL",
    }


def test_a_site_that_ends_is_an_error_with_its_last_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('the port is taken')"]
    with (
        pytest.raises(FailedError, match="ended with 1"),
        stack(run_in(tmp_path), command) as made,
    ):
        made.start()
    assert "the port is taken" in capsys.readouterr().err


def test_all_processes_of_the_workers_are_killed(tmp_path: Path) -> None:
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    with stack(run_in(tmp_path), [sys.executable, "-c", nested]) as made:
        made.launch()
        while len(pids := made.pids()) < 2:
            time.sleep(0.01)
        made.kill_workers()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):  # a zombie has none
            assert time.monotonic() < deadline
            time.sleep(0.01)


# The page beside jobs


class Queue:
    """Stands for a stack: its counts are as the test says, one after the other."""

    def __init__(self, *counts: dict[str, int]) -> None:
        self.counts = iter(counts)
        self.asked: list[str] = []

    def get(self, path: str) -> Any:
        """Answer with the next counts."""
        return {"counts": next(self.counts)}

    def ask(self, method: str, path: str) -> str:
        """Note what was asked for."""
        self.asked.append(path)
        return ""


def counts(done: int, ready: int, failed: int = 0) -> dict[str, int]:
    """Return the counts of a queue."""
    return {"done": done, "ready": ready, "failed": failed, "running": 0}


BEGINNING = (counts(0, 0), counts(3, 1000), counts(4, 999), counts(5, 998))
"""Counts before jobs are enqueued, twice while they start, and when the page is first asked for."""


@pytest.mark.parametrize(
    ("after", "complaint"),
    [
        (counts(904, 99), "only 99 io jobs were waiting at the end"),
        (counts(9, 994), "only 4 io jobs ran in 1 s"),
        (counts(905, 100, failed=1), "1 jobs failed"),
    ],
)
def test_a_queue_that_ran_dry_stood_still_or_failed_is_an_error(
    after: dict[str, int], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_load, "ask_for", lambda _made, _for_s: [1.0])
    made: Any = Queue(*BEGINNING, after)
    with pytest.raises(AssertionError, match=complaint):
        page_load.ask_beside(made, page_load.Kind("io", 250, 1.0), 1.0)


def test_what_is_left_of_a_kind_is_gone_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_load, "ask_for", lambda _made, _for_s: [1.0])
    made: Any = Queue(*BEGINNING, counts(10, 200), counts(10, 1), counts(11, 0))
    assert page_load.ask_beside(made, page_load.Kind("io", 250, 1.0), 1.0) == [1.0]
    assert made.asked == ["/api/benchmark/fill/io/600", "/api/benchmark/empty"]
    assert next(made.counts, None) is None


@contextmanager
def site_that_answers(status: int, page: bytes) -> Iterator[Any]:
    """Serve one page; give what stands for a stack."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_words: Any) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield SimpleNamespace(port=server.server_port)
        server.shutdown()
        thread.join()


def test_the_page_is_asked_for_as_long_as_told() -> None:
    with site_that_answers(200, b"Ada Quill " * page_load.BOOKS) as made:
        taken_ms = page_load.ask_for(made, 0.05)
    assert len(taken_ms) > 1
    assert sum(taken_ms) <= 1000 * 20


@pytest.mark.parametrize(
    ("status", "page", "complaint"),
    [
        (503, b"Ada Quill " * page_load.BOOKS, "answered with 503"),
        (200, b"Ada Quill", "does not show the books"),
    ],
)
def test_a_page_that_is_not_the_page_is_an_error(status: int, page: bytes, complaint: str) -> None:
    with site_that_answers(status, page) as made, pytest.raises(AssertionError, match=complaint):
        page_load.ask_for(made, 0.05)


@pytest.mark.slow
def test_it_measures_the_stack_and_prints_the_table() -> None:
    names = [measure.name for measure in site_measures.SITE_MEASURES]
    chosen = ["--only", "postroom", "--rounds", "1", "--quick"]
    process = subprocess.run(
        [sys.executable, str(PROJECT_DIR / "main.py"), "benchmark", *names, *chosen],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found = dict(re.findall(r"^\| (.*?) +\| +(\S+) \|$", process.stdout, re.MULTILINE))
    titles = [row.title for measure in site_measures.SITE_MEASURES for row in measure.rows]
    assert all(float(found[title]) > 0 for title in titles[:-1])
    assert found[titles[-1]] == "0", "jobs were lost"
