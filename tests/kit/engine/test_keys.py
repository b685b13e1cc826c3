"""Locks, rate limits and revoke flags: kept by key for as long as they are needed, and no longer (P2, P4)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from huey.exceptions import RateLimitExceeded, TaskLockedException

from app.kit.engine.jobs import upkeep
from app.kit.errors import JobTooLargeError
from tests.kit.engine_rig import Rig
from tests.kit.still_clock import stop_the_clock

KEYS = "SELECT key FROM postroom_huey_data UNION ALL SELECT key FROM postroom_huey_counters ORDER BY key"
MONTH_S, YEAR_S = 31 * 24 * 3600, 366 * 24 * 3600


def keys_after(rig: Rig, seconds: float) -> list[str]:
    """Name what is still kept after such a time."""
    rig.clock.advance(seconds)
    rig.database.write(lambda connection: upkeep.prune(connection, rig.huey.ages, rig.clock()))
    return [key for (key,) in rig.rows(KEYS)]


def on_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# Locks


def test_a_lock_of_a_bodys_helper_thread_goes_with_the_process(rig: Rig) -> None:
    rig.huey.lock_owner = "i1"
    lock = rig.huey.lock_task("door")
    rig.huey.task(name="helped")(lambda: on_a_thread(lock.acquire))()
    rig.finish(rig.huey.run(rig.claim("i1")))
    assert lock.is_locked()
    rig.huey.free("i2")
    assert lock.is_locked()
    rig.huey.free("i1")
    assert not lock.is_locked()


def test_a_lock_that_frees_itself_outlives_the_process_that_took_it(rig: Rig) -> None:
    rig.huey.lock_owner = "i1"
    lock = rig.huey.lock_task("door", ttl=60)
    lock.acquire()
    rig.huey.free("i1")
    assert lock.is_locked()
    rig.clock.advance(61)
    assert not lock.is_locked()


def test_the_consumers_process_owns_what_is_locked_outside_of_bodies(rig: Rig) -> None:
    with rig.consuming(workers=1):
        rig.huey.lock_task("door").acquire()
        with pytest.raises(TaskLockedException):
            rig.huey.lock_task("door").acquire()
    assert not rig.huey.is_locked("door")  # it left in order


def test_a_lock_that_nobody_frees_is_forgotten_after_a_year(rig: Rig) -> None:
    rig.huey.lock_task("door").acquire()
    assert keys_after(rig, MONTH_S) == ["rig.lock.door"]
    assert keys_after(rig, YEAR_S) == []


def test_names_of_locks_are_not_gathered_in_memory_and_all_locks_are_flushed(rig: Rig) -> None:
    for number in range(50):
        with rig.huey.lock_task(f"user-{number}"):
            pass
    assert list(rig.huey._locks) == []
    rig.huey.lock_task("a").acquire()
    rig.huey.put("other", 1)
    assert rig.huey.flush_locks() == {"a"}
    assert rig.huey.get("other") == 1


def test_locks_are_flushed_in_immediate_mode_too(rig: Rig) -> None:
    rig.huey.immediate = True
    rig.huey.lock_task("a").acquire()
    assert rig.huey.flush_locks() == {"a"}


# Rate limits


def test_a_window_that_is_over_counts_for_nothing_and_leaves_nothing(rig: Rig) -> None:
    clock = stop_the_clock(rig)
    limit = rig.huey.rate_limit("user-1", limit=2, per=60)
    for _ in range(2):
        for _ in range(2):
            limit.acquire()
        with pytest.raises(RateLimitExceeded):
            limit.acquire()
        clock.advance(60)
    assert limit.current_usage() == 0
    assert keys_after(rig, YEAR_S) == []


def test_a_call_under_a_rate_limit_is_one_commit(rig: Rig) -> None:
    limit = rig.huey.rate_limit("api", limit=2, per=60)
    with rig.commits() as commits:
        limit.acquire()
    assert commits() == 1


def test_asking_for_the_usage_before_the_first_call_changes_no_window(rig: Rig) -> None:
    clock = stop_the_clock(rig)
    limit = rig.huey.rate_limit("api", limit=1, per=60)
    assert limit.current_usage() == 0
    limit.acquire()
    assert limit.current_usage() == 1
    clock.advance(60)
    limit.acquire()
    limit.reset()
    assert limit.current_usage() == 0


# Values


def test_a_value_that_is_put_by_key_is_as_small_as_a_job(rig: Rig) -> None:
    with pytest.raises(JobTooLargeError, match="the value of big"):
        rig.huey.put("big", "x" * rig.huey.max_job_bytes)
    assert rig.huey.get("big") is None


# Revoke flags


def test_a_flag_of_a_job_that_is_not_there_goes_after_a_month_and_of_one_that_waits_it_stays(
    rig: Rig,
) -> None:
    result = rig.huey.task(name="far")(lambda: None).schedule(delay=2 * YEAR_S)
    result.revoke()
    rig.huey.revoke_by_id("gone")
    assert keys_after(rig, MONTH_S) == [f"r:{result.id}"]
    rig.clock.advance(2 * YEAR_S)
    rig.run_all()
    assert rig.states() == {"cancelled": 1}


def test_a_task_that_is_revoked_stays_so(rig: Rig) -> None:
    task = rig.huey.task(name="off")(lambda: None)
    task.revoke()
    keys_after(rig, YEAR_S)
    task()
    rig.run_all()
    assert rig.states() == {"cancelled": 1}
