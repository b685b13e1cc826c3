"""Which job a worker gets next: the claim, with its limits, pauses, batches and quarantine."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from app.kit.engine.jobs.job import ANY_FLAG, CLAIMED, ClaimedJob
from app.kit.engine.jobs.queries import SUSPECT
from app.kit.engine.jobs.schema_changes import IN_TURN

Select = Callable[[str, Sequence[Any]], Iterable[sqlite3.Row]]
"""A connection's `execute`, or a database's `read`."""

SUSPECT_DEATHS = 2
"""A job with so many deaths to its name runs alone in its instance, so that only the culprit gets the next."""

# The best of the heads of the tasks that are not barred, one index seek a task, however many jobs wait.
NEXT_READY = f"""
SELECT id FROM postroom_jobs WHERE id IN (
    SELECT (
        SELECT id FROM postroom_jobs WHERE state = 'ready' AND task = counts.task ORDER BY {IN_TURN} LIMIT 1
    ) FROM postroom_task_counts AS counts WHERE ready > 0 AND task NOT IN ({{barred}})
) ORDER BY {IN_TURN} LIMIT 1
"""

# One look says that nothing keeps any job from being claimed, as it mostly is: each statement more that the writer
# executes is another moment at which it can lose the interpreter's lock to the threads that run bodies.
LOOK = f"""
SELECT EXISTS (SELECT 1 FROM postroom_pauses WHERE until_at IS NULL OR until_at > ?)
    OR EXISTS (SELECT 1 FROM postroom_jobs WHERE deaths >= 2 AND state IN ('ready', 'running'))
    OR EXISTS (SELECT 1 FROM postroom_task_counts WHERE running > 0 AND task IN ({{limited}})),
    EXISTS (SELECT 1 FROM postroom_task_counts WHERE ready > 0),
    {ANY_FLAG}
"""

PAUSED = "SELECT task, NULL FROM postroom_pauses WHERE until_at IS NULL OR until_at > ?"
PAUSED_AND_RUNNING = (
    f"{PAUSED} UNION ALL SELECT task, instance || ' ' || worker FROM postroom_jobs WHERE state = 'running'"
)

OF_OTHERS = """
SELECT task FROM postroom_task_counts AS counts WHERE ready > 0 AND EXISTS (
    SELECT 1 FROM postroom_instance_tasks AS has WHERE has.task = counts.task AND has.instance <> ?
)
"""

BATCH = (
    "SELECT id FROM postroom_jobs WHERE state = 'ready' AND task = ? AND alone = 0 AND deaths = 0"
    f" ORDER BY {IN_TURN} LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What tasks ask of the claim: at most `limits` calls at once, up to `batches` jobs in one call."""

    limits: Mapping[str, int] = field(default_factory=dict)
    batches: Mapping[str, int] = field(default_factory=dict)
    known: Collection[str] | None = None
    """The tasks of this process, where there are others: theirs are left to them. None: it is alone."""


class Look(NamedTuple):
    """What a claim may meet: a pause, a suspect or a busy limited task; ready jobs; revoke flags of any job."""

    any_bar: int
    any_ready: int
    any_flag: int


def look(connection: sqlite3.Connection, now: float, rules: Rules) -> Look:
    """See whether there is anything that a claim has to heed."""
    sql = LOOK.format(limited=", ".join("?" * len(rules.limits)))
    return Look(*connection.execute(sql, (now, *rules.limits)).fetchone())


def claim(
    connection: sqlite3.Connection,
    instance: str,
    worker: str,
    now: float,
    rules: Rules,
    seen: Look | None = None,
) -> list[ClaimedJob]:
    """Take the next ready job for one worker (a batch task's: those beside it too).

    Highest priority first, then the oldest, among the tasks that are neither paused nor at their limit. `seen` is
    a look that was taken in the same transaction, if one was.
    """
    any_bar, any_ready, _ = seen or look(connection, now, rules)
    if not any_ready:
        return []
    barred = _barred(connection.execute, rules.limits, now) if any_bar else []
    if "" in barred:
        return []
    if rules.known is not None:
        barred += [task for (task,) in connection.execute(OF_OTHERS, (instance,)) if task not in rules.known]
    chosen = _choice(barred)
    if any_bar and _must_wait_for_suspect(connection, instance, chosen, barred):
        return []
    claimed = _take(connection, chosen, barred, instance, worker, now)
    for first in claimed[:1]:
        most = rules.batches.get(first.task, 1)
        if most > 1 and not first.alone and first.deaths == 0:
            claimed += _take(connection, BATCH, (first.task, most - 1), instance, worker, now)
    return claimed


def next_ready_at(select: Select, limits: Mapping[str, int], now: float) -> float | None:
    """Return since when the job is ready that would be claimed next; None when there is none, or it may not be."""
    barred = _barred(select, limits, now)
    chosen = _choice(barred)
    found = (
        []
        if "" in barred
        else list(select(f"SELECT ready_at FROM postroom_jobs WHERE id IN ({chosen})", barred))
    )
    return found[0]["ready_at"] if found else None


def _choice(barred: Sequence[str]) -> str:
    return NEXT_READY.format(barred=", ".join("?" * len(barred)))


def _take(
    connection: sqlite3.Connection,
    chosen: str,
    parameters: Sequence[object],
    instance: str,
    worker: str,
    now: float,
) -> list[ClaimedJob]:
    rows = connection.execute(
        "UPDATE postroom_jobs SET state = 'running', claim = claim + 1, attempt = attempt + 1,"
        " instance = ?, worker = ?, started_at = ?, starting = 0, run_ms = NULL"
        f" WHERE id IN ({chosen}) RETURNING {CLAIMED}",
        (instance, worker, now, *parameters),
    ).fetchall()
    return [ClaimedJob(*row) for row in sorted(rows, key=lambda row: row["id"])]


def _must_wait_for_suspect(
    connection: sqlite3.Connection, instance: str, chosen: str, barred: Sequence[str]
) -> bool:
    """Say whether a suspect runs in this instance, or is the chosen one and others still run."""
    if connection.execute(SUSPECT).fetchone() is None:
        return False
    running = "FROM postroom_jobs WHERE state = 'running' AND instance = ?"
    if connection.execute(f"SELECT 1 {running} AND deaths >= 2", (instance,)).fetchone():
        return True
    head = connection.execute(f"SELECT deaths FROM postroom_jobs WHERE id IN ({chosen})", barred).fetchone()
    if head is None or head["deaths"] < SUSPECT_DEATHS:
        return False
    return connection.execute(f"SELECT 1 {running}", (instance,)).fetchone() is not None


def _barred(select: Select, limits: Mapping[str, int], now: float) -> list[str]:
    """Name the tasks that may not start now; '' stands for all."""
    barred = []
    busy: dict[str, set[str]] = {}
    for task, worker in select(PAUSED_AND_RUNNING if limits else PAUSED, (now,)):
        if worker is None:
            barred.append(task)
        else:
            busy.setdefault(task, set()).add(worker)  # a batch counts as one: it is one call, on one worker
    return barred + [task for task, workers in busy.items() if len(workers) >= limits.get(task, math.inf)]


# By hand: Huey's storage contract, which knows only bytes


def take_payload(connection: sqlite3.Connection) -> bytes | None:
    """Take the next ready job's payload off the queue for good."""
    rows = connection.execute(
        f"DELETE FROM postroom_jobs WHERE id IN ({_choice([])}) RETURNING payload"
    ).fetchall()
    return rows[0]["payload"] if rows else None


def take_due_payloads(connection: sqlite3.Connection, now: float) -> list[bytes]:
    """Take the payloads that are due off the schedule for good, soonest first."""
    sql = "DELETE FROM postroom_jobs WHERE state = 'scheduled' AND run_at <= ? RETURNING run_at, id, payload"
    rows = connection.execute(sql, (now,)).fetchall()
    return [row["payload"] for row in sorted(rows, key=lambda row: (row["run_at"], row["id"]))]
