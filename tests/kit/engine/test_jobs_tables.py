"""The queue's tables: chords that fire once, cron that fires once a minute, rows that no CHECK lets in (P2)."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from app.kit.engine.jobs import claim as claims, cron, queries
from app.kit.engine.jobs.job import ChordPart, Ending
from tests.kit.engine_rig import Threads
from tests.kit.queue_rig import NOW, Queue, count_anew

# Chords


def part(position: int, value: bytes = b"v", size: int = 3) -> ChordPart:
    return ChordPart("chord", size, position, value)


def test_a_chord_fires_with_its_last_member_and_its_values_are_in_order(queue: Queue) -> None:
    assert queue.add_part(part(2, b"c")) is None
    assert queue.add_part(part(0, b"a")) is None
    assert queue.add_part(part(1, b"b")) == [b"a", b"b", b"c"]


def test_a_member_that_ran_twice_counts_once_and_its_first_value_stays(queue: Queue) -> None:
    assert queue.add_part(part(0, b"first")) is None
    assert queue.add_part(part(0, b"second")) is None
    assert queue.add_part(part(1)) is None
    assert queue.add_part(part(2)) == [b"first", b"v", b"v"]


def test_a_chord_fires_once(queue: Queue) -> None:
    fired = [queue.add_part(part(position)) for position in (0, 1, 2, 2, 0, 1)]
    assert [values is not None for values in fired] == [False, False, True, False, False, False]


def test_a_chord_of_a_thousand_fires_once_when_its_members_race(queue: Queue) -> None:
    fired: list[object] = []

    def add(first: int) -> None:
        for position in range(first, 200, 8):
            values = queue.add_part(part(position, size=200))
            if values is not None:
                fired.append(values)

    with Threads() as threads:
        for first in range(8):
            threads.start(lambda first=first: add(first))
    assert (threads.errors, fired) == ([], [[b"v"] * 200])


# Cron


def test_a_minute_of_a_periodic_task_is_noted_once(queue: Queue) -> None:
    def note(task: str, minute: int) -> bool:
        return queue.database.write(lambda connection: cron.add_cron_run(connection, task, minute))

    asked = [("a", 1), ("a", 1), ("b", 1), ("a", 2), ("a", 1)]
    assert [note(*pair) for pair in asked] == [True, False, True, True, False]


def test_minutes_long_past_are_forgotten(queue: Queue) -> None:
    for minute in (0, 7 * 24 * 60, 7 * 24 * 60 + 1):
        queue.database.write(lambda connection, minute=minute: cron.add_cron_run(connection, "a", minute))
    assert queue.all("SELECT minute FROM postroom_cron_runs ORDER BY minute") == [(10080,), (10081,)]


# The shelf


@pytest.mark.parametrize("run_at", [None, NOW + 60], ids=["ready", "scheduled"])
def test_a_job_that_cannot_run_goes_to_the_shelf_with_its_reason(queue: Queue, run_at: float | None) -> None:
    queue.insert("a", run_at=run_at)
    queue.shelve("a", "TooLarge: by far")
    row = queue.row("a")
    assert (row["state"], row["error"], row["run_at"]) == ("failed", "TooLarge: by far", None)


@pytest.mark.parametrize("state", ["running", "done"])
def test_a_job_that_runs_or_has_ended_is_not_shelved(queue: Queue, state: str) -> None:
    queue.insert("a")
    job = queue.claim_one()
    if state == "done":
        queue.finish(job, Ending("done"))
    queue.shelve("a", "TooLarge: by far")
    assert (queue.row("a")["state"], queue.row("a")["error"]) == (state, None)


# Rows that may not be

READY: dict[str, Any] = {"state": "ready"}
ILLEGAL = [
    {"state": "asleep"},
    {"state": "scheduled"},
    {"state": "ready", "run_at": NOW},
    {"state": "running"},
    {"state": "ready", "instance": "i1"},
    {"state": "done"},
    {"state": "ready", "finished_at": NOW},
    {"state": "failed", "finished_at": NOW},
    {"state": "cancelled", "finished_at": NOW},
    {"state": "done", "finished_at": NOW, "error": "but why"},
    {"state": "ready", "attempt": -1},
    {"state": "ready", "task": None},
    {"state": "ready", "payload": None},
    {"state": "ready", "uuid": None},
    {"state": "ready", "priority": None},
]


def insert_row(queue: Queue, changed: dict[str, Any]) -> None:
    row = {"uuid": "a", "task": "t", "payload": b"", "enqueued_at": NOW, **changed}
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    sql = f"INSERT INTO postroom_jobs ({names}) VALUES ({marks})"
    with queue.database.transaction() as connection:
        connection.execute(sql, tuple(row.values()))
        count_anew(connection)


@pytest.mark.parametrize("changed", ILLEGAL, ids=str)
def test_an_illegal_row_is_refused(queue: Queue, changed: dict[str, Any]) -> None:
    insert_row(queue, READY | {"uuid": "legal"})
    with pytest.raises(sqlite3.IntegrityError):
        insert_row(queue, changed)
    assert queue.all("SELECT uuid FROM postroom_jobs") == [("legal",)]


@pytest.mark.parametrize("outcome", ["death", "wait", "error", "stopped", "boredom"])
def test_the_history_knows_four_outcomes(queue: Queue, outcome: str) -> None:
    queue.insert("a")

    def note(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO postroom_attempts VALUES (1, 1, ?, ?, ?, 'e', NULL)", (outcome, NOW, NOW)
        )

    if outcome == "boredom":
        with pytest.raises(sqlite3.IntegrityError):
            queue.database.write(note)
    else:
        queue.database.write(note)


def test_the_history_goes_with_its_job(queue: Queue) -> None:
    queue.insert("a")
    queue.finish(queue.claim_one(), Ending("failed", error="E: e"))
    queue.database.write(lambda connection: connection.execute("DELETE FROM postroom_jobs"))
    assert queue.attempts() == []


# Costs


PLANS = {
    "oldest": (queries.OLDEST_READY, (), "postroom_jobs_ready_by_task (task=? AND priority=?)"),
    "look": (claims.LOOK.format(limited="?"), (NOW, "a"), "postroom_jobs_suspect"),
    "promote": (
        "SELECT id FROM postroom_jobs WHERE state = 'scheduled' AND run_at <= ? ORDER BY run_at LIMIT ?",
        (NOW, 10),
        "postroom_jobs_due",
    ),
    "free": (
        "SELECT id FROM postroom_jobs WHERE state = 'running' AND instance = ?",
        ("i1",),
        "postroom_jobs_running",
    ),
    "list failed": (
        queries.LISTED.format(state="failed", by="", of_task=""),
        {"before_id": 9, "looked_at": 9, "text": "", "limit": 9},
        "postroom_jobs_failed",
    ),
    "list a task's failed": (
        queries.LISTED.format(state="failed", by="", of_task="AND task = :task"),
        {"before_id": 9, "looked_at": 9, "text": "", "limit": 9, "task": "t"},
        "postroom_jobs_failed_by_task",
    ),
    "live": (queries.LIVE, ('["one", "two"]',), "sqlite_autoindex_postroom_jobs_1 (uuid=?)"),
    "last move": (queries.LAST_MOVE, (), "postroom_jobs_ended"),
}


@pytest.mark.parametrize("name", PLANS)
def test_no_verb_scans_or_sorts_the_table(queue: Queue, name: str) -> None:
    sql, parameters, index = PLANS[name]
    plan = " ".join(row["detail"] for row in queue.database.read(f"EXPLAIN QUERY PLAN {sql}", parameters))
    assert index in plan
    assert "TEMP B-TREE" not in plan


def test_who_runs_what_is_found_without_following_all_ids(queue: Queue) -> None:
    (plan, *_) = queue.database.read(f"EXPLAIN QUERY PLAN {queries.RUNNING}")
    assert "postroom_jobs_running" in plan["detail"]
