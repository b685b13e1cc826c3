"""What is old goes, in small batches, and the file gives its room back (P4)."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from app.kit.database.file import Database
from app.kit.engine.consumer.clock import Clock
from app.kit.engine.jobs import job as jobs, shelf, upkeep
from app.kit.engine.jobs.job import ChordPart
from app.kit.engine.jobs.upkeep import BATCH_ROWS, KEEP_DONE_ROWS, KEEP_DONE_S, Ages
from tests.kit.engine_rig import Rig, until
from tests.kit.queue_rig import NOW, Queue, count_anew, queue_in

AGES = Ages(result_s=100, done_s=200, failed_s=300)
ROWS = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO postroom_jobs (uuid, task, payload, state, enqueued_at, finished_at, run_at, instance, result, error)
SELECT :state || ' ' || :at || ' ' || i, 't', X'7b7d', :state, 1,
    CASE WHEN :state IN ('done', 'failed', 'cancelled') THEN :at END,
    CASE WHEN :state = 'scheduled' THEN :at END, CASE WHEN :state = 'running' THEN 'i1' END,
    CASE WHEN :state = 'done' THEN X'31' END, CASE WHEN :state IN ('failed', 'cancelled') THEN 'E: e' END FROM n
"""


def fill(queue: Queue, count: int, state: str, age_s: float) -> None:
    """Insert rows that ended so long ago."""
    values = {"count": count, "state": state, "at": NOW - age_s}
    with queue.database.transaction() as connection:
        connection.execute(ROWS, values)
        count_anew(connection)


def prune(queue: Queue, ages: Ages = AGES, now: float = NOW) -> int:
    return queue.database.write(lambda connection: upkeep.prune(connection, ages, now))


def prune_all(queue: Queue, ages: Ages = AGES) -> None:
    while prune(queue, ages):
        pass


def count(queue: Queue, table: str = "postroom_jobs") -> int:
    return int(queue.all(f"SELECT COUNT(*) FROM {table}")[0][0])


# Jobs


@pytest.mark.parametrize(("state", "limit_s"), [("done", 200), ("cancelled", 200), ("failed", 300)])
def test_a_job_that_has_ended_goes_when_it_is_past_its_age_and_not_before(
    queue: Queue, state: str, limit_s: int
) -> None:
    fill(queue, 2, state, limit_s + 1)
    fill(queue, 3, state, limit_s)
    prune_all(queue)
    assert count(queue) == 3


@pytest.mark.parametrize("state", ["scheduled", "ready", "running"])
def test_a_job_that_is_live_never_goes(queue: Queue, state: str) -> None:
    fill(queue, 3, state, 1e6)
    prune_all(queue)
    assert count(queue) == 3


def test_one_batch_is_small(queue: Queue) -> None:
    fill(queue, 3 * BATCH_ROWS, "done", 1000)
    assert prune(queue) == BATCH_ROWS
    assert count(queue) == 2 * BATCH_ROWS


def test_a_result_goes_before_its_job_when_its_age_is_shorter(queue: Queue) -> None:
    fill(queue, 2, "done", 101)
    fill(queue, 3, "done", 100)
    prune_all(queue)
    assert queue.all("SELECT COUNT(*), COUNT(result) FROM postroom_jobs") == [(5, 3)]


def test_a_result_lives_no_longer_than_its_job(queue: Queue) -> None:
    fill(queue, 1, "done", 150)
    prune_all(queue, Ages(result_s=1000, done_s=100, failed_s=300))
    assert count(queue) == 0


def test_beyond_ten_thousand_done_jobs_the_oldest_go_after_an_hour(queue: Queue) -> None:
    fill(queue, 700, "done", KEEP_DONE_S + 2)
    fill(queue, KEEP_DONE_ROWS, "done", KEEP_DONE_S + 1)
    prune_all(queue, Ages())
    assert queue.all("SELECT COUNT(*), MIN(finished_at) FROM postroom_jobs") == [
        (KEEP_DONE_ROWS, NOW - KEEP_DONE_S - 1)
    ]


def test_within_the_hour_as_many_are_kept_as_there_are(queue: Queue) -> None:
    fill(queue, KEEP_DONE_ROWS + 700, "done", KEEP_DONE_S)
    prune_all(queue, Ages())
    assert count(queue) == KEEP_DONE_ROWS + 700


def test_the_history_goes_with_its_job(queue: Queue) -> None:
    fill(queue, 1, "failed", 1000)
    note = "INSERT INTO postroom_attempts SELECT id, 1, 'error', 1, 1, 'E: e', NULL FROM postroom_jobs"
    queue.database.write(lambda connection: connection.execute(note))
    prune_all(queue)
    assert count(queue, "postroom_attempts") == 0


# What Huey keeps beside


def test_a_value_goes_when_it_has_expired_and_one_without_an_end_stays(queue: Queue) -> None:
    for key, expires_at in [("old", NOW - 1), ("now", NOW), ("later", NOW + 1), ("flag", None)]:
        values = (key, b"1", expires_at)
        queue.database.write(
            lambda c, values=values: c.execute(
                "INSERT INTO postroom_huey_data (key, value, expires_at) VALUES (?, ?, ?)", values
            )
        )
    prune_all(queue)
    assert queue.all("SELECT key FROM postroom_huey_data ORDER BY key") == [("flag",), ("later",), ("now",)]


def test_a_pause_that_is_over_goes_and_others_stay(queue: Queue) -> None:
    for task, until_at in [("over", NOW - 1), ("on", NOW + 1), ("endless", None)]:
        queue.database.write(lambda c, task=task, until_at=until_at: shelf.pause(c, task, "a rest", until_at))
    prune_all(queue)
    assert queue.all("SELECT task FROM postroom_pauses ORDER BY task") == [("endless",), ("on",)]


def test_a_chord_that_waits_keeps_its_parts_for_weeks(queue: Queue) -> None:
    queue.add_part(ChordPart("chord", 2, 0, b"first"))
    prune(queue, now=NOW + 60 * 24 * 3600)
    assert queue.add_part(ChordPart("chord", 2, 1, b"second")) == [b"first", b"second"]


def test_a_chord_that_has_fired_goes_after_a_week_with_its_parts(queue: Queue) -> None:
    queue.add_part(ChordPart("chord", 1, 0, b"only"))
    prune(queue, now=NOW + 7 * 24 * 3600)
    assert count(queue, "postroom_chords") == 1
    prune(queue, now=NOW + 7 * 24 * 3600 + 1)
    assert (count(queue, "postroom_chords"), count(queue, "postroom_chord_parts")) == (0, 0)


def test_a_chord_whose_last_member_never_came_goes_after_a_year(queue: Queue) -> None:
    queue.add_part(ChordPart("chord", 2, 0, b"first"))
    prune(queue, now=NOW + 366 * 24 * 3600)
    assert (count(queue, "postroom_chords"), count(queue, "postroom_chord_parts")) == (0, 0)


# The numbers

MINUTE = int(NOW // 60)


def add_minutes(queue: Queue, *minutes: int, task: str = "t") -> None:
    rows = [(minute, task) for minute in minutes]
    sql = "INSERT INTO postroom_past_minutes VALUES (?, ?, 1, 1, 0, 0, 0, 0, 0)"
    queue.database.write(lambda connection: connection.executemany(sql, rows))


def test_the_numbers_of_a_minute_go_after_a_day_and_an_hour(queue: Queue) -> None:
    add_minutes(queue, MINUTE - 25 * 60 - 1, MINUTE - 25 * 60, MINUTE - 1)
    prune_all(queue)
    kept = [(MINUTE - 25 * 60,), (MINUTE - 1,)]
    assert queue.all("SELECT minute FROM postroom_past_minutes ORDER BY minute") == kept


def test_the_numbers_of_minutes_that_a_wrong_clock_made_go_too(queue: Queue) -> None:
    add_minutes(queue, MINUTE + 1, MINUTE + 365 * 24 * 60)
    prune_all(queue)
    assert queue.all("SELECT minute FROM postroom_past_minutes") == [(MINUTE + 1,)]


def test_very_many_tasks_have_fewer_hours_of_numbers(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "KEEP_MINUTE_ROWS", 10)
    for number in range(4):
        add_minutes(queue, *range(MINUTE - 5, MINUTE), task=f"t{number}")
    prune_all(queue)
    assert queue.all("SELECT DISTINCT minute FROM postroom_past_minutes ORDER BY minute") == [
        (MINUTE - 2,),
        (MINUTE - 1,),
    ]


def add_tasks(queue: Queue, **minutes: int) -> None:
    """Add the counts of tasks without jobs, last heard of in a minute."""
    sql = "INSERT INTO postroom_task_counts (task, minute) VALUES (?, ?)"
    queue.database.write(lambda connection: connection.executemany(sql, list(minutes.items())))


def tasks_counted(queue: Queue) -> list[str]:
    return [name for (name,) in queue.all("SELECT task FROM postroom_task_counts ORDER BY task")]


def test_a_task_without_jobs_is_forgotten_after_two_months_and_one_with_jobs_is_not(queue: Queue) -> None:
    months = upkeep.KEEP_TASK_MINUTES
    add_tasks(queue, gone=MINUTE - months - 1, rare=MINUTE - months)
    queue.insert("a")
    queue.database.write(
        lambda connection: connection.execute("UPDATE postroom_task_counts SET minute = 1 WHERE ready")
    )
    prune_all(queue)
    assert tasks_counted(queue) == ["a_task", "rare"]


def test_of_tasks_without_jobs_those_heard_of_last_are_kept(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "KEEP_IDLE_TASKS", 2)
    add_tasks(queue, a=MINUTE - 3, b=MINUTE - 1, c=MINUTE - 2)
    prune_all(queue)
    assert tasks_counted(queue) == ["b", "c"]


def test_a_forgotten_task_is_counted_anew(queue: Queue) -> None:
    add_tasks(queue, a_task=1)
    prune_all(queue)
    queue.insert("a")
    assert queue.finish(queue.claim_one(), jobs.Ending("done"))
    assert queue.all("SELECT done, now_enqueued, now_done FROM postroom_task_counts") == [(1, 1, 1)]


# The file


def use_much_room(database: Database) -> int:
    """Fill the file and empty it again; return its pages."""
    database.write(lambda c: c.execute("CREATE TABLE big (b BLOB)"))
    database.write(lambda c: c.execute(f"INSERT INTO big SELECT zeroblob(1000) {'FROM ' + SOME_ROWS}"))
    database.write(lambda c: c.execute("DELETE FROM big"))
    return pages(database)


SOME_ROWS = (
    "(WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000) SELECT i FROM n)"
)


def pages(database: Database) -> int:
    return database.write(lambda c: int(c.execute("PRAGMA page_count").fetchone()[0]))


def test_free_pages_go_back_a_few_at_a_time(queue: Queue) -> None:
    before = use_much_room(queue.database)
    assert queue.database.write(upkeep.vacuum)
    # beside them go the pages in which SQLite keeps where pages are
    assert upkeep.VACUUM_PAGES <= before - pages(queue.database) <= upkeep.VACUUM_PAGES + 2


def test_in_the_end_all_free_pages_are_given_back(queue: Queue) -> None:
    before = use_much_room(queue.database)
    while queue.database.write(upkeep.vacuum):
        pass
    assert pages(queue.database) < before / 10
    assert queue.database.write(lambda c: c.execute("PRAGMA freelist_count").fetchone()[0]) == 0


def test_a_file_made_without_auto_vacuum_is_not_asked_again_and_again(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "queue.db")
    connection.execute("CREATE TABLE foreign_hands (n INTEGER)")
    connection.commit()
    connection.close()
    with queue_in(tmp_path) as queue:
        use_much_room(queue.database)
        assert not queue.database.write(upkeep.vacuum)


# The clock does it


def start_clock(rig: Rig) -> Clock:
    clock: Clock = rig.huey.create_consumer(workers=1)._create_scheduler()
    clock._upkeep_due = 0.0
    return clock


def test_the_clock_comes_back_soon_while_there_is_something_to_do(rig: Rig) -> None:
    values = {"count": BATCH_ROWS + 1, "state": "done", "at": 0.0}
    rig.database.write(lambda connection: connection.execute(ROWS, values))
    clock = start_clock(rig)
    soon: list[bool] = []
    while rig.states() or rig.database.write(upkeep._free_pages):
        clock._upkeep_due = 0.0
        clock._keep_up()
        soon.append(clock._upkeep_due - time.monotonic() < 1)
    assert soon[0]
    clock._keep_up()
    assert clock._upkeep_due - time.monotonic() > 1


def test_upkeep_is_left_for_later_while_it_is_not_due(rig: Rig) -> None:
    values = {"count": 1, "state": "done", "at": 0.0}
    rig.database.write(lambda connection: connection.execute(ROWS, values))
    clock = start_clock(rig)
    clock._upkeep_due = time.monotonic() + 100
    clock._keep_up()
    assert rig.states() == {"done": 1}


def test_the_consumer_keeps_its_tables_small(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.kit.engine.consumer.clock.UPKEEP_S", 0.01)
    give: Any = rig.huey.task(name="give")(lambda: None)
    with rig.consuming():
        give.map([()] * 10)
        until(lambda: rig.states() == {"done": 10})
        rig.clock.advance(rig.huey.ages.done_s + 1)
        until(lambda: rig.states() == {})


def test_idle_upkeep_writes_nothing(rig: Rig) -> None:
    clock = start_clock(rig)
    while rig.database.write(upkeep.vacuum):
        pass
    before = rig.database.data_version()
    clock._keep_up()
    assert rig.database.data_version() == before


def test_a_pruned_id_is_never_given_again(queue: Queue) -> None:
    fill(queue, 3, "done", 1000)
    prune_all(queue)
    queue.insert("next")
    assert queue.row("next")["id"] == 4


def test_pruning_and_claiming_go_on_side_by_side(queue: Queue) -> None:
    fill(queue, 2 * BATCH_ROWS, "done", 1000)
    queue.insert("a", "b")
    job = queue.claim_one()
    prune(queue)
    assert queue.finish(job, jobs.Ending("done"))
    prune(queue)
    assert queue.claim_one().uuid == "b"
