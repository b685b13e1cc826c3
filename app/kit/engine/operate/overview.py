"""What can be seen of the queue: one job, all of it, and what ails it."""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from app.kit.database.file import Database
from app.kit.engine.jobs import claim as claims, job as jobs, queries
from app.kit.engine.jobs.schema import STATES
from app.kit.errors import InvalidInputError

STALLED_AFTER_S = 30.0
MOST_LOOKED_AT = 10_000
"""Of so many jobs at most the errors are searched in one go."""
MAX_TEXT_CHARS = 200


def job(database: Database, serializer: Any, uuid: str) -> dict[str, Any] | None:
    """Describe a job for its holder, or return None."""
    row = database.read_one(queries.FIND, (uuid,))
    if row is None:
        return None
    described = {key: row[key] for key in ("state", "task", "attempt", "deaths")}
    described["id"] = row["uuid"]
    described["version"] = _version_of(row)
    described.update({key: row[key] for key in ("enqueued_at", "started_at", "finished_at")})
    has_value = row["state"] == "done" and row["result"] is not None
    described["result"] = serializer.deserialize(row["result"]) if has_value else None
    described["progress"] = None if row["progress"] is None else json.loads(row["progress"])
    described["error"] = _error_of(row["error"])
    return described


def version(database: Database, uuid: str) -> str | None:
    """Return what changes whenever a job's state, attempt or progress does; None for an unknown job."""
    row = database.read_one(queries.VERSION, (uuid,))
    return None if row is None else _version_of(row)


def _version_of(row: Any) -> str:
    return f"{row['state']}-{row['claim']}-{zlib.crc32((row['progress'] or '').encode()):x}"


def has_ended(database: Database, uuid: str) -> bool:
    """Say whether a job is done, failed or cancelled (or unknown)."""
    row = database.read_one(queries.STATE, (uuid,))
    return row is None or row["state"] not in jobs.LIVE


def queue(database: Database, now: float) -> dict[str, Any]:
    """Count the jobs by state and name the instances and what each of their workers does."""
    instances = [dict(row) for row in database.read(queries.INSTANCES)]
    running = {(row["instance"], row["worker"]): row for row in database.read(queries.RUNNING)}
    workers = []
    for instance in instances:
        instance["holds_clock"] = bool(instance.pop("clock"))
        for number in range(1, instance["threads"] + 1):
            name = f"Worker-{number}"
            busy = running.get((instance["id"], name))
            workers.append(
                {
                    "instance": instance["id"],
                    "name": name,
                    "job": busy["uuid"] if busy else None,
                    "task": busy["task"] if busy else None,
                    "since_at": busy["started_at"] if busy else None,
                    "overdue": busy is not None and _is_overdue(busy, now),
                }
            )
    return {
        "counts": dict(database.read(queries.COUNTS)[0]),
        "oldest_ready_age_s": oldest_ready_age_s(database, now),
        "workers": workers,
        "instances": instances,
        "pauses": pauses(database, now),
    }


def pauses(database: Database, now: float) -> list[dict[str, Any]]:
    """Describe what is paused now; task '' is the whole queue."""
    return [dict(row) for row in database.read(queries.PAUSES, (now,))]


def oldest_ready_age_s(database: Database, now: float) -> float | None:
    """Say for how long the ready job that waits longest has waited."""
    row = database.read_one(queries.OLDEST_READY)
    return None if row is None or row[0] is None else max(0.0, now - row[0])


def health(database: Database, now: float, limits: Mapping[str, int]) -> list[str]:
    """Return a sentence for everything that keeps jobs from running."""
    instances = database.read(queries.INSTANCES)
    threads = sum(row["threads"] for row in instances if row["state"] == "running")
    if threads == 0:
        return ["No consumer is running: jobs are accepted and wait. Start the site, or a worker."]
    run_at = database.read(queries.NEXT_RUN_AT)[0][0]
    # A process that has just started gets to what became due while nobody was there.
    if run_at is not None and now - max(run_at, instances[-1]["started_at"]) > STALLED_AFTER_S:
        return [
            f"A job has been due for {now - run_at:.0f} s and was not made ready: no process gets to the clock's "
            "work. One may be frozen or starved; it loses nothing when it is killed and started again."
        ]
    running = database.read(queries.RUNNING)
    overdue = [row for row in running if _is_overdue(row, now)]
    if len(_workers(overdue)) >= threads:
        return [f"All {threads} workers are overdue: their bodies hang. The process replaces itself."]
    if any(row["deaths"] >= claims.SUSPECT_DEATHS for row in overdue):
        return ["A job that must run alone is overdue: its body hangs. The process replaces itself."]
    if len(_workers(running)) >= threads or (running and database.read(queries.SUSPECT)):
        return []  # what is ready waits for its turn
    ready_at = claims.next_ready_at(database.read, limits, now)
    moved_at = database.read(queries.LAST_MOVE)[0][0] or 0
    if ready_at is not None and now - max(ready_at, moved_at) > STALLED_AFTER_S:
        return [
            f"A job has been ready for {now - ready_at:.0f} s, and none has started or ended for "
            f"{STALLED_AFTER_S:.0f} s, though a worker is free."
        ]
    return []


def _workers(running: Sequence[Any]) -> set[tuple[str, str]]:
    """Name the workers that run these jobs: a batch is several on one."""
    return {(row["instance"], row["worker"]) for row in running}


def listed(
    database: Database, state: str, task: str | None, text: str, limit: int, before_id: int | None
) -> dict[str, Any]:
    """Describe the newest jobs of a state whose error holds a text, and say below which id to look on."""
    if state not in STATES:
        raise InvalidInputError(f"There is no state {state!r}, expected one of {', '.join(STATES)}.", "state")
    looked_at = MOST_LOOKED_AT if text else limit
    asked = {"task": task, "text": text[:MAX_TEXT_CHARS], "limit": limit, "looked_at": looked_at}
    asked["before_id"] = sys.maxsize if before_id is None else before_id
    # Each state and filter has its own statement: so SQLite sees which index holds just those rows.
    parts = {"state": state, "of_task": "" if task is None else "AND task = :task"}
    parts["by"] = "INDEXED BY postroom_jobs_running" if state == "running" else ""
    found = [dict(row) for row in database.read(queries.LISTED.format(**parts), asked)]
    if len(found) == limit:
        return {"jobs": found, "next_before_id": found[-1]["id"]}
    last = database.read_one(queries.LAST_LOOKED_AT.format(**parts), asked) if text else None
    return {"jobs": found, "next_before_id": None if last is None else last["id"]}


def details(database: Database, serializer: Any, uuid: str) -> dict[str, Any] | None:
    """Describe a job for the operator: arguments and history too."""
    described = job(database, serializer, uuid)
    row = database.read_one(queries.DETAILS, (uuid,))
    if described is None or row is None:
        return None
    try:
        message = serializer.deserialize(row["payload"])
        described |= {"args": message.args, "kwargs": message.kwargs}
    except Exception as error:
        described |= {"args": None, "kwargs": None, "undecodable": str(error)}
    seen = ("priority", "waits", "run_at", "ready_at", "timeout_s", "instance", "worker")
    described |= {name: row[name] for name in seen}
    described["attempts"] = [dict(one) for one in database.read(queries.ATTEMPTS, (row["id"],))]
    return described


def _is_overdue(running: Any, now: float) -> bool:
    return running["timeout_s"] is not None and running["started_at"] + running["timeout_s"] < now


def _error_of(text: str | None) -> dict[str, Any] | None:
    """Split "Type: message", as it is kept, for people and programs."""
    if text is None:
        return None
    kind, _, message = text.partition(": ")
    return {"type": kind, "message": message}
