"""The consumer inside the web process: Huey's worker threads with a bell in place of polling."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from huey.consumer import Consumer, Worker

from app.errors import DatabaseBusyError, DatabaseUnusableError
from tasks.engine import jobs
from tasks.engine.body_processes import IDLE_S
from tasks.engine.claims import SUSPECT_DEATHS
from tasks.engine.clock import Clock
from tasks.engine.instances import Instance, file_lock, try_lock
from tasks.engine.running import Ended

if TYPE_CHECKING:
    from tasks.engine.durable import DurableHuey

log = logging.getLogger("postroom.consumer")

STOP_WITHIN_S = 8.0
"""From the signal on, bodies may take this long to finish; hosts kill after about ten seconds."""
LOOK_FOR_THE_PLACE_S = 1.0
PAUSE_AFTER_ERROR_S = 1.0
PAUSE_NEAR_THE_END_S = 0.1


@dataclass(frozen=True, slots=True)
class Busy:
    """What a worker runs, and by when it should have ended. Units: until on time.monotonic()."""

    job: jobs.ClaimedJob
    until: float


class BellWorker(Worker):
    """Claims and runs jobs, one at a time (or a batch); sleeps on the bell."""

    def __init__(self, huey: DurableHuey, stop_flag: threading.Event, consumer: EmbeddedConsumer) -> None:
        super().__init__(huey, stop_flag, default_delay=1, max_delay=1, backoff=1)
        self.consumer = consumer
        self.busy: Busy | None = None

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
        """Claim and run until nothing is ready, then wait for the bell."""
        seen = self.huey.ready_bell.rings
        try:
            claimed = self.huey.claim(*self._who(), self.huey.rules())
        except Exception:
            log.exception("No job could be claimed; trying again")
            self.stop_flag.wait(PAUSE_AFTER_ERROR_S)
            return
        while claimed:
            self.busy = Busy(claimed[0], time.monotonic() + (claimed[0].timeout_s or math.inf))
            ended = self.huey.run(claimed)
            seen = self.huey.ready_bell.rings
            claimed = self._finish(ended)
        self.busy = None
        if not self.stop_flag.is_set():
            self.huey.ready_bell.wait(seen)

    def _who(self) -> tuple[str, str]:
        return self.consumer.instance.id, threading.current_thread().name

    def _finish(self, ended: list[Ended]) -> list[jobs.ClaimedJob]:
        """Write how jobs ended, until it is written: a full disk must not make them run again."""
        while True:
            claim_for = None if self.stop_flag.is_set() else self._who()
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


class EmbeddedConsumer(Consumer):
    """A Huey consumer that lives in a host process: no signal handlers, started after the fork.

    Among the web workers of one data folder one consumes; the others wait for its place.
    """

    def __init__(self, huey: DurableHuey, workers: int = 4, **options: Any) -> None:
        self.instance = Instance(huey.database, huey.now, huey.free)
        self._place: FileLock | None = None
        self._supervisor: threading.Thread | None = None
        self._stop_asked = threading.Event()
        self._stop_asked_at: float | None = None
        self._consuming = False
        self._recycling = False
        self.recycle: Callable[[], None] | None = None
        super().__init__(huey, workers=workers, **options)
        self._stop_flag_timeout = self._health_check_interval

    def _create_worker(self) -> BellWorker:
        return BellWorker(self.huey, self.stop_flag, self)

    def _create_scheduler(self) -> Clock:
        return Clock(self.huey, self.stop_flag, self)

    def _set_signal_handlers(self) -> None:
        """Leave the signals to the host: gunicorn, or main.py."""

    def start(self, always: bool = False) -> None:
        """Join the instances and run jobs: at once with `always`, else when the folder's place is free."""
        self.huey.end_calls.open()
        self.instance.join(threads=0)
        if self.instance.sweep():
            log.warning("Jobs of a process that is gone are ready again")
        self.huey.has_siblings = bool(self.instance.others())
        # Made here and not before: the app may be made before the fork, and no lock goes through one.
        self._place = None if always else file_lock(self.huey.database.path.parent / "consumer.lock")
        self._take_place()
        self._supervisor = threading.Thread(target=self._supervise, name="Consumer", daemon=True)
        self._supervisor.start()

    def stop_soon(self) -> None:
        """Ask for the end, from which the 8 s for running bodies count; safe in a signal handler."""
        if self._stop_asked_at is None:  # a second signal must not meet the first one inside set()
            self._stop_asked_at = time.monotonic()
            self._stop_asked.set()

    def stop(self, graceful: bool = True) -> None:
        """Stop claiming, let running bodies finish in what is left of 8 s, and leave.

        A body that still runs then keeps its claim until the process is gone; whoever comes next frees it.
        """
        self.stop_soon()
        if self._supervisor is None:
            return
        self._supervisor.join(self._left_s() + 1)
        for thread in [] if self._recycling else self._threads():
            thread.join(self._left_s())
        self.huey.body_processes.end_unused(0)
        self.huey.notify_interrupted_tasks()
        if not any(thread.is_alive() for thread in self._threads()):
            self.instance.leave()

    def is_late(self) -> bool:
        """Say whether the time for an orderly end is over."""
        return self._stop_asked_at is not None and self._left_s() <= 0

    def overdue(self) -> list[jobs.ClaimedJob]:
        """Name what the workers run longer than its task's timeout allows; a batch by its first job."""
        now = time.monotonic()
        busy = [worker.busy for worker, _ in self.worker_threads if worker.busy is not None]
        return [one.job for one in busy if one.until < now]

    def recycle_if_stuck(self) -> None:
        """Have the host replace this process when no worker can take a job any more: a thread cannot be stopped.

        The jobs that hang count a death each, and come to the shelf after a few.
        """
        if self.recycle is None or self._recycling or not self._consuming:
            return
        overdue = self.overdue()
        # While a suspect runs nothing else may start, so that one alone can hold up all the others.
        suspect = any(job.deaths >= SUSPECT_DEATHS for job in overdue)
        if suspect or len(overdue) == len(self.worker_threads):
            log.error("%d overdue jobs hold up all the others: this process is to be replaced", len(overdue))
            self._recycling = True
            self.recycle()

    def is_idle(self) -> bool:
        """Say whether no worker of this process runs anything."""
        return all(worker.busy is None for worker, _ in self.worker_threads)

    def is_consuming(self) -> bool:
        """Say whether worker threads of this process live."""
        return self._consuming and any(thread.is_alive() for _, thread in self.worker_threads)

    def _take_place(self) -> None:
        if self._place is None or try_lock(self._place):
            self._consume()

    def _leave_place(self) -> None:
        """Let the next process consume, while bodies that still run here come to their end."""
        if self._place is not None:
            self._place.release()

    def _consume(self) -> None:
        # Made anew: the app may be made before the fork, after which Python takes its threads for ended.
        self.scheduler = self._create_process(self._create_scheduler(), "Scheduler")
        workers = [self._create_worker() for _ in range(self.workers)]
        self.worker_threads = [
            (worker, self._create_process(worker, f"Worker-{number}"))
            for number, worker in enumerate(workers, 1)
        ]
        self._consuming = True
        super().start()
        self.instance.set_threads(self.workers)

    def _supervise(self) -> None:
        """Take the place when it is free, mend dead threads, and start the stop when it is asked for."""
        while not self._stop_asked.wait(self._stop_flag_timeout if self._consuming else LOOK_FOR_THE_PLACE_S):
            try:
                if self._consuming:
                    self.check_worker_health()
                    self.huey.body_processes.end_unused(IDLE_S)
                else:
                    self.instance.sweep()
                    self.huey.has_siblings = bool(self.instance.others())
                    self._take_place()
            except Exception:
                log.exception("The consumer's supervisor stumbled; it goes on")
        self.stop_flag.set()
        self.huey.end_calls.close()
        self.huey.ready_bell.ring_all()
        self.huey.clock_bell.ring_all()
        if self._recycling:
            return  # what hangs dies: it was not merely cut off
        try:
            self.instance.set_stopping()
        except Exception:
            log.exception("This instance could not be marked as stopping")
        self._leave_place()

    def _threads(self) -> list[threading.Thread]:
        return [self.scheduler, *(thread for _, thread in self.worker_threads)] if self._consuming else []

    def _left_s(self) -> float:
        asked_at = self._stop_asked_at or time.monotonic()
        return max(0.0, asked_at + STOP_WITHIN_S - time.monotonic())
