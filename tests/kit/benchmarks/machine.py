"""The machine, as Linux tells of it: what it is, what its disk can do, what processes use of it."""

from __future__ import annotations

import os
import platform
import re
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

from tests.kit.benchmarks.table import percentile

PROC = Path("/proc")
WAL_PAGES = 1000
"""After so many SQLite begins its log anew. Source: sqlite.org/pragma.html#pragma_wal_autocheckpoint"""


def description(folder: Path) -> str:
    """Say in a line what machine this is, and on which file system `folder` lies."""
    cpu = _first_match(r"model name\s*: (.*)", PROC / "cpuinfo") or platform.machine()
    memory_kb = int(_first_match(r"MemTotal:\s*(\d+)", PROC / "meminfo") or 0)
    cores = len(os.sched_getaffinity(0))
    kernel = f"{platform.system()} {platform.release()}"
    return f"{cpu}, {cores} cores, {memory_kb / 2**20:.0f} GiB, {kernel}, {file_system(folder)}"


def file_system(folder: Path) -> str:
    """Name the file system that a folder lies on, such as ext4."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in (PROC / "self/mountinfo").read_text("utf-8").splitlines():
        if line.split()[2] == number:
            return line.partition(" - ")[2].split()[0]
    return "an unknown file system"


def _first_match(pattern: str, path: Path) -> str | None:
    found = re.search(pattern, path.read_text("utf-8"))
    return found[1].strip() if found else None


def disk_floor(folder: Path, synchronous: str, commits: int) -> dict[str, float]:
    """Time commits of one row into a bare SQLite file: no queue on this disk can take single jobs faster."""
    taken_us = []
    with _bare_file(folder, synchronous) as commit:
        for _ in range(WAL_PAGES):
            commit()  # a log that still grows takes longer: one in use has its size
        for _ in range(commits):
            started_ns = time.perf_counter_ns()
            commit()
            taken_us.append((time.perf_counter_ns() - started_ns) / 1e3)
    return {
        "p50_us": percentile(taken_us, 50),
        "p99_us": percentile(taken_us, 99),
        "per_s": commits / sum(taken_us) * 1e6,
    }


def pick_up_floor(folder: Path, synchronous: str, quiet_s: Iterable[float]) -> list[float]:
    """Time, after each quiet, a commit of one row and a thread that it wakes: no durable job starts faster.

    Units: quiet_s in seconds; returns milliseconds.
    """
    calls, starts, taken_ms = SimpleQueue[bool](), SimpleQueue[int](), []

    def work() -> None:
        while calls.get():
            starts.put(time.perf_counter_ns())

    worker = threading.Thread(target=work)
    worker.start()
    try:
        with _bare_file(folder, synchronous) as commit:
            for seconds in quiet_s:
                time.sleep(seconds)
                called_ns = time.perf_counter_ns()
                commit()
                calls.put(True)
                taken_ms.append((starts.get() - called_ns) / 1e6)
    finally:
        calls.put(False)
        worker.join()
    return taken_ms


@contextmanager
def _bare_file(folder: Path, synchronous: str) -> Iterator[Callable[[], object]]:
    """Make a bare SQLite file; give what commits one row to it."""
    with closing(sqlite3.connect(folder / "floor.db", isolation_level=None)) as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal"
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, value BLOB)")
        yield lambda: connection.execute("INSERT INTO rows (value) VALUES (?)", (b"x" * 200,))


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


# Processes


def process_tree(*roots: int) -> list[int]:
    """Return the ids of processes and all their descendants that live."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        with suppress(OSError):
            children.setdefault(int(_stat(pid)[1]), []).append(pid)
    found = list(roots)
    for pid in found:  # it grows meanwhile
        found += children.get(pid, [])
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds that processes have used so far, with those of their children that have ended."""
    total_s = 0.0
    for pid in pids:
        with suppress(OSError):
            total_s += time.clock_gettime(_cpu_clock(pid)) + _ended_children_s(pid)
    return total_s


def _cpu_clock(pid: int) -> int:
    """Return what clock_getcpuclockid() does: the id of a process's CPU clock.

    It counts nanoseconds and keeps those of threads that have ended. /proc/PID/stat counts in ticks of 10 ms, as
    much as an idle process uses in a minute, and /proc/PID/schedstat is that of one living thread.
    """
    return ~pid << 3 | 2


def _ended_children_s(pid: int) -> float:
    """Return the CPU seconds of children that have ended; Linux tells those in ticks only."""
    return sum(map(int, _stat(pid)[13:15])) / os.sysconf("SC_CLK_TCK")


def pss_mb(pids: Iterable[int]) -> float:
    """Return the memory of processes in MB: their own, and their share of what they share."""
    total_kb = 0
    for pid in pids:
        with suppress(OSError):
            total_kb += int(_first_match(r"Pss:\s*(\d+) kB", PROC / f"{pid}/smaps_rollup") or 0)
    return total_kb * 1024 / 1e6


def kill_all_of(folder: Path) -> None:
    """Kill every process that was started for a folder: BENCHMARK_FOLDER of its environment lies in it."""
    for _ in range(3):  # one may start another meanwhile
        for pid in _all_pids():
            with suppress(OSError):
                if f"BENCHMARK_FOLDER={folder}/".encode() in (PROC / f"{pid}/environ").read_bytes():
                    os.kill(pid, signal.SIGKILL)


def _all_pids() -> list[int]:
    return [int(path.name) for path in PROC.glob("[0-9]*") if int(path.name) != os.getpid()]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on: [1] is the parent, [13] and [14] ended children's."""
    return (PROC / f"{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
