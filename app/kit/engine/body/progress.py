"""How far a body is: written to its job now and then while it runs, and for good with the job's end."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
from collections.abc import Sequence

from app.kit.database.file import Database
from app.kit.engine.careful_log import careful
from app.kit.engine.error_words import storable
from app.kit.engine.jobs.bells import EndCalls
from app.kit.engine.jobs.job import ClaimedJob
from app.kit.errors import InvalidInputError, PostroomError

log = careful("postroom.queue")

EVERY_S = 0.25
"""The shortest time between two writes: what is reported faster is written a little later, the last for sure."""
MOST = 10**15
MAX_NOTE_CHARS = 200

# A body that is nobody's any more (its process was taken for dead, its job runs elsewhere) writes nothing.
SAVE = "UPDATE postroom_jobs SET progress = ? WHERE id = ? AND state = 'running' AND claim = ?"


def as_text(done: float, total: float, note: str = "") -> str:
    """Write a progress as it is kept.

    More done than there is counts as all of it; nothing of nothing as one of one. A long note is cut.
    Raises: InvalidInputError for what is no number, negative, NaN or infinite.
    """
    for name, value in (("done", done), ("total", total)):
        if not isinstance(value, int | float) or not 0 <= value <= MOST:
            raise InvalidInputError(
                f"progress() found {name}={value!r:.50}, expected a number from 0 up to 1e15, "
                "such as progress(3, 10, 'reading')",
                name,
            )
    if total == 0:
        done = total = 1
    return json.dumps(
        {"done": min(done, total), "total": total, "note": storable(str(note or "")[:MAX_NOTE_CHARS])}
    )


class Progress:
    """The progress of one call of a body: of its job, or of all jobs of its batch."""

    def __init__(self, database: Database, calls: EndCalls, claimed: Sequence[ClaimedJob]) -> None:
        self.text: str | None = None
        self._database, self._calls = database, calls
        self._claimed = claimed
        self._lock = threading.Lock()
        self._saved_at = -math.inf
        self._timer: threading.Timer | None = None
        self._closed = False

    def report(self, text: str) -> None:
        """Keep a progress, and write it unless one was written just now; then a moment later."""
        with self._lock:
            self.text = text
            left_s = self._saved_at + EVERY_S - time.monotonic()
            if left_s > 0:
                self._save_in(left_s)
                return
            self._saved_at = time.monotonic()
        self._save()

    def close(self) -> str | None:
        """Write no more, and return what was reported last: it goes with the job's end."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            return self.text

    def _save_in(self, seconds: float) -> None:
        if self._timer is None and not self._closed:
            self._timer = threading.Timer(seconds, self._save_late)
            self._timer.daemon = True
            self._timer.start()

    def _save_late(self) -> None:
        with self._lock:
            self._timer = None
            if self._closed:
                return
            self._saved_at = time.monotonic()
        self._save()

    def _save(self) -> None:
        def save(connection: sqlite3.Connection) -> None:
            # Read here: what waited for its turn behind a newer one must not write over it.
            connection.executemany(SAVE, [(self.text, job.id, job.claim) for job in self._claimed])

        try:
            self._database.write(save, durable=False)
        except (PostroomError, sqlite3.Error) as error:
            log.warning("The progress of job %s is not shown (%s); it goes on", self._claimed[0].uuid, error)
            return
        self._database.after_commit(self._tell)

    def _tell(self) -> None:
        for job in self._claimed:
            self._calls.call(job.uuid)
