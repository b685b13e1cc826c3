"""Jobs that may have killed their process: they run alone, hold nobody up for long, and end (P2)."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from app.kit.engine.jobs.claim import Rules
from tests.kit.claims_rig import Tasks
from tests.kit.engine_rig import PATIENCE_S, Rig, until
from tests.kit.queue_rig import Queue


@pytest.fixture
def tasks(queue: Queue) -> Tasks:
    """An empty queue of several tasks."""
    return Tasks(queue)


# Suspects


def test_a_job_that_died_once_runs_beside_others(tasks: Tasks) -> None:
    tasks.add("bad 1", "good 1")
    tasks.make_suspect("bad 1", deaths=1)
    assert tasks.all_claimed() == ["bad 1", "good 1"]


def test_nothing_starts_beside_a_suspect(tasks: Tasks) -> None:
    tasks.add("bad 1", "good 1", "good 2")
    tasks.make_suspect("bad 1")
    (suspect,) = tasks.claim()
    assert tasks.claim() == []
    tasks.finish(suspect)
    assert tasks.all_claimed() == ["good 1", "good 2"]


def test_a_suspect_waits_until_it_is_alone_and_nobody_overtakes_it(tasks: Tasks) -> None:
    tasks.add("good 1", "good 2", "bad 1", "good 3")
    tasks.make_suspect("bad 1")
    first, second = tasks.claim()[0], tasks.claim()[0]
    assert tasks.claim() == []
    tasks.finish(first)
    assert tasks.claim() == []
    tasks.finish(second)
    assert tasks.claimed() == ["bad 1"]


def test_two_suspects_run_one_after_the_other(tasks: Tasks) -> None:
    tasks.add("bad 1", "bad 2")
    tasks.make_suspect("bad 1")
    tasks.make_suspect("bad 2")
    (first,) = tasks.claim()
    assert tasks.claim() == []
    tasks.finish(first)
    assert tasks.claimed() == ["bad 2"]


def test_a_suspect_holds_up_its_own_instance_only(tasks: Tasks) -> None:
    tasks.add("bad 1", "good 1", "good 2")
    tasks.make_suspect("bad 1")
    assert tasks.claimed("i1") == ["bad 1"]
    assert [tasks.claimed("i2"), tasks.claimed("i2"), tasks.claimed("i1")] == [["good 1"], ["good 2"], []]


def test_a_suspect_that_is_not_next_holds_nobody_up(tasks: Tasks) -> None:
    tasks.add("bad 1", priority=-1)
    tasks.add("good 1", "good 2")
    tasks.make_suspect("bad 1")
    assert [tasks.claimed(), tasks.claimed(), tasks.claimed()] == [["good 1"], ["good 2"], []]


@pytest.mark.parametrize("rules", [Rules(), Rules(limits={"bad": 1})], ids=["paused", "limited"])
def test_a_suspect_that_may_not_start_anyway_holds_nobody_up(tasks: Tasks, rules: Rules) -> None:
    tasks.add("bad 0", "bad 1", "good 1", "good 2")
    if rules.limits:
        assert tasks.claimed("elsewhere") == ["bad 0"]
    else:
        tasks.pause("bad")
    tasks.make_suspect("bad 1")
    tasks.rules = rules
    assert tasks.all_claimed() == ["good 1", "good 2"]


def test_a_suspect_behind_a_paused_head_runs_alone_all_the_same(tasks: Tasks) -> None:
    tasks.add("good 1", "paused 1", "bad 1")
    tasks.pause("paused")
    tasks.make_suspect("bad 1")
    (good,) = tasks.claim()
    assert tasks.claim() == []
    tasks.finish(good)
    assert tasks.claimed() == ["bad 1"]


def test_the_third_death_is_the_suspects_alone(rig: Rig) -> None:
    task = rig.huey.task(name="any")(lambda n: n)
    results = [task(n) for n in range(4)]
    for _ in range(2):
        for _ in range(4):
            assert rig.claim("i1")
        assert rig.huey.free("i1") == 4
    assert [job.uuid for job in rig.claim("i2")] == [results[0].id]
    assert rig.claim("i2") == []
    assert rig.huey.free("i2") == 1
    assert [rig.row(result.id)["state"] for result in results] == ["failed", "ready", "ready", "ready"]
    rig.run_all(workers=4)
    assert rig.states() == {"failed": 1, "done": 3}


def test_all_workers_go_on_when_a_suspect_has_ended(rig: Rig) -> None:
    met = threading.Barrier(3, timeout=PATIENCE_S)
    suspect = rig.huey.task(name="suspect")(lambda: None)()
    together = rig.huey.task(name="together")(lambda n: met.wait() and None)
    rig.database.write(
        lambda c: c.execute("UPDATE postroom_jobs SET deaths = 2, priority = 9 WHERE uuid = ?", (suspect.id,))
    )
    for n in range(3):
        together(n)
    rig.run_all(workers=3)
    assert rig.states() == {"done": 4}


def test_workers_that_wait_for_a_suspect_go_on_when_it_is_cancelled(rig: Rig) -> None:
    go, ran = threading.Event(), threading.Event()
    with ExitStack() as at_the_end:
        at_the_end.callback(go.set)
        hold = rig.huey.task(name="hold")(lambda: go.wait(PATIENCE_S) and None)()
        at_the_end.enter_context(rig.consuming(workers=2))
        until(lambda: rig.row(hold.id)["state"] == "running")
        rig.huey.pause()
        suspect = rig.huey.task(name="suspect")(lambda: None)()
        rig.huey.task(name="next")(ran.set)()
        rig.database.write(
            lambda c: c.execute("UPDATE postroom_jobs SET deaths = 2 WHERE uuid = ?", (suspect.id,))
        )
        rig.huey.resume()
        assert rig.huey.cancel(suspect.id)
        assert ran.wait(PATIENCE_S)
        go.set()


# Bodies that hang


def die_after(rig: Rig, seconds: float) -> str:
    """Have a job's process die so long after the start; return its id."""
    result = rig.huey.task(name="slow", timeout=60)(lambda: None)()
    rig.claim("i1")
    rig.clock.advance(seconds)
    rig.huey.free("i1")
    return str(result.id)


def test_a_job_that_hung_until_its_process_died_lets_others_go_first(rig: Rig) -> None:
    row = rig.row(die_after(rig, 61))
    assert (row["state"], row["deaths"], row["attempt"]) == ("scheduled", 1, 0)
    assert row["run_at"] == pytest.approx(rig.clock() + 60, abs=5)


def test_a_job_that_was_within_its_time_is_ready_at_once(rig: Rig) -> None:
    row = rig.row(die_after(rig, 50))
    assert (row["state"], row["deaths"], row["run_at"]) == ("ready", 1, None)


def test_a_job_that_hung_at_its_third_death_is_on_the_shelf(rig: Rig) -> None:
    uuid = die_after(rig, 61)
    for _ in range(2):
        rig.clock.advance(61)
        rig.promote()
        rig.claim("i1")
        rig.clock.advance(61)
        rig.huey.free("i1")
    assert (rig.row(uuid)["state"], rig.row(uuid)["deaths"]) == ("failed", 3)
