"""The queue in numbers, from what triggers add up: it costs the same after ten jobs and after ten million."""

from __future__ import annotations

import statistics
from typing import Any

from app.kit.database.file import Database
from app.kit.engine.jobs import queries

MOST_MINUTES = 24 * 60
RATE_MINUTES = 2
"""Rates are those of so many whole minutes and of the one that runs."""
MOST_TASKS = 100

COUNTED = ("enqueued", "done", "failed", "cancelled")


def gather(database: Database, now: float, minutes: int) -> dict[str, Any]:
    """Describe the last minutes, the present one included: see OperatedHuey.stats."""
    last = int(now // 60)
    first = last - min(max(minutes, 1), MOST_MINUTES) + 1
    tasks = _tasks(database, first, last)
    return {
        "minutes": _minutes(database, first, last),
        **_flow(database, now, sum(task["ready"] for task in tasks)),
        "tasks": sorted(sorted(tasks, key=_weight)[-MOST_TASKS:], key=lambda task: str(task["task"])),
    }


def last_runs(database: Database) -> dict[str, float]:
    """Return when each task ran last."""
    return {row["task"]: row["last_run_at"] for row in database.read(queries.TASKS) if row["last_run_at"]}


def _minutes(database: Database, first: int, last: int) -> list[dict[str, Any]]:
    found = {row["minute"]: row for row in database.read(queries.MINUTES, (first, last))}
    nothing = dict.fromkeys((*COUNTED, "wait_ms", "run_ms"), 0)
    described = []
    for minute in range(first, last + 1):
        counted = dict(found.get(minute, nothing))
        ended = counted["done"] + counted["failed"]
        means = {name: round(counted[name] / ended, 1) if ended else 0 for name in ("wait_ms", "run_ms")}
        described.append({"minute_at": minute * 60, **{name: counted[name] for name in COUNTED}, **means})
    return described


def _flow(database: Database, now: float, waiting: int) -> dict[str, float | None]:
    first = int(now // 60) - RATE_MINUTES
    row = database.read(queries.FLOW, (first, first + RATE_MINUTES))[0]
    seconds = max(now - first * 60, 1.0)
    arrival, service = row["arrived"] / seconds, row["left"] / seconds
    drains = waiting > 0 and service > arrival
    return {
        "arrival_per_s": arrival,
        "service_per_s": service,
        "drain_s": waiting / (service - arrival) if drains else None,
    }


def _tasks(database: Database, first: int, last: int) -> list[dict[str, Any]]:
    counted = {row["task"]: row for row in database.read(queries.TASK_MINUTES, (first, last))}
    nothing = {**dict.fromkeys(COUNTED, 0), "run_ms_max": None}
    tasks = []
    for row in database.read(queries.TASKS):
        described = {name: row[name] for name in ("task", "ready", "scheduled", "running")}
        found = counted.get(row["task"], nothing)
        described |= {name: found[name] for name in (*COUNTED, "run_ms_max")}
        recent_ms = [int(ms) for ms in reversed(row["last_runs_ms"].split(",")) if ms]
        described["run_ms_p50"] = statistics.median(recent_ms) if recent_ms else None
        described["recent_run_ms"] = recent_ms
        described["last_at"] = row["last_run_at"] or None
        tasks.append(described)
    return tasks


def _weight(task: dict[str, Any]) -> int:
    return sum(task[kind] for kind in ("ready", "scheduled", "running", "enqueued", "done", "failed"))
