"""gunicorn's processes watch each other: a worker hears that its parent is gone, the parent ends one that hangs."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

log = logging.getLogger("postroom")

MOST_BETWEEN_LOOKS_S = 5.0
"""In what is longer the parent did not run either: the machine slept, or its processes were stopped."""


class Lifeline:
    """A pipe of which the parent alone has the end that is written to: the parent's death closes it."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()

    def hold(self) -> None:
        """In a worker: keep the end from which the parent's death is heard."""
        os.close(self._write_end)

    def fileno(self) -> int:
        """Name the end that becomes readable when the parent is gone."""
        return self._read_end


class HangWatch:
    """Ends workers that hang, by the time for which they were silent while the parent looked."""

    def __init__(self) -> None:
        self._looked_at = time.monotonic()
        self._silent: dict[int, tuple[float, float]] = {}
        """Of each process: its last sign of life, and for how long it has been silent since."""

    def look(self, workers: Mapping[int, Any]) -> None:
        """Kill every worker that has shown no sign of life for as long as it said that it may be."""
        now = time.monotonic()
        passed_s, self._looked_at = min(now - self._looked_at, MOST_BETWEEN_LOOKS_S), now
        before, self._silent = self._silent, {}
        for pid, worker in workers.items():
            sign = worker.tmp.last_update()
            last_sign, silent_s = before.get(pid, (sign, 0.0))
            silent_s = silent_s + passed_s if sign == last_sign else 0.0
            self._silent[pid] = sign, silent_s
            if silent_s > _patience_s(worker):
                log.critical(
                    "Process %d has hung for %.0f s: it is killed, and another takes its place", pid, silent_s
                )
                os.kill(pid, signal.SIGKILL)


def set_patience(worker: Any, patience_s: float) -> None:
    """In a worker: say for how long it may be silent; a body in C can hold the interpreter while it runs."""
    with suppress(ValueError):  # a second signal, after gunicorn closed the file: nobody reads it any more
        os.pwrite(worker.tmp.fileno(), f"{patience_s:<16g}".encode(), 0)


def _patience_s(worker: Any) -> float:
    said = os.pread(worker.tmp.fileno(), 16, 0)
    return float(said) if said else math.inf
