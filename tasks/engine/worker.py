"""A worker thread: it claims, runs and ends jobs, and sleeps on the bell."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from huey.consumer import Worker

from app.errors import DatabaseBusyError, DatabaseUnusableError
from tasks.engine import jobs
from tasks.engine.running import Ended

if TYPE_CHECKING:
    from tasks.engine.consumer import EmbeddedConsumer
    from tasks.engine.durable import DurableHuey

log = logging.getLogger("postroom.consumer")

PAUSE_AFTER_ERROR_S = 1.0
PAUSE_NEAR_THE_END_S = 0.1
ASIDE_S = 0.005
"""How long a worker leaves tiny bodies to another before it looks how that one gets on."""
QUICK_ENDS = 20
"""Fewer ends in that time, and bodies are not tiny: they wait for something, and go better together."""
STAY_S = 0.25
"""For so long a worker does not step aside again if it was in vain."""


@dataclass(frozen=True, slots=True)
class Busy:
    """What a worker runs, since when, and by when it should have ended. Units: on time.monotonic()."""

    job: jobs.ClaimedJob
    since: float
    until: float


class BellWorker(Worker):
    """Claims and runs jobs, one at a time (or a batch); sleeps on the bell."""

    def __init__(self, huey: DurableHuey, stop_flag: threading.Event, consumer: EmbeddedConsumer) -> None:
        super().__init__(huey, stop_flag, default_delay=1, max_delay=1, backoff=1)
        self.consumer = consumer
        self.busy: Busy | None = None
        self.ends = 0
        self._stays_until = -math.inf

    def initialize(self) -> None:
        """Call the start-up hooks, in the context in which bodies run."""
        if self.huey._startup:
            self._in_context(super().initialize)

    def shutdown(self) -> None:
        """Call the shutdown hooks, in the context in which bodies run."""
        if self.huey._shutdown:
            self._in_context(super().shutdown)

    def _in_context(self, call_hooks: Callable[[], None]) -> None:
        try:
            with self.huey.app_context():
                call_hooks()
        except Exception:
            log.exception("The hooks of a worker could not be called")

    def loop(self, now: Any = None) -> None:
        """Claim and run until nothing is ready, then wait to be handed a job, or for the bell."""
        seen = self.huey.ready_bell.rings
        try:
            claimed = self.huey.claim(*self._who(), self.huey.rules())
        except Exception:
            log.exception("No job could be claimed; trying again")
            self.stop_flag.wait(PAUSE_AFTER_ERROR_S)
            return
        while True:
            while claimed:
                began = time.monotonic()
                self.busy = Busy(claimed[0], began, began + (claimed[0].timeout_s or math.inf))
                ended = self.huey.run(claimed)
                seen = self.huey.ready_bell.rings
                steps_aside = self._step_aside()
                claimed = self._finish(ended, None if steps_aside else self._who())
                self.ends += 1
                if steps_aside:
                    self._stand_aside()
                    return
            self.busy = None
            if self.stop_flag.is_set():
                return
            claimed = self.huey.ready_bell.wait_for_jobs(seen, self._who())
            if not claimed:
                return

    def _who(self) -> tuple[str, str]:
        return self.consumer.instance.id, threading.current_thread().name

    def _step_aside(self) -> bool:
        """Say whether this worker stops for a moment, since another gets through tiny bodies faster alone.

        Where no commit waits for the disk, threads with tiny bodies only take the interpreter from each other.
        """
        busy, now = self.busy, time.monotonic()
        assert busy is not None
        if self.huey.database.synchronous == "FULL" or now - busy.since > ASIDE_S or now < self._stays_until:
            return False
        self.busy = None  # before the look at the others: of two that look at the same time one goes on
        if self.consumer.has_quick_worker(now - ASIDE_S):
            return True
        self.busy = busy
        return False

    def _stand_aside(self) -> None:
        """Leave the work to the others for as long as they end one tiny body after the other."""
        ends, stays_s = self.consumer.ends(), STAY_S
        while not self.stop_flag.wait(ASIDE_S):
            before, ends = ends, self.consumer.ends()
            if ends - before < QUICK_ENDS:
                break
            stays_s = 0
        self._stays_until = time.monotonic() + stays_s

    def _finish(self, ended: list[Ended], claim_for: tuple[str, str] | None) -> list[jobs.ClaimedJob]:
        """Write how jobs ended, until it is written: a full disk must not make them run again."""
        while True:
            if self.stop_flag.is_set():
                claim_for = None
            try:
                return list(self.huey.finish(ended, claim_for, self.huey.rules()))
            except (DatabaseBusyError, DatabaseUnusableError, sqlite3.OperationalError, MemoryError) as error:
                log.error("The end of %d jobs is not written yet (%s); trying again", len(ended), error)
            except Exception as error:
                log.exception("The end of %d jobs cannot be written: they fail", len(ended))
                ended = [(job, self.huey.failed_outcome(job, error)) for job, _ in ended]
            if self.stop_flag.wait(PAUSE_AFTER_ERROR_S):
                if self.consumer.is_late():
                    return []
                time.sleep(PAUSE_NEAR_THE_END_S)
