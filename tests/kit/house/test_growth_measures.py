"""The measure of growth: jobs that wait are as a real enqueue writes them, and none is lost in the measure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.kit.database.file import Database
from tests.kit.benchmarks.growth_measures import GROWTH_MEASURES, Crowd
from tests.kit.benchmarks.measures import Contestant, FailedError, Run

(GROWTH,) = GROWTH_MEASURES


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    """A queue in which some jobs wait."""
    crowd = Crowd(tmp_path, "NORMAL", 20)
    yield crowd
    crowd.database.close()


def columns(database: Database, number: int) -> dict[str, object]:
    """Return all of a job but its id and its times."""
    job = dict(database.read("SELECT * FROM postroom_jobs ORDER BY id")[number])
    uuid = job.pop("uuid")
    job["payload"] = job["payload"].replace(uuid.encode(), b"uuid")
    return {name: value for name, value in job.items() if name not in ("id", "enqueued_at", "ready_at")}


def test_a_job_of_the_crowd_is_as_an_enqueue_writes_it(crowd: Crowd) -> None:
    crowd.enqueue(0)
    real = columns(crowd.database, -1)
    assert all(columns(crowd.database, number) == real for number in range(20))


def test_the_ids_of_the_crowd_are_in_the_order_of_time_and_before_those_to_come(crowd: Crowd) -> None:
    crowd.enqueue(0)
    first, *others = [
        row["uuid"] for row in crowd.database.read("SELECT uuid FROM postroom_jobs ORDER BY id")
    ]
    assert others == sorted(others)
    assert {len(uuid) for uuid in others} == {len(first)} == {36}
    assert others[-2] < first


def test_a_job_of_the_crowd_runs(crowd: Crowd) -> None:
    for _ in range(20):
        assert crowd.claim_and_end() > 0
    results = crowd.database.read(
        "SELECT result FROM postroom_jobs WHERE state = 'done' AND claim = 1 AND attempt = 1"
    )
    assert [row["result"] for row in results] == [b"0"] * 20
    with pytest.raises(FailedError, match="20 jobs wait, 0 were claimed"):
        crowd.claim_and_end()


def test_a_job_too_few_or_a_commit_that_waits_for_no_disk_is_an_error(crowd: Crowd) -> None:
    crowd.check("NORMAL", ended=0)
    with pytest.raises(
        FailedError, match=r"done, counted \(2, 'wal', 20, 0, 20\), found \(1, 'wal', 20, 0, 20\)"
    ):
        crowd.check("FULL", ended=0)
    crowd.claim_and_end()
    with pytest.raises(FailedError, match=r"found \(1, 'wal', 19, 1, 19\)"):
        crowd.check("NORMAL", ended=1)


def test_it_fills_its_rows(tmp_path: Path) -> None:
    contestant = Contestant("postroom", "postroom", {"BENCHMARK_SYNCHRONOUS": "FULL"})
    assert GROWTH.applies_to(contestant)
    assert not GROWTH.applies_to(Contestant("huey_sqlite", "huey_sqlite"))
    found = GROWTH.take(Run(contestant, tmp_path, 1, is_quick=True))
    assert set(found) == {row.key for row in GROWTH.rows}
    assert all(isinstance(value, float) and value > 0 for value in found.values())
