"""What the crash tests share: a site that dies, what it leaves behind, and what its bodies noted."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests.kit.site_process import GUNICORN, Site

CRASH_SITE = [*GUNICORN, "tests.kit.crash_site:app"]
"""The site that kills itself at named points."""
WORKER = [
    sys.executable, "-c",
    "import sys, tests.kit.crash_site, main; sys.argv = ['main.py', 'worker']; sys.exit(main.main(['worker']))",
]  # fmt: skip
"""`python3 main.py worker`, which knows the tasks of the crash site too."""
PATIENCE_S = 30.0
LOOK_S = 0.01


def until(is_so: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> float:
    """Return once something is so, and how long that took; no event tells of another process."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() < began + within_s, f"not within {within_s:g} s: {what}"
        time.sleep(LOOK_S)
    return time.monotonic() - began


@dataclass(frozen=True)
class Note:
    """A line that a body wrote: what it did, in which process, when (unix seconds)."""

    what: str
    marker: str
    pid: int
    at: float


class Notes:
    """What the bodies wrote, in the order in which they did."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, what: str) -> list[Note]:
        """Return the notes of one kind."""
        lines = [line.split() for line in self.path.read_text().splitlines()]
        return [Note(kind, marker, int(pid), float(at)) for kind, marker, pid, at in lines if kind == what]

    def count(self, what: str) -> Counter[str]:
        """Count the notes of one kind by marker."""
        return Counter(note.marker for note in self.read(what))


@dataclass(frozen=True)
class Remains:
    """What a site that died left in its database."""

    integrity: str
    jobs: dict[str, dict[str, Any]]

    def ids(self, *states: str) -> set[str]:
        """Name the jobs that were in one of these states."""
        return {uuid for uuid, job in self.jobs.items() if job["state"] in states}


def look_at(data_dir: Path) -> Remains:
    """Read the database of a site that is dead, from a copy, so that the next start finds it as it was left."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(data_dir / f"postroom.db{suffix}", folder)
        with closing(sqlite3.connect(Path(folder) / "postroom.db")) as connection:
            connection.row_factory = sqlite3.Row
            integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
            exists = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'postroom_jobs'").fetchone()
            rows = connection.execute("SELECT * FROM postroom_jobs").fetchall() if exists else []
    return Remains(integrity, {row["uuid"]: dict(row) for row in rows})


class CrashSite(Site):
    """The crash site, with what its tests ask of it."""

    def __init__(self, folder: Path, command: list[str] | None = None, **environ: str) -> None:
        self.notes = Notes(folder / "notes.txt")
        self.notes.path.touch()
        self.clock = folder / "clock.txt"
        # Just after a minute's beginning, so that no test sees a minute end but those that move the clock.
        self.first_offset_s = 5 - time.time() % 60
        self.set_clock(0)
        environ = {"NOTES": str(self.notes.path), "CLOCK": str(self.clock)} | environ
        super().__init__(folder / "data", command or CRASH_SITE, **environ)

    def __enter__(self) -> CrashSite:
        super().__enter__()
        return self

    def start_steps(self, markers: list[str], seconds: float, **more: Any) -> int:
        """Enqueue jobs that note their steps; return the process that took them."""
        status, answer = self.post("/api/test/steps", {"markers": markers, "seconds": seconds, **more})
        assert status == 200, answer
        return int(answer["pid"])

    def set_clock(self, offset_s: float) -> None:
        """Move the clock of every process of the site by so much from where it stood at the start."""
        beside = self.clock.with_suffix(".new")
        beside.write_text(str(self.first_offset_s + offset_s))
        beside.replace(self.clock)

    def wait_for_notes(self, what: str, count: int) -> None:
        """Wait until that many jobs noted something."""
        until(lambda: len(self.notes.count(what)) >= count, f"{count} notes of a job's {what}")

    def die_at(self, point: str, ask: Callable[[], object] | None = None) -> Remains:
        """Arm a point, provoke it, wait for the death; return what is left."""
        with contextlib.suppress(OSError, HTTPException):
            self.post("/api/test/die-at", {"point": point})
            if ask is not None:
                ask()
        return self.wait_for_death()

    def wait_for_death(self) -> Remains:
        """Wait until no process of the site is left; return what is left."""
        assert self.process is not None
        self.process.wait(PATIENCE_S)
        until(lambda: not self.has_running_processes(), "the end of every process")
        return look_at(self.data_dir)

    def has_running_processes(self) -> bool:
        """Say whether any process of the site still runs: those that only wait to be buried do not count."""
        assert self.process is not None
        if not Path("/proc/self/stat").exists():
            return self.has_processes()
        states = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
                states += [state] if int(group) == self.process.pid else []
        return any(state not in "ZX" for state in states)

    def is_idle(self) -> bool:
        """Say whether no job waits or runs."""
        counts = self.counts()
        return counts["ready"] + counts["running"] + counts["scheduled"] == 0

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the database of the running site."""
        uri = f"{(self.data_dir / 'postroom.db').as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
            return connection.execute(sql, parameters).fetchall()


def is_alive(pid: int) -> bool:
    """Say whether a process lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
