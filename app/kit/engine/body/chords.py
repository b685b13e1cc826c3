"""Chords: what a member leaves for its chord, and the callback once all members have."""

from __future__ import annotations

import copy
import sqlite3
from typing import Any

from huey.utils import SKIPPED, ChordConfig, Error

from app.kit.engine.api.results import moved_key
from app.kit.engine.body.outcome import Outcome
from app.kit.engine.careful_log import careful
from app.kit.engine.error_words import MAX_ERROR_CHARS, words_of
from app.kit.engine.jobs import enqueue as arrivals, job as jobs
from app.kit.errors import PostroomError

log = careful("postroom.queue")


def note_part(huey: Any, outcome: Outcome, chord: ChordConfig, value: Any) -> None:
    """Note what a member leaves for its chord."""
    if isinstance(value, Error):
        # A callback carries what all members left: their tracebacks stay with them, and half of its room is left
        # to values. (A character takes six bytes at most.)
        room = huey.max_job_bytes // (12 * max(1, chord.size))
        error = str(value.metadata.get("error"))[: min(room, MAX_ERROR_CHARS)]
        value = Error({**value.metadata, "error": error, "traceback": None})
    outcome.chord_part = jobs.ChordPart(chord.cid, chord.size, chord.idx, huey.serializer.serialize(value))
    outcome.chord_callback = chord.callback


def is_moved(huey: Any, task: Any, value: Any) -> bool:
    """Say whether a member that does not run was rescheduled: then the chord waits for the job in its place."""
    return value is SKIPPED and bool(huey.storage.has_data_for_key(moved_key(task.id)))


def leads_to_one(task: Any) -> bool:
    """Say whether a chord waits for a task, or for one that follows it."""
    return _place_in_chord(task) is not None


def _place_in_chord(step: Any) -> Any:
    """Return what the first step of a pipeline (a task's, or a message's) that is in a chord says of it."""
    while step is not None and step.chord_config is None:
        step = step.on_complete
    return step and step.chord_config


def complete(huey: Any, connection: sqlite3.Connection, outcome: Outcome, now: float) -> None:
    """Write what a member left, and enqueue the callback if it was the last."""
    if outcome.chord_part is None:
        return
    callback = copy.copy(outcome.chord_callback)  # a copy: this may run again after a roll-back
    try:
        values = jobs.add_chord_part(connection, outcome.chord_part, now, huey.max_job_bytes)
        if values is None:
            return
        callback.extend_data(([huey.serializer.deserialize(value) for value in values],))
        _enqueue(huey, connection, callback, now)
    except PostroomError as error:  # the values together are too large: the callback fails, in view
        _enqueue(huey, connection, outcome.chord_callback, now)
        failure = huey.serializer.serialize(Error(huey.build_error_result(callback, error)))
        jobs.shelve(connection, callback.id, words_of(error), now, failure)
    outcome.fired_callback = callback


def _enqueue(huey: Any, connection: sqlite3.Connection, callback: Any, now: float) -> None:
    # Who named the callback's id, and has it live already, has that job.
    arrivals.insert(connection, [huey._new_job(callback)._replace(is_member=False)], now)


def failure_of(job: jobs.ClaimedJob, error: BaseException) -> Error:
    """Make the result of a job that fails and that no task is made of."""
    return Error({"error": words_of(error), "task_id": job.uuid, "retries": 0, "traceback": None})


def report_unread(huey: Any, job: jobs.ClaimedJob, error: BaseException) -> None:
    """Tell the chord of a job that no task can be made of, if its message can be read at all."""
    try:
        config = _place_in_chord(huey.serializer.deserialize(job.payload))
        if config is not None:
            *place, callback = config
            chord = ChordConfig(*place, huey._registry.create_task(callback))
            huey._check_chord(chord, failure_of(job, error))
    except Exception:
        log.exception("Job %s cannot be read at all: if it is in a chord, that never fires", job.uuid)
