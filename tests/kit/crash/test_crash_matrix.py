"""The real server killed at every step of a job's way: nothing lost, nothing twice but what ran (P1, P2, P3)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kit.crash_rig import CrashSite, Remains, until

pytestmark = pytest.mark.slow

BATCH = [f"job-{number}" for number in range(12)]
THREADS = 4
MINUTES = "SELECT minute FROM postroom_cron_runs WHERE task LIKE '%tick' ORDER BY minute"
RUNNING_AGAIN_WITHIN_S = 5.0
"""Expected under 2 s; a busy machine gets more."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[CrashSite]:
    """The crash site, started; it is killed at the end."""
    with CrashSite(tmp_path, TASK_THREADS=str(THREADS)) as site:
        yield site


def start_again(site: CrashSite, remains: Remains) -> None:
    """Start the site after its death, see what ran then run again, and say after how long."""
    interrupted = remains.ids("running")
    before, began = site.notes.count("start"), time.time()
    site.start()
    if not interrupted:
        return
    until(lambda: any(site.notes.count("start")[one] > before[one] for one in interrupted), "the first again")
    again = [note for note in site.notes.read("start") if note.marker in interrupted and note.at > began]
    print(f"from the start to the first interrupted job: {again[0].at - began:.2f} s")
    assert again[0].at - began < RUNNING_AGAIN_WITHIN_S


def assert_nothing_lost_or_doubled(site: CrashSite, remains: Remains, markers: list[str]) -> None:
    """See every job end, and twice at most what ran when the site died."""
    until(site.is_idle, "the end of every job")
    assert remains.integrity == "ok"
    starts, ends = site.notes.count("start"), site.notes.count("end")
    assert set(markers) <= set(ends)
    twice = {marker for marker, count in starts.items() if count > 1}
    assert twice <= remains.ids("running")
    assert max(starts.values()) <= 2
    deaths = dict(site.rows("SELECT uuid, deaths FROM postroom_jobs WHERE state = 'done' AND deaths > 0"))
    assert deaths == dict.fromkeys(remains.ids("running"), 1)
    assert site.counts()["failed"] == 0
    assert site.rows("PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize(
    "point",
    [
        "after the claim",
        "inside the body",
        "after the body",
        "before the finish commits",
        "after the finish's commit",
    ],
)
def test_a_kill_on_a_jobs_way_loses_nothing_and_repeats_what_ran(site: CrashSite, point: str) -> None:
    site.start_steps(BATCH, 0.3)
    site.wait_for_notes("start", THREADS)
    remains = site.die_at(point)
    assert len(remains.ids("running")) == THREADS
    start_again(site, remains)
    assert_nothing_lost_or_doubled(site, remains, BATCH)


def test_a_kill_right_after_the_enqueues_commit_loses_nothing(site: CrashSite) -> None:
    site.start_steps(BATCH[:-1], 0.3)
    site.wait_for_notes("start", THREADS)
    remains = site.die_at("after the enqueue's commit", lambda: site.start_steps(BATCH[-1:], 0.3))
    assert remains.ids("ready", "running", "done") == set(BATCH)
    start_again(site, remains)
    assert_nothing_lost_or_doubled(site, remains, BATCH)


@pytest.mark.parametrize("chord", [False, True], ids=["group", "chord"])
def test_a_kill_inside_a_groups_enqueue_leaves_none_of_it(site: CrashSite, chord: bool) -> None:
    site.start_steps(BATCH, 0.3)
    group = {"size": 1000, "chord": chord}
    remains = site.die_at("inside a group's enqueue", lambda: site.post("/api/test/group", group))
    assert set(remains.jobs) == set(BATCH)
    start_again(site, remains)
    assert_nothing_lost_or_doubled(site, remains, BATCH)
    assert site.post("/api/test/group", {"size": 100, "chord": chord})[0] == 200
    until(site.is_idle, "the end of the group")
    assert len(site.notes.count("end")) == len(BATCH) + 100
    assert site.notes.count("gathered-100")["chord"] == int(chord)


@pytest.mark.parametrize("point", ["at a chord's last member", "after the finish's commit"])
def test_a_kill_around_a_chords_end_fires_it_once(site: CrashSite, point: str) -> None:
    chord = {"size": 20, "chord": True}
    if point == "at a chord's last member":
        remains = site.die_at(point, lambda: site.post("/api/test/group", chord))
        assert remains.integrity == "ok"
        assert len(remains.ids("done")) < 20
        assert len(remains.jobs) == 20  # the one that gathers was not born
        site.start()
    else:
        assert site.die_at(point, lambda: site.post("/api/test/group", chord)).integrity == "ok"
        assert start_and_die(site, point).integrity == "ok"  # a third time would be a death too many
        site.start()
    until(site.is_idle, "the end of the chord")
    assert site.counts()["failed"] == 0
    gathered = site.notes.read("gathered-20")
    ran_twice = site.rows("SELECT deaths FROM postroom_jobs WHERE task LIKE '%gather'")[0][0]
    assert len(gathered) <= 1 + ran_twice
    assert len(gathered) >= 1
    assert site.rows("SELECT COUNT(*) FROM postroom_jobs WHERE task LIKE '%gather' AND state = 'done'") == [
        (1,)
    ]
    assert site.counts()["done"] == 21


def test_a_kill_during_upkeep_undoes_it_and_loses_nothing_that_waits(tmp_path: Path) -> None:
    with CrashSite(tmp_path, UPKEEP_S="0.1", DONE_TTL_S="1") as site:
        site.start_steps(["old-1", "old-2"], 0)
        site.wait_for_notes("end", 2)
        until(site.is_idle, "the record of both ends")
        site.start_steps(BATCH, 0.5)
        remains = site.die_at("during upkeep")
        assert remains.ids("done") >= {"old-1", "old-2"}
        start_again(site, remains)
        site.wait_for_notes("end", 2 + len(BATCH))
        until(lambda: sum(site.counts().values()) == 0, "upkeep of what is old")
        twice = {marker for marker, count in site.notes.count("start").items() if count > 1}
        assert twice <= remains.ids("running")
        assert remains.integrity == "ok"


def start_and_die(site: CrashSite, point: str) -> Remains:
    """Start the site with a point armed that it meets before it serves, or soon after."""
    site.environ["DIE_AT"] = point
    with suppress(AssertionError):
        site.start()
    del site.environ["DIE_AT"]
    return site.wait_for_death()


def test_a_kill_during_a_migration_leaves_the_tables_as_they_were_and_the_next_start_goes_on(
    site: CrashSite,
) -> None:
    site.start_steps(BATCH, 0.3)
    site.wait_for_notes("start", THREADS)
    site.kill()
    remains = start_and_die(site, "during a migration")
    assert "colour" not in next(iter(remains.jobs.values()))
    site.environ["MIGRATE"] = "1"
    start_again(site, remains)
    assert_nothing_lost_or_doubled(site, remains, BATCH)
    assert site.rows("SELECT colour FROM postroom_jobs LIMIT 1") == [(None,)]
    assert site.rows("SELECT COUNT(*) FROM colours") == [(0,)]


def test_a_kill_during_the_very_first_migration_leaves_a_file_that_the_next_start_fills(
    tmp_path: Path,
) -> None:
    site = CrashSite(tmp_path)
    remains = start_and_die(site, "during a migration")
    assert (remains.integrity, remains.jobs) == ("ok", {})
    with site:
        site.start_steps(BATCH, 0)
        assert_nothing_lost_or_doubled(site, remains, BATCH)


def test_a_kill_between_crons_row_and_its_job_fires_that_minute_once_after_the_start(tmp_path: Path) -> None:
    with CrashSite(tmp_path, TICKS="1") as site:
        until(lambda: site.notes.read("tick"), "cron's first firing")
        before = site.rows(MINUTES)
        site.post("/api/test/die-at", {"point": "between cron's row and its job"})
        site.set_clock(60)
        remains = site.wait_for_death()
        assert remains.integrity == "ok"
        assert len(remains.jobs) == 1
        site.start()
        until(lambda: len(site.notes.read("tick")) > 1, "the minute that was cut off")
        until(site.is_idle, "its job")
        assert site.rows(MINUTES) == [*before, (before[-1][0] + 1,)]
        assert len(site.notes.read("tick")) == site.counts()["done"] == 2
