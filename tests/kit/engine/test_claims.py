"""Which job a worker gets: limits, pauses, batches (P2, P4)."""

from __future__ import annotations

import threading

import pytest

from app.kit.engine.jobs import claim as claims, shelf
from app.kit.engine.jobs.claim import Rules
from tests.kit.claims_rig import Tasks
from tests.kit.engine_rig import PATIENCE_S, Rig, until
from tests.kit.queue_rig import NOW, Queue


@pytest.fixture
def tasks(queue: Queue) -> Tasks:
    """An empty queue of several tasks."""
    return Tasks(queue)


# Pauses


def test_jobs_of_a_paused_task_wait_and_all_others_go(tasks: Tasks) -> None:
    tasks.add("mail 1", "book 1", "mail 2", "alert 1")
    tasks.pause("mail")
    assert tasks.all_claimed() == ["book 1", "alert 1"]


def test_a_paused_queue_starts_nothing(tasks: Tasks) -> None:
    tasks.add("mail 1", "book 1")
    tasks.pause("")
    assert tasks.all_claimed() == []


@pytest.mark.parametrize("paused", ["", "mail"])
def test_a_pause_with_an_end_ends_by_itself(tasks: Tasks, paused: str) -> None:
    tasks.add("mail 1")
    tasks.pause(paused, until_at=NOW + 60)
    assert tasks.claimed(now=NOW + 59.9) == []
    assert tasks.claimed(now=NOW + 60) == ["mail 1"]


def test_a_lifted_pause_leaves_the_order_as_it_was(tasks: Tasks) -> None:
    tasks.add("mail 1", "book 1", "mail 2")
    tasks.pause("mail")
    tasks.queue.database.write(lambda connection: shelf.resume(connection, "mail"))
    assert tasks.all_claimed() == ["mail 1", "book 1", "mail 2"]


def test_a_job_that_waits_out_a_pause_burns_no_attempt(tasks: Tasks) -> None:
    tasks.add("mail 1")
    tasks.pause("mail")
    assert tasks.claim() == []
    row = tasks.queue.row("mail 1")
    assert (row["state"], row["attempt"], row["waits"], row["instance"]) == ("ready", 0, 0, None)


def test_among_the_tasks_that_may_start_the_order_is_the_same(tasks: Tasks) -> None:
    tasks.add("paused 1", priority=9)
    tasks.add("b 1", "a 1", "c 1")
    tasks.add("a 2", "b 2", priority=5)
    tasks.add("c 2", priority=-1)
    tasks.pause("paused")
    assert tasks.all_claimed() == ["a 2", "b 2", "b 1", "a 1", "c 1", "c 2"]


def test_a_pause_of_a_task_nobody_knows_changes_nothing(tasks: Tasks) -> None:
    tasks.add("mail 1")
    tasks.pause("maid")
    assert tasks.all_claimed() == ["mail 1"]


# Limits


def test_a_limit_lets_so_many_run_and_others_pass(tasks: Tasks) -> None:
    tasks.rules = Rules(limits={"mail": 2})
    tasks.add("mail 1", "mail 2", "mail 3", "book 1")
    assert tasks.all_claimed() == ["mail 1", "mail 2", "book 1"]


def test_a_limit_holds_among_all_instances(tasks: Tasks) -> None:
    tasks.rules = Rules(limits={"mail": 2})
    tasks.add("mail 1", "mail 2", "mail 3")
    assert [tasks.claimed("i1"), tasks.claimed("i2"), tasks.claimed("i3")] == [["mail 1"], ["mail 2"], []]


def test_a_place_under_a_limit_is_free_again_with_the_end(tasks: Tasks) -> None:
    tasks.rules = Rules(limits={"mail": 1})
    tasks.add("mail 1", "mail 2")
    (first,) = tasks.claim()
    assert tasks.claim() == []
    tasks.finish(first)
    assert tasks.claimed() == ["mail 2"]


def test_a_place_under_a_limit_is_free_again_with_the_death_of_its_process(tasks: Tasks) -> None:
    tasks.rules = Rules(limits={"mail": 1})
    tasks.add("mail 1")
    tasks.claim("i1")
    tasks.queue.free("i1")
    assert tasks.claimed("i2") == ["mail 1"]


def test_a_task_at_its_limit_and_a_paused_one_wait_together(tasks: Tasks) -> None:
    tasks.rules = Rules(limits={"mail": 1})
    tasks.add("mail 1", "mail 2", "book 1", "alert 1")
    tasks.pause("book")
    assert tasks.all_claimed() == ["mail 1", "alert 1"]


def test_never_more_than_the_limit_run_at_once(rig: Rig) -> None:
    running, most, changing = 0, 0, threading.Lock()
    met = threading.Barrier(2, timeout=PATIENCE_S)

    def limited(n: int) -> None:
        nonlocal running, most
        with changing:
            running, most = running + 1, max(most, running + 1)
        met.wait()  # two at once: the places are taken, both of them
        with changing:
            running -= 1

    enqueue = rig.huey.task(name="limited", limit=2)(limited)
    for n in range(20):
        enqueue(n)
    rig.run_all(workers=4)
    assert (most, rig.states()) == (2, {"done": 20})


def test_jobs_that_wait_for_a_place_hold_no_worker(rig: Rig) -> None:
    go, done = threading.Event(), threading.Event()
    held = rig.huey.task(name="held", limit=1)(lambda n: go.wait(PATIENCE_S) and None)
    free = rig.huey.task(name="free")(done.set)
    for n in range(5):
        held(n)
    free()
    with rig.consuming(workers=2):
        assert done.wait(PATIENCE_S)
        until(lambda: rig.states() == {"running": 1, "ready": 4, "done": 1})
        go.set()
        assert rig.huey.wait_until_idle(PATIENCE_S)
    assert rig.states() == {"done": 6}


def test_workers_wake_when_a_pause_ends_or_is_lifted(rig: Rig) -> None:
    ran = [threading.Event(), threading.Event()]
    task = rig.huey.task(name="paused")(lambda n: ran[n].set())
    name = rig.huey._registry.task_to_string(task.task_class)
    with rig.consuming():
        rig.huey.pause(name)
        task(0)
        assert rig.huey.resume(name)
        assert ran[0].wait(PATIENCE_S)
        rig.huey.pause(name, seconds=3600)
        task(1)
        rig.clock.advance(3601)
        rig.huey.clock_bell.ring()
        assert ran[1].wait(PATIENCE_S)


# Batches


def test_jobs_of_a_batch_task_are_claimed_together_up_to_the_most(tasks: Tasks) -> None:
    tasks.rules = Rules(batches={"sale": 3})
    tasks.add(*(f"sale {n}" for n in range(1, 6)))
    assert tasks.claimed() == ["sale 1", "sale 2", "sale 3"]
    assert tasks.claimed() == ["sale 4", "sale 5"]


def test_a_batch_takes_its_own_task_only_and_leaves_the_order(tasks: Tasks) -> None:
    tasks.rules = Rules(batches={"sale": 3})
    tasks.add("sale 1", "mail 1", "sale 2", "mail 2")
    assert [tasks.claimed(), tasks.claimed(), tasks.claimed()] == [
        ["sale 1", "sale 2"],
        ["mail 1"],
        ["mail 2"],
    ]


def test_a_batch_counts_as_one_under_a_limit(tasks: Tasks) -> None:
    tasks.rules = Rules(limits={"sale": 2}, batches={"sale": 3})
    tasks.add(*(f"sale {n}" for n in range(1, 10)))
    assert [len(tasks.claim()), len(tasks.claim()), len(tasks.claim())] == [3, 3, 0]


def test_who_is_to_run_alone_or_died_once_joins_no_batch(tasks: Tasks) -> None:
    tasks.rules = Rules(batches={"sale": 9})
    tasks.add("sale 1", "sale 2", "sale 3", "sale 4")
    tasks.make_suspect("sale 2", deaths=1)
    tasks.queue.database.write(
        lambda c: c.execute("UPDATE postroom_jobs SET alone = 1 WHERE uuid = 'sale 3'")
    )
    assert [tasks.claimed(), tasks.claimed(), tasks.claimed()] == [
        ["sale 1", "sale 4"],
        ["sale 2"],
        ["sale 3"],
    ]


def test_a_batch_that_kills_its_process_is_tried_one_by_one(tasks: Tasks) -> None:
    tasks.rules = Rules(batches={"sale": 9})
    tasks.add("sale 1", "sale 2", "sale 3")
    assert len(tasks.claim("i1")) == 3
    tasks.queue.free("i1")
    assert [tasks.claimed("i2"), tasks.claimed("i2"), tasks.claimed("i2")] == [
        ["sale 1"],
        ["sale 2"],
        ["sale 3"],
    ]


# One look


def test_one_look_sees_that_nothing_keeps_a_job_from_being_claimed(tasks: Tasks) -> None:
    tasks.rules = Rules(limits={"mail": 2, "sale": 1})
    tasks.add("mail 1", "other 1", "other 2")
    tasks.pause("other", until_at=NOW)  # it is over by now
    tasks.queue.database.write(
        lambda c: c.execute("INSERT INTO postroom_huey_data VALUES ('lock', x'31', NULL, NULL)")
    )
    assert look(tasks) == (0, 1, 0)
    assert tasks.claim()
    assert look(tasks) == (1, 1, 0), "a task with a limit runs"


@pytest.mark.parametrize("key", ["r:job", "rt:task"])
def test_one_look_sees_a_revoke_flag(tasks: Tasks, key: str) -> None:
    sql = "INSERT INTO postroom_huey_data VALUES (?, x'31', NULL, NULL)"
    tasks.queue.database.write(lambda connection: connection.execute(sql, (key,)))
    assert look(tasks) == (0, 0, 1)


def look(tasks: Tasks) -> claims.Look:
    return tasks.queue.database.write(lambda connection: claims.look(connection, NOW, tasks.rules))


# Costs


def plan(queue: Queue, sql: str, *parameters: object) -> str:
    return " | ".join(row["detail"] for row in queue.database.read(f"EXPLAIN QUERY PLAN {sql}", parameters))


@pytest.mark.parametrize("barred", [[], ["mail"]])
def test_a_claim_reads_the_heads_of_the_tasks_only(tasks: Tasks, barred: list[str]) -> None:
    found = plan(tasks.queue, claims._choice(barred), *barred)
    assert "postroom_jobs_ready_by_task (task=?)" in found
    assert "SCAN postroom_jobs" not in found
    assert "SEARCH postroom_jobs USING INTEGER PRIMARY KEY" in found


def test_a_batch_is_read_from_its_tasks_own_index(tasks: Tasks) -> None:
    found = plan(tasks.queue, claims.BATCH, "sale", 10)
    assert "postroom_jobs_ready_by_task (task=?)" in found
    assert "TEMP B-TREE" not in found


def test_looking_for_suspects_reads_their_index(tasks: Tasks) -> None:
    assert "postroom_jobs_suspect" in plan(
        tasks.queue, "SELECT 1 FROM postroom_jobs WHERE deaths >= 2 AND state IN ('ready', 'running') LIMIT 1"
    )
