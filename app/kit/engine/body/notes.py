"""Huey around a body: what it does there is noted, and written with the job's end in one commit."""

from __future__ import annotations

import copy
import datetime as dt
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from huey import Huey
from huey.utils import Error

from app.kit.database.file import Database
from app.kit.engine.api import revoking
from app.kit.engine.api.wrapper import DEFAULT_MAX_DELAY_S, BodyExitError, let_go, may_retry
from app.kit.engine.body import chords, forks, threads as body_threads
from app.kit.engine.body.batch import run_at
from app.kit.engine.body.here import Here
from app.kit.engine.body.messages import traceback_of
from app.kit.engine.body.outcome import ENDED_BY_SIGNAL, Outcome
from app.kit.engine.body.processes import OVERDUE_AFTER_S, BodyProcesses, Unstorable
from app.kit.engine.body.progress import Progress, as_text
from app.kit.engine.careful_log import careful
from app.kit.engine.error_words import MAX_ERROR_CHARS, trace_of, words_of
from app.kit.engine.jobs import enqueue as arrivals, job as jobs
from app.kit.engine.jobs.bells import EndCalls
from app.kit.engine.jobs.upkeep import Ages
from app.kit.engine.times import naive_utc, unix_time
from app.kit.errors import JobTooLargeError
from app.kit.host.clock import clock

log = careful("postroom.queue")


class NotingHuey(Huey):
    """Runs bodies. Huey's own code around a body stores, enqueues and retries into an Outcome instead."""

    now: Callable[[], float] = clock
    max_job_bytes = 262_144
    ages = Ages()
    end_calls: EndCalls
    lock_owner: str | None = None
    """What a lock belongs to that is taken outside of any body: this process's instance, or a child's one job."""
    is_in_child = False
    """Whether this is a process that runs bodies for its parent."""

    def __init__(self, name: str, **options: Any) -> None:
        self._here = Here()
        self._database: Database | None = None
        self._context: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.body_processes = BodyProcesses(self)
        super().__init__(name, **options)
        self.signal(*ENDED_BY_SIGNAL)(self._note_signal)

    @property
    def database(self) -> Database:
        """Return the database the queue lives in."""
        if self._database is None:
            raise RuntimeError("The queue has no database yet: call app.create_app() first.")
        return self._database

    def app_context(self) -> AbstractContextManager[Any]:
        """Make the context in which bodies run."""
        return self._context()

    @property
    def in_body(self) -> bool:
        """Say whether the present thread runs a job's body, or works for one."""
        return body_threads.works_for_body()

    @property
    def running_job(self) -> str | None:
        """Name the job whose body the present thread runs."""
        outcome = self._here.outcome
        return outcome.uuid if outcome is not None and outcome.in_body else None

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Say from a body's own thread how far it is; whoever looks at the job sees it within a moment.

        Call it as often as you like: it is written a few times a second, and the last word for sure. Outside a
        job, as in a test that calls the body itself, it only checks the values.
        Raises: InvalidInputError for what is no number, negative, NaN or infinite.
        """
        text, outcome, batch = as_text(done, total, note), self._here.outcome, self._here.batch
        if outcome is None or outcome.job is None:
            return
        if outcome.reporter is None:
            claimed = [outcome.job] if batch is None else batch.claimed
            outcome.reporter = Progress(self.database, self.end_calls, claimed)
        outcome.reporter.report(text)

    @contextmanager
    def running_body(self, task: Any) -> Iterator[None]:
        """Mark the present thread as inside a body: what is stored or enqueued from there commits at once."""
        outcome = self._here.outcome
        if outcome is not None:
            outcome.in_body = True
        try:
            with body_threads.running(), forks.kept_inside():
                yield
        except BaseException as raised:
            error = task.raised = raised if isinstance(raised, Exception) else BodyExitError(raised)
            if outcome is not None:
                outcome.note_exception(error, traceback_of(raised))
            let_go(raised)
            if not may_retry(task, error):
                task.retries = 0
            if error is raised:
                raise
            raise error from raised
        finally:
            if outcome is not None:
                outcome.in_body = False

    def call_body(self, task: Any, run_body: Callable[[Any], Any]) -> Any:
        """Call a body: the job's own, perhaps in another process, or once that of the batch it is in."""
        batch, outcome = self._here.batch, self._here.outcome
        if batch is not None:
            return batch.call(task)
        if outcome is not None and getattr(task, "process", False) and not self.is_in_child:
            return self.body_processes.run(task, outcome)
        return run_body(task)

    @contextmanager
    def noting(self, job: jobs.ClaimedJob) -> Iterator[Outcome]:
        """Note in an Outcome what the present thread does to run a job."""
        outcome = self._here.outcome = Outcome(job.uuid, job)
        try:
            yield outcome
        finally:
            self._here.outcome = None
            if outcome.reporter is not None:
                outcome.progress = outcome.reporter.close()

    def fail_visibly(self, outcome: Outcome, task: Any, error: BaseException) -> None:
        """Turn an outcome into a failure that its result, its pipeline, its handler and its chord can see."""
        outcome.state, outcome.retrying, outcome.chord_part = "failed", False, None
        outcome.note_exception(error, trace_of(error))
        outcome.follow_ups.clear()
        outcome.announced.clear()
        if task is None:
            return
        try:
            self._pass_on_failure(task, error)
        except BaseException:  # what is written here is that it failed, whatever the error does to others
            log.exception("Job %s fails, and not all that follows it can hear of it", task.id)

    def _pass_on_failure(self, task: Any, error: BaseException) -> None:
        failure = Error(self.build_error_result(task, error))
        following = task
        while following is not None:
            self.put_result(following.id, failure)
            following = following.on_complete
        self._abort_chord_member(task, failure)
        if task.on_error is not None:
            handler = copy.copy(task.on_error)
            handler.extend_data(error)
            self.enqueue(handler)

    # What Huey does around a body: noted there, done at once elsewhere

    def _notes(self) -> Outcome | None:
        """Return the outcome to note in: around a body, but not inside it."""
        outcome = self._here.outcome
        return None if outcome is None or outcome.in_body else outcome

    def _note_signal(self, signal: str, task: Any, *args: Any) -> None:
        outcome = self._notes()
        if outcome is not None and task.id == outcome.uuid:
            outcome.note_signal(signal)

    def _execute(self, task: Any, timestamp: dt.datetime) -> Any:
        value = task.raised = None
        try:
            with self._context():
                value = super()._execute(task, timestamp)
                if task.raised is not None:
                    raise task.raised  # Huey keeps what a body raises; the context is to hear of it no less
        except BaseException as error:
            if error is not task.raised:
                raise
        return value

    def _run_pre_execute(self, task: Any) -> None:
        batch = self._here.batch
        if batch is None:
            super()._run_pre_execute(task)
        else:
            batch.run_hooks(task, super()._run_pre_execute)

    def put_result(self, key: str, data: Any) -> None:
        """Keep a result: with the job's end when the job is the one that runs."""
        outcome = self._notes()
        if outcome is None:
            super().put_result(key, data)
            return
        if isinstance(data, Unstorable):
            raise data.error
        encoded = self.serializer.serialize(data)
        if not isinstance(data, Error):  # a failure is bounded already
            self._check_size(encoded, "the result")
        if key == outcome.uuid:
            outcome.result = encoded
        else:
            outcome.data[key] = encoded

    def get_raw(self, key: str, peek: bool = False) -> Any:
        """Return what is kept by a key; a hook or a signal's handler sees the result of the job that just ran."""
        outcome = self._notes()
        if outcome is not None:
            noted = outcome.result if key == outcome.uuid else outcome.data.get(key)
            if noted is not None:
                return noted
        return super().get_raw(key, peek)

    def delete(self, key: str) -> bool:
        """Forget a key; an absent one costs no write."""
        outcome = self._notes()
        if outcome is None:
            return bool(super().delete(key))
        if (
            key == f"r:{outcome.uuid}"
        ):  # Huey forgets it after each body, flag or no flag; so does the job's end
            outcome.forgets_flag = True
            return True
        found = self.storage.has_data_for_key(key)
        if found:
            outcome.deleted_keys.append(key)
        return bool(found)

    def is_revoked(self, task: Any, timestamp: dt.datetime | None = None, peek: bool = True) -> bool:
        """Say whether a task is revoked; mostly its claim has seen that there is no flag at all."""
        outcome, batch = self._notes(), self._here.batch
        if outcome is None or outcome.job is None:
            return bool(super().is_revoked(task, timestamp, peek))
        if not outcome.job.any_revoked or (batch is not None and batch.has_run(task)):
            return False
        return revoking.meets_flag(self, task, timestamp, peek, outcome)

    def _new_job(self, task: Any) -> arrivals.NewJob:
        if not isinstance(task.id, str):
            raise TypeError(f"a job's id must be a str, found {task.id!r}")
        if task.expires:
            task.resolve_expires(self.utc)
        name = self._registry.task_to_string(type(task))
        payload = self.serialize_task(task)
        self._check_size(payload, f"the arguments of {name}")
        overdue_s = task.timeout
        if overdue_s and getattr(task, "process", False):
            overdue_s += OVERDUE_AFTER_S
        due_at, is_member = run_at(task, self.now()), chords.leads_to_one(task)
        return arrivals.NewJob(task.id, name, payload, task.priority or 0, due_at, overdue_s, is_member)

    def _check_size(self, data: bytes, what: str) -> None:
        if len(data) > self.max_job_bytes:
            raise JobTooLargeError(
                f"{what} take {len(data)} bytes, MAX_JOB_BYTES allows {self.max_job_bytes}: store the big thing "
                "(a file, a row) and pass its id"
            )

    def _requeue_task(self, task: Any, timestamp: dt.datetime, retry_eta: dt.datetime | None = None) -> None:
        outcome = self._notes()
        if outcome is None:
            super()._requeue_task(task, timestamp, retry_eta)
            return
        outcome.retrying, outcome.requeued = True, task
        outcome.retries, outcome.retry_delay = task.retries - 1, task.retry_delay
        if retry_eta is not None:
            outcome.run_at = unix_time(retry_eta)
        elif task.retry_delay:
            longest = getattr(task, "max_delay", DEFAULT_MAX_DELAY_S)
            delay = min(task.retry_delay, longest)
            outcome.retry_delay = min(delay * (task.retry_backoff or 1), longest)
            outcome.run_at = self.now() + (
                random.uniform(0, delay) if getattr(task, "jitter", False) else delay
            )

    def _check_chord(self, cc: Any, value: Any) -> None:
        outcome = self._notes()
        if outcome is None:
            super()._check_chord(cc, value)
            return
        chords.note_part(self, outcome, cc, value)

    def build_error_result(self, task: Any, exception: BaseException) -> dict[str, Any]:
        """Describe a failure, within bounds."""
        try:
            described: dict[str, Any] = super().build_error_result(task, exception)
            described["error"] = "".join(described["error"])  # what is no str cannot be kept
        except BaseException:  # an error that cannot be shown
            described = {"error": words_of(exception), "retries": task.retries, "task_id": task.id}
            described["traceback"] = trace_of(exception)
        described["error"] = described["error"][:MAX_ERROR_CHARS]
        described["traceback"] = described["traceback"][-MAX_ERROR_CHARS:]
        return described

    def _get_timestamp(self) -> dt.datetime:
        return naive_utc(self.now())
