"""Claiming, running and ending jobs: one commit ends a job and claims the next."""

from __future__ import annotations

import datetime as dt
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from huey.exceptions import HueyException
from huey.utils import SKIPPED

from app.kit.engine.api import announcing, revoking
from app.kit.engine.body import chords, forks
from app.kit.engine.body.batch import Batch
from app.kit.engine.body.notes import NotingHuey
from app.kit.engine.body.outcome import Outcome
from app.kit.engine.careful_log import careful
from app.kit.engine.error_words import words_of
from app.kit.engine.jobs import claim as claims, job as jobs, shelf, versions
from app.kit.engine.jobs.bells import Bell, ReadyBell
from app.kit.engine.times import naive_utc

log = careful("postroom.queue")

MAX_WAITS = 1000
"""How often a job may ask to run later, or wait for a lock, which burns no attempt."""

Ended = tuple[jobs.ClaimedJob, Outcome]


class TooManyWaitsError(HueyException):
    """A job asked to run later more often than MAX_WAITS allows."""


class ProcessDiedError(HueyException):
    """A job's process died under it as often as is allowed."""


class RunningHuey(NotingHuey):
    """The side of the queue that workers use."""

    ready_bell: ReadyBell
    clock_bell: Bell
    idle_bell: Bell
    _rules: tuple[int, claims.Rules, claims.Rules] | None = None
    has_siblings: bool
    consumes_since = math.inf
    """When the consumer of this process started (unix seconds): what came later may be of newer code."""

    def settled(self) -> float:
        """Return what time it is for what deletes or expires for good: no clock is believed that just jumped."""
        return float(getattr(self.now, "settled", self.now)())

    def rules(self) -> claims.Rules:
        """Gather what the registered tasks ask of the claim."""
        registered = self._registry._registry
        if self._rules is None or self._rules[0] != len(registered):
            alone = self._read_rules()
            self._rules = (len(registered), alone, replace(alone, known=frozenset(registered)))
        _, alone, among_others = self._rules
        return among_others if self.has_siblings else alone

    def own_task_names(self) -> list[str]:
        """Name the tasks that the code of this process has."""
        return list(self._registry._registry)

    def _read_rules(self) -> claims.Rules:
        registered = self._registry._registry.items()
        return claims.Rules(
            limits={name: kind.limit for name, kind in registered if getattr(kind, "limit", None)},
            batches={name: kind.batch_max for name, kind in registered if getattr(kind, "batch_max", None)},
        )

    def claim(self, instance: str, worker: str, rules: claims.Rules) -> list[jobs.ClaimedJob]:
        """Take the next job for a worker of this instance (a batch task's: several), if there is one."""
        now = self.now()
        # A claim that a power cut undoes leaves the job ready, which is what recovery would make of it.
        claimed = self.database.write(
            lambda connection: claims.claim(connection, instance, worker, now, rules), durable=False
        )
        self._tell_start(claimed)
        return claimed

    def run(self, claimed: Sequence[jobs.ClaimedJob]) -> list[Ended]:
        """Run the bodies of claimed jobs: several are a batch, whose body is called once."""
        if len(claimed) == 1:
            return [(claimed[0], self._run_one(claimed[0], naive_utc(self.settled())))]
        batch = self._here.batch = Batch(self, claimed)
        try:
            outcomes = [self._run_one(job, batch.timestamp) for job in claimed]
        finally:
            self._here.batch = None
        progress = next((outcome.progress for outcome in outcomes if outcome.progress), None)
        for outcome in outcomes:
            outcome.alone, outcome.progress = outcome.uuid in batch.alone, progress
        return list(zip(claimed, outcomes, strict=True))

    def finish(
        self, ended: Sequence[Ended], claim_for: tuple[str, str] | None, rules: claims.Rules
    ) -> list[jobs.ClaimedJob]:
        """End jobs in one commit and, in the same, claim the next for (instance, worker)."""
        now = self.now()

        def end(connection: sqlite3.Connection) -> tuple[list[bool], list[jobs.ClaimedJob]]:
            endings = [(job, outcome.ending(now, self.ages.result_s)) for job, outcome in ended]
            mine = jobs.finish(connection, endings, now)
            written = [
                (job, ending, outcome)
                for (job, ending), (_, outcome), was_mine in zip(endings, ended, mine, strict=True)
                if was_mine
            ]
            for one in written:
                self._follow_end(connection, *one, now)
            seen = claims.look(connection, now, rules)
            if seen.any_flag:
                jobs.forget_flags(connection, revoking.done_with(written))
            if claim_for is None:
                return mine, []
            return mine, claims.claim(connection, *claim_for, now, rules, seen)

        mine, claimed = self.database.write(end)
        for (job, outcome), was_mine in zip(ended, mine, strict=True):
            if not was_mine:
                log.warning("Job %s was no longer this worker's when it ended: nothing is written", job.uuid)
            self._spread(job, outcome, rules, was_mine)
        self._tell_start(claimed)
        if not claimed:
            self.idle_bell.ring_all()
        return claimed

    def free(self, instance: str, worker: str | None = None) -> int:
        """Free the claims of an instance that is gone, or of one worker of it; return how many jobs it had."""
        now = self.now()

        def free(connection: sqlite3.Connection) -> tuple[int, list[Ended]]:
            freed = jobs.free(connection, instance, now, worker)
            dead = [job for job in freed if job.deaths >= jobs.MAX_DEATHS]
            return len(freed), [(job, self._bury(connection, job, now)) for job in dead]

        count, buried = self.database.write(free)
        for job, outcome in buried:
            log.error("Job %s (%s) goes to the shelf: %s", job.uuid, job.task, outcome.reason)
            self._spread(job, outcome, self.rules())
        return count

    def failed_outcome(self, job: jobs.ClaimedJob, error: BaseException) -> Outcome:
        """Describe a job that fails without its body having a say."""
        before = self._here.outcome  # a body that leads a group of writes may be in the middle of its own
        outcome = self._here.outcome = Outcome(job.uuid)
        try:
            self.fail_visibly(outcome, self.task_of(job), error)
        except Exception as unreadable:
            self.fail_visibly(outcome, None, unreadable)
            chords.report_unread(self, job, unreadable)
        finally:
            self._here.outcome = before
        return outcome

    def bare_failure(self, job: jobs.ClaimedJob, error: BaseException) -> Outcome:
        """Describe a job that fails, and of which nobody else hears: when even telling them cannot be written."""
        return Outcome(
            job.uuid,
            job,
            reason=words_of(error),
            result=self.serializer.serialize(chords.failure_of(job, error)),
        )

    def _run_one(self, job: jobs.ClaimedJob, timestamp: dt.datetime) -> Outcome:
        task = None
        with forks.kept_inside(), self.noting(job) as outcome:
            try:
                task = self.task_of(job)
                self.execute(task, timestamp)
                if outcome.wait_counts and job.waits >= getattr(task, "max_waits", MAX_WAITS):
                    raise TooManyWaitsError(f"it asked to run later {job.waits + 1} times; {outcome.reason}")
            except BaseException as error:
                if task is None and versions.waits_for_newer(self, job, outcome, error):
                    return outcome
                # Not the body's (Huey catches those): an unknown task, a result that cannot be kept, a hook
                # that calls sys.exit(), a bug.
                log.exception("Job %s (%s) fails", job.uuid, job.task)
                self.fail_visibly(outcome, task, error)
                if task is None:
                    chords.report_unread(self, job, error)
        return outcome

    def _follow_end(
        self,
        connection: sqlite3.Connection,
        job: jobs.ClaimedJob,
        ending: jobs.Ending,
        outcome: Outcome,
        now: float,
    ) -> None:
        chords.complete(self, connection, outcome, now)
        if ending.state in ("failed", "cancelled"):
            self._tell_owner(connection, job.uuid, job.task, ending.state, ending.error or "")

    def _bury(self, connection: sqlite3.Connection, job: jobs.ClaimedJob, now: float) -> Outcome:
        """Put a job that died too often on the shelf, and tell its pipeline and chord."""
        died = ProcessDiedError(f"its process died {job.deaths} times while it ran")
        outcome = self.failed_outcome(job, died)
        jobs.shelve(connection, job.uuid, outcome.reason, now, outcome.result)
        jobs.write_beside(connection, outcome.ending(now, self.ages.result_s), now)
        chords.complete(self, connection, outcome, now)
        self._tell_owner(connection, job.uuid, job.task, "failed", outcome.reason)
        return outcome

    def _tell_owner(
        self, connection: sqlite3.Connection, uuid: str, task: str, state: str, reason: str
    ) -> None:
        """Let the data a job is about follow it, in the commit that fails or cancels the job."""
        if_not_done = getattr(self._registry._registry.get(task), "if_not_done", None)
        if if_not_done is None:
            return
        connection.execute("SAVEPOINT owner")
        try:
            if_not_done(connection, uuid, state, reason)
        except BaseException as error:
            said = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if isinstance(error, sqlite3.OperationalError) and said != sqlite3.SQLITE_ERROR:
                raise  # the file cannot be written: the whole end is tried again
            connection.execute("ROLLBACK TO owner")
            log.exception("Job %s ends as %s, but what it is about could not follow", uuid, state)
        connection.execute("RELEASE owner")

    def cancel_waiting(self, connection: sqlite3.Connection, uuid: str, now: float) -> bool:
        """Cancel a job that waits; its chord goes on without it, as it does without a revoked one."""
        row = shelf.cancel(connection, uuid, now)
        if row is None:
            return False
        task, payload = row
        self._tell_owner(connection, uuid, task, "cancelled", "Cancelled: by hand")
        before = self._here.outcome
        outcome = self._here.outcome = Outcome(uuid)
        try:
            self._abort_chord_member(self.deserialize_task(payload), SKIPPED)
        except Exception:
            log.exception("Job %s cannot be read: no chord hears that it is cancelled", uuid)
        finally:
            self._here.outcome = before
        chords.complete(self, connection, outcome, now)
        return True

    def _abort_chord_member(self, task: Any, value: Any) -> None:
        if not chords.is_moved(self, task, value):
            super()._abort_chord_member(task, value)

    def _spread(
        self, job: jobs.ClaimedJob, outcome: Outcome, rules: claims.Rules, was_mine: bool = True
    ) -> None:
        """Wake whom a job's end concerns and send Huey's signals: what is committed stands, whatever they raise."""
        try:
            self._tell(job, outcome, rules)
            if was_mine:
                announcing.what_followed(self, outcome)
        except BaseException:  # Huey itself catches what receivers raise, all but sys.exit() and the like
            log.exception("Not everybody heard that job %s has ended", job.uuid)

    def _tell_start(self, claimed: Sequence[jobs.ClaimedJob]) -> None:
        for job in claimed:
            self.end_calls.call_at_start(job.uuid)

    def _tell(self, job: jobs.ClaimedJob, outcome: Outcome, rules: claims.Rules) -> None:
        """Wake whom a job's end concerns: who waits for it or for what followed, and the workers."""
        for uuid in (job.uuid, *outcome.data):
            self.end_calls.call(uuid)
        if outcome.fired_callback is not None:
            self.end_calls.call(outcome.fired_callback.id)
        if outcome.follow_ups or outcome.chord_part or outcome.retrying:
            self.clock_bell.ring()
            self.ready_bell.ring(len(outcome.follow_ups) + 1)
        if job.deaths >= claims.SUSPECT_DEATHS:
            self.ready_bell.ring_all()  # all others waited for it
        elif job.task in rules.limits:
            self.ready_bell.ring()  # a place is free that this worker may not take itself

    def task_of(self, job: jobs.ClaimedJob) -> Any:
        """Make the task of a job, as its tries have left it."""
        task = self.deserialize_task(job.payload)
        if (
            job.redriven_at is not None and task.expires_resolved
        ):  # it has as long to run as it had when it came
            task.expires_resolved += dt.timedelta(seconds=job.redriven_at - job.enqueued_at)
        task.eta = None  # it is due, or it would not have been claimed
        # Whatever an older version or a step of a pipeline asks for: Huey would count down from below 0 for ever.
        task.retries = max(0, int(task.retries if job.retries is None else job.retries))
        if job.retry_delay is not None:
            task.retry_delay = job.retry_delay
        return task
