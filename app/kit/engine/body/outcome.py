"""What Huey does around a body, noted while it happens and written with the job's end in one commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from huey import signals
from huey.exceptions import RETRYING_EXCEPTIONS, CancelExecution, RateLimitExceeded

from app.kit.engine.body.progress import Progress
from app.kit.engine.error_words import MAX_ERROR_CHARS, storable, words_of
from app.kit.engine.jobs.enqueue import NewJob
from app.kit.engine.jobs.job import ChordPart, ClaimedJob, Ending

ENDED_BY_SIGNAL = {
    signals.SIGNAL_COMPLETE: "done",
    signals.SIGNAL_REVOKED: "cancelled",
    signals.SIGNAL_EXPIRED: "cancelled",
    signals.SIGNAL_CANCELED: "cancelled",
}
REASONS = {
    signals.SIGNAL_REVOKED: "Revoked: it was revoked before it ran",
    signals.SIGNAL_EXPIRED: "Expired: its time to run had passed",
    signals.SIGNAL_CANCELED: "Cancelled: a hook cancelled it before it ran",
}


@dataclass(slots=True)
class Outcome:
    """The notes of one job on one worker thread."""

    uuid: str
    job: ClaimedJob | None = None
    in_body: bool = False
    state: str = "failed"
    reason: str = "Failed: it ended without saying how"
    exception: BaseException | None = None
    traceback: str | None = None
    reporter: Progress | None = None
    progress: str | None = None
    result: bytes | None = None
    run_at: float | None = None
    retrying: bool = False
    alone: bool = False
    retries: int | None = None
    retry_delay: float | None = None
    follow_ups: list[NewJob] = field(default_factory=list)
    announced: list[Any] = field(default_factory=list)
    requeued: Any = None
    data: dict[str, bytes] = field(default_factory=dict)
    deleted_keys: list[str] = field(default_factory=list)
    forgets_flag: bool = False
    chord_part: ChordPart | None = None
    chord_callback: Any = None
    fired_callback: Any = None

    def note_signal(self, signal: str) -> None:
        """Learn from Huey's signal how the job ends."""
        self.state = ENDED_BY_SIGNAL.get(signal, self.state)
        if self.exception is None:
            self.reason = REASONS.get(signal, self.reason)

    def note_exception(self, exception: BaseException, trace: str) -> None:
        """Keep what the body raised."""
        self.exception, self.traceback = exception, storable(trace[-MAX_ERROR_CHARS:])
        self.reason = words_of(exception)

    @property
    def waited(self) -> bool:
        """Say whether the job asked to run later, or waits for a lock or a rate limit, which burns no attempt."""
        if not self.retrying:
            return False
        if self._raised(*RETRYING_EXCEPTIONS):
            return True
        return self._raised(CancelExecution) and bool(getattr(self.exception, "retry", False))

    @property
    def wait_counts(self) -> bool:
        """Say whether the wait is one of those that a job may have so many of; a rate limit's may go on and on."""
        return self.waited and not (
            self._raised(RateLimitExceeded) and getattr(self.exception, "retry", False)
        )

    def _raised(self, *kinds: type[BaseException]) -> bool:
        return issubclass(type(self.exception), kinds)  # not isinstance(), which asks the error itself

    def ending(self, now: float, result_ttl_s: float) -> Ending:
        """Return what is to be written."""
        state = self.state
        if self.retrying:
            state = "ready" if self.run_at is None or self.run_at <= now else "scheduled"
        return Ending(
            state=state,
            run_at=self.run_at if state == "scheduled" else None,
            result=self.result,
            error=None if state == "done" else self.reason,
            traceback=self.traceback,
            progress=self.progress,
            waited=self.waited,
            wait_counts=self.wait_counts,
            alone=self.alone,
            retries=self.retries,
            retry_delay=self.retry_delay,
            follow_ups=self.follow_ups,
            data=self.data,
            data_expires_at=now + result_ttl_s,
            deleted_keys=self.deleted_keys,
        )
