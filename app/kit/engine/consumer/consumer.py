"""The consumer inside the web process: Huey's worker threads with a bell in place of polling, and its clock."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from huey.consumer import Consumer

from app.kit.engine.api.wrapper import DEFAULT_TIMEOUT_S
from app.kit.engine.careful_log import careful
from app.kit.engine.consumer.clock import Clock
from app.kit.engine.consumer.instances import Instance, file_lock, try_lock
from app.kit.engine.consumer.worker import BellWorker
from app.kit.engine.jobs import job as jobs
from app.kit.engine.jobs.claim import SUSPECT_DEATHS

if TYPE_CHECKING:
    from app.kit.engine.api.durable import DurableHuey

log = careful("postroom.consumer")

STOP_WITHIN_S = 8.0
"""From the signal on, bodies may take this long to finish; hosts kill after about ten seconds."""
AT_THE_END_S = 1.0
"""What else runs in the process may take so much longer."""
LOOK_FOR_THE_PLACE_S = 1.0
MOST_BETWEEN_LOOKS_S = 5.0
"""The clock looks every second. In what is longer this process did not run, and no body had that time."""


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
        self._clock: Clock | None = None
        self.recycle: Callable[[], None] | None = None
        self._looked_at = math.inf
        self._freezes: deque[tuple[float, float]] = deque(maxlen=100)
        """When this process ran again, and for how long it had not."""
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
        self.huey.heed_the_file()
        self.instance.join(0, self.huey.own_task_names())
        self.huey.lock_owner, self.huey.consumes_since = self.instance.id, self.huey.now()
        if self.instance.sweep():
            log.warning("Jobs of a process that is gone are ready again")
        self.huey.has_siblings = bool(self.instance.others())
        self.huey.consumer_troubles, self.huey.consumer_pid = self.troubles, os.getpid()
        # Made here and not before: the app may be made before the fork, and no lock goes through one.
        self._place = None if always else file_lock(self.huey.database.path.parent / "consumer.lock")
        self._take_place()
        self._start_supervisor()

    def see_to_supervisor(self) -> None:
        """Replace the thread that looks after the others, if it has died."""
        is_dead = self._supervisor is not None and not self._supervisor.is_alive()
        if is_dead and not self.stop_flag.is_set():
            log.error("The consumer's supervisor has died; another takes its place")
            self._start_supervisor()

    def _start_supervisor(self) -> None:
        supervisor = threading.Thread(target=self._supervise, name="Consumer", daemon=True)
        supervisor.start()
        self._supervisor = supervisor

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
        self.huey.consumer_pid = None
        if not any(thread.is_alive() for thread in self._threads()):
            self.instance.leave()

    def stop_for_good(self) -> None:
        """Stop, and see that the process ends within 9 s of the signal, whatever threads a body left behind."""
        self.stop()
        if self._supervisor is not None:
            # A pool of threads that has something to do would keep Python from ending; this one does not.
            end = threading.Timer(self._left_s() + AT_THE_END_S, os._exit, [0])
            end.daemon = True
            end.start()

    def is_late(self) -> bool:
        """Say whether the time for an orderly end is over."""
        return self._stop_asked_at is not None and self._left_s() <= 0

    def overdue(self) -> list[jobs.ClaimedJob]:
        """Name what the workers run longer than its task's timeout allows; a batch by its first job."""
        now = time.monotonic()
        busy = [worker.busy for worker, _ in self.worker_threads if worker.busy is not None]
        freezes = list(self._freezes)
        lost_s = [sum(seconds for at, seconds in freezes if at > one.since) for one in busy]
        return [one.job for one, lost in zip(busy, lost_s, strict=True) if one.until + lost < now]

    def recycle_if_stuck(self) -> None:
        """Have the host replace this process when no worker can take a job any more: a thread cannot be stopped.

        The jobs that hang count a death each, and come to the shelf after a few.
        """
        looked_at, self._looked_at = self._looked_at, time.monotonic()
        if self._looked_at - looked_at > MOST_BETWEEN_LOOKS_S:
            self._freezes.append((self._looked_at, self._looked_at - looked_at))
        if self.recycle is None or self._recycling or not self._consuming:
            return
        overdue = self.overdue()
        # While a suspect runs nothing else may start, so that one alone can hold up all the others.
        suspect = any(job.deaths >= SUSPECT_DEATHS for job in overdue)
        if suspect or len(overdue) == len(self.worker_threads):
            log.error("%d overdue jobs hold up all the others: this process is to be replaced", len(overdue))
            self._recycling = True
            self.recycle()

    def longest_timeout_s(self) -> float:
        """Say how long a body may hold this process's interpreter before it is overdue."""
        kinds = self.huey._registry._registry.values()
        here = [kind for kind in kinds if not getattr(kind, "process", False)]
        return max((kind.default_timeout or math.inf for kind in here), default=DEFAULT_TIMEOUT_S)

    def troubles(self) -> list[str]:
        """Return a sentence for each thing that ails this process and that its tables cannot tell."""
        if not self._consuming or self.stop_flag.is_set():
            return []
        unwritten = [worker.unwritten for worker, _ in self.worker_threads if worker.unwritten is not None]
        threads = [*self._threads(), *filter(None, [self._supervisor])]
        dead = [thread.name for thread in threads if thread.ident and not thread.is_alive()]
        said = []
        if unwritten:
            said.append(
                f"{len(unwritten)} workers wait to write how their jobs ended ({unwritten[0]}). They go on by "
                "themselves as soon as it can be written, and nothing runs twice for it."
            )
        if dead:
            said.append(f"Threads have died: {', '.join(dead)}. They are replaced within seconds.")
        return said

    def ends(self) -> int:
        """Count the calls of bodies that have ended so far."""
        return sum(worker.ends for worker, _ in self.worker_threads)

    def has_quick_worker(self, since: float) -> bool:
        """Say whether a worker began a body after a moment, on time.monotonic()."""
        busy = [worker.busy for worker, _ in self.worker_threads]
        return any(one is not None and one.since > since for one in busy)

    def is_idle(self) -> bool:
        """Say whether no worker of this process runs anything."""
        return all(worker.busy is None for worker, _ in self.worker_threads)

    def is_started(self) -> bool:
        """Say whether this process runs jobs, or waits for the place of the one that does."""
        return self._supervisor is not None

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
        self._clock = self._create_scheduler()
        self.scheduler = self._create_process(self._clock, "Scheduler")
        self.worker_threads = [self._make_worker(number) for number in range(1, self.workers + 1)]
        self._consuming = True
        super().start()
        self.instance.set_threads(self.workers)

    def _make_worker(self, number: int) -> tuple[BellWorker, threading.Thread]:
        worker = self._create_worker()
        return worker, self._create_process(worker, f"Worker-{number}")

    def check_worker_health(self) -> None:
        """Replace threads that have died, and free what a dead worker had claimed: that is a death of the job."""
        for place, (_, dead) in enumerate(self.worker_threads):
            if not dead.is_alive():
                log.error("%s has died; another takes its place", dead.name)
                self.huey.free(self.instance.id, dead.name)
                heir = self._make_worker(place + 1)
                heir[1].start()
                self.worker_threads[place] = heir
                self.huey.ready_bell.ring_all()
        if not self.scheduler.is_alive():
            log.error("The clock has died; another takes its place")
            # The same clock in a new thread: if it could not let go of its lock, it has it still.
            self.scheduler = self._create_process(self._clock, "Scheduler")
            self.scheduler.start()

    def _supervise(self) -> None:
        """Take the place when it is free, mend dead threads, and start the stop when it is asked for."""
        while not self._stop_asked.wait(self._stop_flag_timeout if self._consuming else LOOK_FOR_THE_PLACE_S):
            try:
                if self._consuming:
                    self.check_worker_health()
                    self.huey.body_processes.keep_ready()
                else:
                    self.instance.sweep()
                    self.huey.has_siblings = bool(self.instance.others())
                    self._take_place()
            except BaseException:
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
