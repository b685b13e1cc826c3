"""Processes for the bodies of tasks with process=True: the parent starts them, calls them and ends them."""

from __future__ import annotations

import pickle
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from huey.exceptions import HueyException

from app.kit.engine.body.messages import Call, Start
from app.kit.engine.body.outcome import Outcome
from app.kit.engine.body.parent import START_WITHIN_S, BodyProcess, BodyProcessError
from app.kit.engine.careful_log import careful
from app.kit.engine.jobs import job as jobs
from app.kit.errors import PostroomError
from app.settings import Settings

if TYPE_CHECKING:
    from app.kit.engine.api.durable import DurableHuey

log = careful("postroom.queue")

IDLE_S = 60.0
"""A process that has had nothing to do for so long is ended; it takes some 50 MB."""
GRACE_S = 1.0
"""A body that can ask check_timeout() gets so much longer to leave by itself."""
OVERDUE_AFTER_S = START_WITHIN_S + 10.0
"""A worker whose process is so much past its time hangs itself: it can neither start nor kill it."""

Make = Callable[[Settings], "DurableHuey"]


class Unstorable:
    """Stands for a value that a body returned and no job can keep."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class BodyProcesses:
    """The processes of one queue: as many as bodies run at once, kept for the next body for a while."""

    def __init__(self, huey: Any, make: Make | None = None, settings: Settings | None = None) -> None:
        self._huey, self._make, self._settings = huey, make, settings
        self._lock = threading.Lock()
        self._unused: list[tuple[float, BodyProcess]] = []
        self._in_use = 0
        self._starts_ahead = False

    def run(self, task: Any, outcome: Outcome) -> Any:
        """Run a task's body and return its value (or an Unstorable).

        Raises: what the body raised; TaskTimeout after its time; BodyProcessError when its process died.
        """
        assert outcome.job is not None
        # What follows the body is the parent's affair: its tasks need not be known in the child.
        message = self._huey._registry.create_message(task)
        message = message._replace(on_complete=None, on_error=None, chord_config=None)
        payload = self._huey.serializer.serialize(message)
        call = Call(outcome.job, payload, type(task).__module__, task.timeout)
        with self._lock:
            self._in_use += 1
        try:
            process = self._take(call)
            answer = process.call(call, GRACE_S if task.context else 0)
            self._keep(process)
        except HueyException:
            outcome.deleted_keys += self._locks_of(task.id)
            raise
        finally:
            with self._lock:
                self._in_use -= 1
        outcome.progress = answer.progress
        if answer.retries is not None:
            task.retries, task.retry_delay = answer.retries, answer.retry_delay
        if answer.error is None:
            return self._huey.serializer.deserialize(answer.value)
        error = answer.error.unpack()
        if answer.is_value_refused:
            return Unstorable(error)
        raise error

    def end_unused(self, idle_s: float, keep: int = 0) -> None:
        """End the processes that have had nothing to do for so long, but for the newest that are to be kept."""
        with self._lock:
            border = time.monotonic() - idle_s
            of_age = [one for one in self._unused[: len(self._unused) - keep] if one[0] <= border]
            self._unused = [one for one in self._unused if one not in of_age]
        for _, process in of_age:
            process.kill()

    def keep_ready(self) -> None:
        """End the processes that nothing needs any more; start one before it is needed, if there is none."""
        self.end_unused(IDLE_S, keep=1)
        kinds = list(self._huey._registry._registry.values())
        modules = [kind.__module__ for kind in kinds if getattr(kind, "process", False)]
        if modules and self._make is not None and not (self._unused or self._in_use or self._starts_ahead):
            self._starts_ahead = True
            threading.Thread(
                target=self._start_ahead, args=(modules[0],), name="BodyAhead", daemon=True
            ).start()

    def _start_ahead(self, module: str) -> None:
        try:
            self._keep(self._start(module))
        except HueyException as error:
            log.warning(
                "A process for bodies cannot start: %s", error
            )  # and is not tried again before it must
        else:
            self._starts_ahead = False

    def _take(self, call: Call) -> BodyProcess:
        """Return the process that was used last, or a new one."""
        while True:
            with self._lock:
                if not self._unused:
                    break
                _, process = self._unused.pop()
            if process.is_alive:
                return process
        if self._make is None:
            raise BodyProcessError("the queue was not told how it is made in another process: see attach()")
        self._note_starting(call.job, True)
        process = self._start(call.module)
        self._note_starting(call.job, False)
        return process

    def _start(self, module: str) -> BodyProcess:
        return BodyProcess(self._huey, Start(pickle.dumps((self._make, self._settings)), module))

    def _note_starting(self, job: jobs.ClaimedJob, starting: bool) -> None:
        # A disk that is full changes at most how a death is counted.
        with suppress(PostroomError, sqlite3.Error):
            self._huey.database.write(lambda db: jobs.set_starting(db, job, starting), durable=False)

    def _keep(self, process: BodyProcess) -> None:
        if process.is_alive:
            with self._lock:
                self._unused.append((time.monotonic(), process))

    def _locks_of(self, uuid: str) -> list[str]:
        """Name what a body that was killed has locked: that goes with the job's end."""
        rows = self._huey.database.read("SELECT key FROM postroom_huey_data WHERE job = ?", (uuid,))
        return [row["key"] for row in rows]
