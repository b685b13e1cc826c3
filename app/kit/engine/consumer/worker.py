"""A worker thread: it claims, runs and ends jobs, and sleeps on the bell."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from huey.consumer import Worker
from huey.exceptions import HueyException

from app.kit.engine.body import forks
from app.kit.engine.careful_log import careful
from app.kit.engine.consumer.run import Ended
from app.kit.engine.error_words import message_of, words_of
from app.kit.engine.jobs import job as jobs
from app.kit.errors import DatabaseBusyError, DatabaseUnusableError

if TYPE_CHECKING:
    from app.kit.engine.api.durable import DurableHuey
    from app.kit.engine.consumer.consumer import EmbeddedConsumer

log = careful("postroom.consumer")

PAUSE_AFTER_ERROR_S = 1.0
PAUSE_NEAR_THE_END_S = 0.1
COMPLAIN_EVERY_S = 60.0
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


class WorkerStumbledError(HueyException):
    """What was claimed could not be run, or not be ended, for an error of the worker's own."""


class BellWorker(Worker):
    """Claims and runs jobs, one at a time (or a batch); sleeps on the bell."""

    def __init__(self, huey: DurableHuey, stop_flag: threading.Event, consumer: EmbeddedConsumer) -> None:
        super().__init__(huey, stop_flag, default_delay=1, max_delay=1, backoff=1)
        self.consumer = consumer
        self.busy: Busy | None = None
        self.unwritten: str | None = None
        """Why the end of what it ran is not written yet, while it waits for that."""
        self.ends = 0
        self._held: list[jobs.ClaimedJob] = []
        self._ended: list[Ended] = []
        self._stumbled_over = ""
        self._silent_until = -math.inf
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
            with forks.kept_inside(), self.huey.app_context():
                call_hooks()
        except BaseException:
            log.exception("The hooks of a worker could not be called")

    def loop(self, now: Any = None) -> None:
        """Claim and run until nothing is ready, then wait to be handed a job, or for the bell.

        Whatever befalls a worker between two jobs, it goes on: what it had claimed ends in view.
        """
        try:
            if self._held:
                self._end_what_is_held()
            self._work()
        except BaseException as error:
            log.exception("A worker stumbled; it goes on")
            self._stumbled_over = words_of(error)
            self.stop_flag.wait(PAUSE_AFTER_ERROR_S)

    def _work(self) -> None:
        seen = self.huey.ready_bell.rings
        try:
            self._held = self.huey.claim(*self._who(), self.huey.rules())
        except Exception as error:
            self._complain("No job can be claimed (%s)", words_of(error))
            self.stop_flag.wait(PAUSE_AFTER_ERROR_S)
            return
        while True:
            while self._held:
                began = time.monotonic()
                self.busy = Busy(self._held[0], began, began + (self._held[0].timeout_s or math.inf))
                self._ended = self.huey.run(self._held)
                seen = self.huey.ready_bell.rings
                steps_aside = self._step_aside()
                self._held = self._finish(self._ended, None if steps_aside else self._who())
                self._ended = []
                self.ends += 1
                if steps_aside:
                    self._stand_aside()
                    return
            self.busy = None
            if self.stop_flag.is_set():
                return
            self._held = list(self.huey.ready_bell.wait_for_jobs(seen, self._who()))
            if not self._held:
                return

    def _end_what_is_held(self) -> None:
        """End what was claimed when something went wrong: as it ended, or as failed if its body never did."""
        error = WorkerStumbledError(f"its worker stumbled over {self._stumbled_over}")
        ended = self._ended or [(job, self.huey.failed_outcome(job, error)) for job in self._held]
        self._finish(ended, None)
        self._held, self._ended, self.busy = [], [], None

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
        if self.busy is not None:
            # It may take long until it can be written, but no body hangs.
            self.busy = replace(self.busy, until=math.inf)
        failed = False
        try:
            while True:
                if self.stop_flag.is_set():
                    claim_for = None
                try:
                    return list(self.huey.finish(ended, claim_for, self.huey.rules()))
                except BaseException as error:
                    self.unwritten = message_of(error)
                    if _may_pass(error):
                        self._complain(
                            "The end of %d jobs is not written yet (%s)", len(ended), self.unwritten
                        )
                    else:
                        log.exception("The end of %d jobs cannot be written: they fail", len(ended))
                        fail = self.huey.bare_failure if failed else self.huey.failed_outcome
                        ended, failed = [(job, fail(job, error)) for job, _ in ended], True
                if self.stop_flag.wait(PAUSE_AFTER_ERROR_S):
                    if self.consumer.is_late():
                        return []
                    time.sleep(PAUSE_NEAR_THE_END_S)
        finally:
            self.unwritten = None

    def _complain(self, sentence: str, *what: object) -> None:
        """Log what keeps this worker waiting, now and then: it tries again every second, for days if need be."""
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + COMPLAIN_EVERY_S
            log.error(sentence + "; trying again until it can be", *what)


def _may_pass(error: BaseException) -> bool:
    """Say whether a write failed for what the disk, the file or the memory is like now, and not for what it was."""
    passing = (DatabaseBusyError, DatabaseUnusableError, sqlite3.OperationalError, MemoryError)
    return isinstance(error, passing) or type(error) is sqlite3.DatabaseError  # such is a damaged file
