"""The processes that run a contestant's jobs, and the wait for what they do. Standard library only."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.kit.benchmarks.marks import MARK_BYTES
from tests.kit.benchmarks.rivals import PROJECT_DIR

PROBE = -1
"""The number of the job that tells that the workers are up."""
STALLED_AFTER_S = 60.0
STOPS_WITHIN_S = 10.0
LOOK_S = 0.02


class Workers:
    """Processes that run jobs; without commands they are run in this one."""

    def __init__(self, commands: list[list[str]], environ: Mapping[str, str] = os.environ) -> None:
        self.marks = Path(environ["BENCHMARK_MARKS"])
        self.log = self.marks.with_name("workers.log")
        self.probes = 0
        self.processes = []
        with self.log.open("ab") as log:
            for command in commands:
                self.processes.append(
                    subprocess.Popen(
                        command,
                        cwd=PROJECT_DIR,
                        env=environ,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )

    def wait_for_marks(self, count: int) -> None:
        """Return once so many marks are written; it is an error when there come no more for a minute."""
        seen, seen_at = -1, time.monotonic()
        while (found := self._found()) < count:
            if found != seen:
                seen, seen_at = found, time.monotonic()
            if any(process.poll() is not None for process in self.processes):
                self._fail("a worker ended", found, count)
            if time.monotonic() > seen_at + STALLED_AFTER_S:
                self._fail("nothing happens any more", found, count)
            time.sleep(LOOK_S)

    def stop(self) -> None:
        """End them: SIGTERM, and after 10 s SIGKILL for all that they started."""
        for process in self.processes:
            process.terminate()
        deadline = time.monotonic() + STOPS_WITHIN_S
        for process in self.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _found(self) -> int:
        return self.marks.stat().st_size // MARK_BYTES if self.marks.exists() else 0

    def _fail(self, what: str, found: int, count: int) -> None:
        said = self.log.read_text("utf-8", "replace").splitlines()[-1:]
        raise AssertionError(f"{what} after {found} of {count} runs; the workers last said {said}")


@contextmanager
def working(contestant: Any, is_probed: bool = True) -> Iterator[Workers]:
    """Have jobs run while the block runs, which begins when a first job has run (unless `is_probed` is False)."""
    if hasattr(contestant, "consuming"):
        with contestant.consuming():
            yield _probed(contestant, Workers([]), is_probed)
        return
    workers = Workers(contestant.WORKERS)
    try:
        yield _probed(contestant, workers, is_probed)
    finally:
        workers.stop()


def _probed(contestant: Any, workers: Workers, is_probed: bool) -> Workers:
    if is_probed:
        workers.probes = 1
        contestant.enqueue(PROBE)
        workers.wait_for_marks(1)
    return workers
