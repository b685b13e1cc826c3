"""Instances: a process lives as long as it holds its lock; the claims of one that is gone come back (P2)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from app.kit.engine.consumer.instances import Instance, file_lock, try_lock
from tests.kit.engine_child import child
from tests.kit.engine_rig import Rig, until


def make_instance(rig: Rig) -> Instance:
    return rig.huey.create_consumer(workers=1).instance


def rows(rig: Rig) -> list[tuple[Any, ...]]:
    return rig.rows("SELECT threads, state, clock FROM postroom_instances ORDER BY started_at, id")


def locks(rig: Rig) -> list[str]:
    folder = rig.folder / "instances"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def die(instance: Instance) -> None:
    """Let go of the lock and nothing else, as a process does that is killed."""
    assert instance._lock is not None
    instance._lock.release()


def test_an_instance_that_joins_is_seen_and_one_that_leaves_leaves_nothing(rig: Rig) -> None:
    instance = make_instance(rig)
    instance.join(threads=3)
    assert (rows(rig), locks(rig)) == ([(3, "running", 0)], [f"{instance.id}.lock"])
    instance.set_threads(5)
    instance.take_clock()
    instance.set_stopping()
    assert rows(rig) == [(5, "stopping", 1)]
    instance.leave()
    assert (rows(rig), locks(rig)) == ([], [])


def test_an_instance_that_lives_is_left_alone_however_long_it_takes(rig: Rig) -> None:
    slow, watcher = make_instance(rig), make_instance(rig)
    slow.join(1)
    watcher.join(1)
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.claim(slow.id)
    rig.clock.advance(30 * 24 * 3600)
    assert (watcher.sweep(), rig.row(result.id)["state"]) == (0, "running")
    slow.leave()
    watcher.leave()


def test_the_claims_of_a_dead_instance_come_back_with_a_death(rig: Rig) -> None:
    dead, watcher = make_instance(rig), make_instance(rig)
    dead.join(1)
    watcher.join(1)
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.claim(dead.id)
    die(dead)
    assert watcher.sweep() == 1
    assert (rig.row(result.id)["state"], rig.row(result.id)["deaths"]) == ("ready", 1)
    assert locks(rig) == [f"{watcher.id}.lock"]
    assert watcher.sweep() == 0
    watcher.leave()


def test_the_claims_of_an_instance_that_stopped_in_time_come_back_without(rig: Rig) -> None:
    stopped, watcher = make_instance(rig), make_instance(rig)
    stopped.join(1)
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.claim(stopped.id)
    stopped.set_stopping()
    die(stopped)
    watcher.join(1)
    assert watcher.sweep() == 1
    assert (rig.row(result.id)["state"], rig.row(result.id)["deaths"]) == ("ready", 0)
    watcher.leave()


def test_what_a_dead_instance_left_is_freed_when_the_next_one_starts(rig: Rig) -> None:
    dead = make_instance(rig)
    dead.join(1)
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.claim(dead.id)
    die(dead)
    rig.run_all()
    row = rig.row(result.id)
    assert (row["state"], row["attempt"], row["deaths"]) == ("done", 1, 1)
    assert locks(rig) == []


def test_a_claim_whose_instance_is_not_even_in_the_table_comes_back(rig: Rig) -> None:
    result = rig.huey.task(name="give")(lambda: 1)()
    rig.claim("nobody")
    rig.run_all()
    assert rig.row(result.id)["state"] == "done"


def test_of_two_who_try_a_lock_one_gets_it(rig: Rig) -> None:
    rig.folder.mkdir(exist_ok=True)
    first, second = (file_lock(rig.folder / "a.lock") for _ in range(2))
    assert (try_lock(first), try_lock(second)) == (True, False)
    first.release()
    assert try_lock(second)
    second.release()


# Real processes


def test_a_killed_process_is_known_to_be_dead_at_once(rig: Rig, tmp_path: Path) -> None:
    watcher = make_instance(rig)
    watcher.join(1)
    with child(tmp_path, "consume") as process:
        assert (watcher.sweep(), len(rows(rig))) == (0, 2)
        process.kill()
        process.wait()
        watcher.sweep()
        assert len(rows(rig)) == 1
    watcher.leave()


def test_a_process_that_ends_in_order_leaves_no_row_and_no_file(rig: Rig, tmp_path: Path) -> None:
    with child(tmp_path, "consume") as process:
        assert process.stdin is not None
        until(lambda: rows(rig) and rows(rig)[0][0] == 2)
        process.stdin.close()
        assert process.wait() == 0
    assert (rows(rig), locks(rig)) == ([], [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_a_child_that_a_body_forked_does_not_keep_its_dead_parent_alive(rig: Rig, tmp_path: Path) -> None:
    watcher = make_instance(rig)
    watcher.join(1)
    with child(tmp_path, "join and fork") as process:
        assert watcher.sweep() == 0
        process.send_signal(signal.SIGKILL)
        process.wait()
        watcher.sweep()
        assert len(rows(rig)) == 1
    watcher.leave()
