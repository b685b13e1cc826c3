"""What people do by hand: run failed jobs again, cancel, delete, pause (P2)."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
import threading
from typing import Any

import pytest
from huey import chord
from huey.exceptions import TaskException
from huey.utils import SKIPPED

from app.kit.engine.jobs import shelf
from tests.kit.engine_rig import PATIENCE_S, Rig, until
from tests.kit.queue_rig import count_anew


class Mood:
    """A body that fails while it is bad."""

    bad = True

    def __call__(self, n: int = 0) -> int:
        if self.bad:
            raise ValueError("no")
        return n


@pytest.fixture
def mood() -> Mood:
    """What the body of the tasks feels like."""
    return Mood()


@pytest.fixture
def fickle(rig: Rig, mood: Mood) -> Any:
    """A task that fails until the mood is better."""
    return rig.huey.task(name="fickle", retries=1)(lambda n=0: mood(n))


def name_of(rig: Rig, task: Any) -> str:
    return str(rig.huey._registry.task_to_string(task.task_class))


# Redrive


def test_a_failed_job_runs_again_with_its_arguments(rig: Rig, fickle: Any, mood: Mood) -> None:
    result = fickle(7)
    rig.run_all()
    assert rig.states() == {"failed": 1}
    mood.bad = False
    assert rig.huey.redrive(result.id) == 1
    rig.run_all()
    assert (result.get(), rig.row(result.id)["error"]) == (7, None)


def test_a_redriven_job_starts_as_if_new_but_for_its_history(rig: Rig, fickle: Any) -> None:
    result = fickle()
    rig.run_all()
    rig.huey.redrive()
    row = rig.row(result.id)
    assert [row[key] for key in ("state", "attempt", "deaths", "waits", "retries")] == [
        "ready",
        0,
        0,
        0,
        None,
    ]
    assert [row[key] for key in ("finished_at", "error", "result", "progress")] == [None] * 4
    rig.run_all()
    attempts = rig.huey.details(result.id)["attempts"]
    assert [attempt["number"] for attempt in attempts] == [1, 2, 1, 2]


@pytest.mark.parametrize("is_moment", [False, True])
def test_a_redriven_job_has_as_long_to_run_as_it_had_when_it_came(
    rig: Rig, fickle: Any, mood: Mood, is_moment: bool
) -> None:
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60) if is_moment else 60
    results = [fickle(expires=expires) for _ in range(2)]
    rig.run_all()
    mood.bad = False
    rig.clock.advance(3600)
    for result, later_s, state in ((results[0], 50, "done"), (results[1], 70, "cancelled")):
        assert rig.huey.redrive(result.id) == 1
        rig.clock.advance(later_s)
        rig.run_all()
        assert rig.row(result.id)["state"] == state


def test_a_redriven_job_keeps_its_place_and_its_id(rig: Rig, fickle: Any, give: Any) -> None:
    result = fickle()
    rig.run_all()
    later = give(1)
    before = rig.row(result.id)["id"]
    rig.huey.redrive()
    assert [rig.claim()[0].uuid, rig.claim()[0].uuid] == [result.id, later.id]
    assert rig.row(result.id)["id"] == before


def test_all_failed_jobs_of_one_task_run_again_and_no_others(rig: Rig, fickle: Any) -> None:
    other = rig.huey.task(name="other")(lambda: {}["no"])
    fickle(1), fickle(2), other()
    rig.run_all()
    assert rig.huey.redrive(task=name_of(rig, fickle)) == 2
    assert rig.states() == {"ready": 2, "failed": 1}


def test_all_failed_jobs_run_again_and_nothing_else_does(rig: Rig, fickle: Any, give: Any) -> None:
    fickle(1), fickle(2), give(1)
    cancelled = give.schedule(delay=60)
    rig.huey.cancel(cancelled.id)
    rig.run_all()
    assert rig.huey.redrive() == 2
    assert rig.states() == {"ready": 2, "done": 1, "cancelled": 1}


def test_what_has_not_failed_is_not_redriven(rig: Rig, give: Any) -> None:
    results = [give(1), give.schedule(delay=60)]
    rig.run_all()
    results.append(give(2))
    assert [rig.huey.redrive(result.id) for result in results] == [0, 0, 0]
    assert rig.huey.redrive("nobody knows") == 0


def test_redriven_jobs_wake_sleeping_workers(rig: Rig, fickle: Any, mood: Mood) -> None:
    results = [fickle(n) for n in range(4)]
    with rig.consuming():
        until(lambda: rig.states() == {"failed": 4})
        mood.bad = False
        assert rig.huey.redrive() == 4
        assert [result.get(blocking=True, timeout=PATIENCE_S) for result in results] == [0, 1, 2, 3]


def test_a_job_that_died_too_often_may_be_redriven_and_is_no_suspect_any_more(rig: Rig, give: Any) -> None:
    poison, other = give("poison"), give("other")
    for _ in range(3):
        assert rig.claim("i1")[0].uuid == poison.id
        rig.huey.free("i1")
    assert rig.row(poison.id)["state"] == "failed"
    rig.huey.redrive()
    assert [rig.claim("i2")[0].uuid, rig.claim("i2")[0].uuid] == [poison.id, other.id]


def test_a_redrive_of_ten_thousand_is_one_commit(rig: Rig, fickle: Any) -> None:
    sql = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO postroom_jobs"
        " (uuid, task, payload, state, enqueued_at, finished_at, error)"
        " SELECT i, 't', X'', 'failed', 1, 1, 'e' FROM n"
    )
    with rig.database.transaction() as connection:
        connection.execute(sql)
        count_anew(connection)
    with rig.commits() as count:
        assert (rig.huey.redrive(), count()) == (10_000, 1)


@pytest.mark.parametrize(
    ("which", "step"),
    [
        ({"uuid": "one"}, r"SEARCH postroom_jobs USING INDEX sqlite_autoindex_postroom_jobs_1 \(uuid=\?\)"),
        (
            {"task": "fickle"},
            r"SEARCH postroom_jobs USING INDEX postroom_jobs_failed_by_task \(task=\?\)",
        ),
        (
            {"uuid": "one", "task": "fickle"},
            r"SEARCH postroom_jobs USING INDEX sqlite_autoindex_postroom_jobs_1 \(uuid=\?\)",
        ),
        ({}, r"SCAN postroom_jobs USING INDEX postroom_jobs_failed"),
    ],
)
def test_a_redrive_walks_no_further_along_the_shelf_than_it_must(
    rig: Rig, which: dict[str, str], step: str
) -> None:
    asked: list[str] = []

    def plan(connection: sqlite3.Connection) -> str:
        connection.set_trace_callback(asked.append)
        shelf.redrive(connection, 1.0, **which)
        connection.set_trace_callback(None)
        (update,) = [sql for sql in asked if sql.startswith("UPDATE postroom_jobs")]
        return " | ".join(row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {update}"))

    # Newer versions of SQLite read the rowid from the index alone, and call it covering.
    assert re.fullmatch(step, rig.database.write(plan).replace("COVERING ", ""))


# Cancel


@pytest.mark.parametrize("when", ["ready", "scheduled"])
def test_a_job_that_waits_can_be_cancelled_and_never_runs(rig: Rig, give: Any, when: str) -> None:
    result = give(1) if when == "ready" else give.schedule((1,), delay=60)
    assert rig.huey.cancel(result.id)
    rig.clock.advance(3600)
    rig.promote()
    rig.run_all()
    row = rig.row(result.id)
    assert (row["state"], row["error"], row["attempt"]) == ("cancelled", "Cancelled: by hand", 0)


def test_what_runs_or_has_ended_is_not_cancelled(rig: Rig, fickle: Any, give: Any) -> None:
    failed, done = fickle(), give(1)
    rig.run_all()
    running = give(2)
    rig.claim()
    uuids = [failed.id, done.id, running.id, "nobody knows"]
    assert [rig.huey.cancel(uuid) for uuid in uuids] == [False] * 4
    assert rig.states() == {"failed": 1, "done": 1, "running": 1}


def test_a_chord_whose_member_is_cancelled_fires_without_it(rig: Rig, give: Any) -> None:
    gathered: list[Any] = []
    gather = rig.huey.task(name="gather")(lambda values: gathered.extend(list(values)))
    rig.huey.enqueue(chord([give.s(1), give.s(2, delay=3600), give.s(3)], gather.s()))
    rig.run_all()
    (uuid,) = [row[0] for row in rig.rows("SELECT uuid FROM postroom_jobs WHERE state = 'scheduled'")]
    assert rig.huey.cancel(uuid)
    rig.run_all()
    assert gathered == [1, SKIPPED, 3]


def test_a_sleeping_worker_wakes_for_the_chord_of_a_cancelled_member(rig: Rig, give: Any) -> None:
    fired = threading.Event()
    gather = rig.huey.task(name="gather")(lambda values: fired.set())
    rig.huey.enqueue(chord([give.s(2, delay=3600)], gather.s()))
    with rig.consuming():
        rig.huey.cancel(rig.rows("SELECT uuid FROM postroom_jobs")[0][0])
        assert fired.wait(PATIENCE_S)


def test_a_chord_hears_of_the_end_of_a_pipeline_that_is_cancelled(rig: Rig, give: Any) -> None:
    gathered: list[Any] = []
    gather = rig.huey.task(name="gather")(lambda values: gathered.extend(list(values)))
    rig.huey.enqueue(chord([give.s(1).then(give)], gather.s()))
    rig.huey.cancel(rig.rows("SELECT uuid FROM postroom_jobs")[0][0])
    rig.run_all()
    assert gathered == [SKIPPED]


def test_a_job_that_cannot_be_read_can_be_cancelled(rig: Rig, give: Any) -> None:
    result = give(1)
    rig.database.write(lambda connection: connection.execute("UPDATE postroom_jobs SET payload = X'00'"))
    assert rig.huey.cancel(result.id)
    assert rig.states() == {"cancelled": 1}


def test_whoever_waits_for_a_job_hears_that_it_is_cancelled(
    rig: Rig, give: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kit.engine.operate.control.ALONE_LOOK_S", 600.0)
    result = give(1)
    waiting = threading.Thread(target=lambda: rig.huey.wait_for_end(result.id, 600.0))
    waiting.start()
    until(lambda: result.id in rig.huey.end_calls._waiting)
    rig.huey.cancel(result.id)
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()


# Delete


def test_a_failed_job_can_be_taken_off_the_shelf_with_its_history(rig: Rig, fickle: Any) -> None:
    result = fickle()
    rig.run_all()
    assert rig.huey.delete_failed(result.id)
    assert rig.rows(
        "SELECT (SELECT COUNT(*) FROM postroom_jobs), (SELECT COUNT(*) FROM postroom_attempts)"
    ) == [(0, 0)]


def test_only_failed_jobs_can_be_taken_away(rig: Rig, give: Any) -> None:
    done, waits = give(1), give.schedule(delay=60)
    rig.run_all()
    assert [rig.huey.delete_failed(uuid) for uuid in (done.id, waits.id, "nobody knows")] == [False] * 3


def test_a_failed_job_says_why_where_its_result_is_asked_for_until_it_is_redriven(
    rig: Rig, fickle: Any
) -> None:
    result = fickle()
    rig.run_all()
    with pytest.raises(TaskException, match="no"):
        result.get()
    rig.huey.redrive()
    result.reset()
    assert result.get() is None


def test_the_whole_shelf_is_emptied_in_small_batches(
    rig: Rig, give: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "BATCH_ROWS", 3)
    fail = rig.huey.task(name="fail")(lambda n: {}[n])
    fail.map(range(7)), give(1)
    rig.run_all()
    with rig.commits() as count:
        assert rig.huey.delete_all_failed() == 7
        assert count() == 4
    assert (rig.states(), rig.rows("SELECT COUNT(*) FROM postroom_attempts")) == ({"done": 1}, [(0,)])


def test_one_tasks_failed_jobs_are_deleted_and_no_others(rig: Rig) -> None:
    fail, other = (rig.huey.task(name=name)(lambda: {}[0]) for name in ("fail", "other"))
    fail(), fail(), other()
    rig.run_all()
    assert rig.huey.delete_all_failed(name_of(rig, fail)) == 2
    assert rig.huey.delete_all_failed("nobody knows") == 0
    assert [job["task"] for job in rig.huey.list_jobs("failed")] == [name_of(rig, other)]


def test_what_fails_while_the_shelf_is_emptied_stays(rig: Rig) -> None:
    fail = rig.huey.task(name="fail")(lambda: {}[0])
    fail(), fail()
    rig.run_next()
    rig.clock.advance(1000)
    rig.run_next()
    rig.clock.advance(-500)
    assert rig.huey.delete_all_failed() == 1
    assert rig.states() == {"failed": 1}


# Pauses


def test_the_last_pause_of_a_task_counts(rig: Rig) -> None:
    rig.huey.pause("mail", seconds=60)
    rig.huey.pause("mail", reason="for good")
    assert rig.rows("SELECT * FROM postroom_pauses") == [("mail", "for good", None)]
    assert [rig.huey.resume("mail"), rig.huey.resume("mail")] == [True, False]


def test_verbs_inside_a_transaction_are_kept_or_thrown_away_with_it(rig: Rig, give: Any) -> None:
    result = give(1)

    def undone() -> None:
        with rig.database.transaction():
            rig.huey.cancel(result.id)
            rig.huey.pause("mail")
            raise sqlite3.IntegrityError

    with pytest.raises(sqlite3.IntegrityError):
        undone()
    assert (rig.states(), rig.rows("SELECT * FROM postroom_pauses")) == ({"ready": 1}, [])


def test_flushing_a_state_leaves_the_others(rig: Rig, give: Any) -> None:
    give(1), give.schedule(delay=60)
    rig.database.write(lambda connection: shelf.drop(connection, "ready"))
    assert rig.states() == {"scheduled": 1}
