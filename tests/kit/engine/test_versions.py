"""Two versions of the code on one queue: each leaves the other its jobs, and what nobody has fails in view (P2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.kit.engine.jobs.versions import LOOK_FOR_NEWER_S, MAX_WAITS_FOR_NEWER
from tests.kit.engine_rig import Rig, rig_in, until


@pytest.fixture
def newer(rig: Rig) -> Iterator[Rig]:
    """Another process on the same file, whose code has a task more."""
    with rig_in(rig.folder) as newer:
        newer.huey.task(name="hello")(lambda n: n)
        for each in (rig, newer):
            each.huey.task(name="both")(lambda: None)
        yield newer


def hello(newer: Rig) -> Any:
    return next(task for name, task in newer.huey._registry._registry.items() if name.endswith("hello"))


def join(rig: Rig) -> str:
    """Appear among the instances, as a consumer that starts; return the instance's id."""
    consumer = rig.huey.create_consumer(workers=1)
    consumer.instance.join(0, rig.huey.own_task_names())
    rig.huey.consumes_since = rig.clock()
    rig.huey.has_siblings = True
    return str(consumer.instance.id)


def test_the_older_version_leaves_jobs_alone_whose_task_the_newer_one_has(rig: Rig, newer: Rig) -> None:
    with newer.consuming(), rig.consuming():
        for n in range(20):
            newer.huey.enqueue(hello(newer)((n,)))
        until(lambda: newer.states() == {"done": 20}, "all jobs of the newer version")
    assert newer.rows("SELECT COUNT(*) FROM postroom_attempts") == [(0,)]


def test_a_job_that_both_know_is_anybodys(rig: Rig, newer: Rig) -> None:
    old, new = join(rig), join(newer)
    newer.huey.enqueue(hello(newer)((1,)))
    for each in (rig, newer):
        each.huey.enqueue(next(t for n, t in each.huey._registry._registry.items() if n.endswith("both"))())
    claimed = [job.task.rpartition(".")[2] for _ in range(3) for job in rig.claim(old)]
    assert claimed == ["both", "both"]
    assert [job.task.rpartition(".")[2] for job in newer.claim(new)] == ["hello"]


def test_while_the_newer_version_is_away_its_jobs_wait_for_it(rig: Rig, newer: Rig) -> None:
    with rig.consuming():
        result = newer.huey.enqueue(hello(newer)((1,)))
        until(lambda: newer.states() == {"scheduled": 1}, "the older version to put it off")
        row = newer.row(result.id)
        assert (row["attempt"], row["waits"]) == (0, 1)
    newer.clock.advance(LOOK_FOR_NEWER_S + 1)
    newer.run_all()
    assert newer.states() == {"done": 1}


def test_what_nobody_has_for_long_fails_with_the_reason(rig: Rig, newer: Rig) -> None:
    with rig.consuming():
        result = newer.huey.enqueue(hello(newer)((1,)))
        sql = "UPDATE postroom_jobs SET waits = ?, run_at = 1 WHERE state = 'scheduled'"
        until(lambda: newer.states() == {"scheduled": 1}, "the first wait")
        newer.database.write(lambda connection: connection.execute(sql, (MAX_WAITS_FOR_NEWER,)))
        rig.huey.clock_bell.ring()
        until(lambda: newer.states() == {"failed": 1}, "the end")
    assert "hello not found" in newer.row(result.id)["error"]


def test_what_waited_before_the_process_started_and_nobody_has_fails_at_once(rig: Rig, newer: Rig) -> None:
    newer.huey.enqueue(hello(newer)((1,)))
    rig.run_all()
    assert newer.states() == {"failed": 1}


def test_a_job_that_waits_for_a_newer_version_keeps_its_tries(rig: Rig, newer: Rig) -> None:
    rig.huey.consumes_since = 0
    result = newer.huey.enqueue(hello(newer)((1,)))
    sql = "UPDATE postroom_jobs SET retries = 4, retry_delay = 2.5"
    newer.database.write(lambda connection: connection.execute(sql))
    rig.run_next()
    row = newer.row(result.id)
    assert (row["state"], row["retries"], row["retry_delay"]) == ("scheduled", 4, 2.5)


def test_the_tasks_of_a_process_that_is_gone_bar_nobody(rig: Rig, newer: Rig) -> None:
    old, new = join(rig), join(newer)
    newer.huey.enqueue(hello(newer)((1,)))
    assert rig.claim(old) == []
    newer.huey.free(new)
    assert len(rig.claim(old)) == 1


def test_claims_are_not_slowed_where_a_process_is_alone(tmp_path: Path) -> None:
    with rig_in(tmp_path) as rig:
        assert rig.huey.rules().known is None
        rig.huey.has_siblings = True
        assert rig.huey.rules().known == frozenset(rig.huey.own_task_names())
