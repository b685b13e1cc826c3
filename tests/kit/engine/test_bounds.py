"""What a task may ask for has an end: tries, waits, and the rows that they leave (P2, P4)."""

from __future__ import annotations

from typing import Any

import pytest
from huey.exceptions import CancelExecution, ConfigurationError

from app.kit.engine.consumer.run import MAX_WAITS
from app.kit.engine.jobs.schema_changes import KEEP_ATTEMPTS
from app.kit.errors import InvalidInputError
from tests.kit.engine_rig import Rig


def fail() -> None:
    raise ValueError("no")


# Tries


@pytest.mark.parametrize("retries", [-1, 2.5, 10**9])
def test_tries_without_an_end_are_refused_where_the_task_is_made_and_where_it_is_called(
    rig: Rig, give: Any, retries: Any
) -> None:
    with pytest.raises(ConfigurationError, match="retries"):
        rig.huey.task(name="endless", retries=retries)(fail)
    with pytest.raises(InvalidInputError, match="retries"):
        give(retries=retries)
    assert rig.states() == {}


def test_what_an_older_version_let_in_ends_with_its_first_failure(rig: Rig) -> None:
    result = rig.huey.task(name="endless", retries=7)(fail)()
    sql = "UPDATE postroom_jobs SET payload = replace(payload, '\"retries\":7', '\"retries\":-1')"
    rig.database.write(lambda connection: connection.execute(sql))
    rig.run_all()
    assert (rig.row(result.id)["state"], rig.row(result.id)["attempt"]) == ("failed", 1)


# Waits


def wait_out(rig: Rig, uuid: str, waits: int) -> tuple[Any, ...]:
    """Give a job so many waits to its name, and let it run until it ends."""
    sql = "UPDATE postroom_jobs SET waits = ? WHERE uuid = ?"
    rig.database.write(lambda connection: connection.execute(sql, (waits, uuid)))
    rig.run_all()
    row = rig.row(uuid)
    return row["state"], row["waits"], (row["error"] or "").split(":")[0]


def cancel_and_retry() -> None:
    raise CancelExecution(retry=True)


def test_a_body_that_cancels_itself_to_be_retried_does_so_for_so_long(rig: Rig) -> None:
    result = rig.huey.task(name="undecided")(cancel_and_retry)()
    assert wait_out(rig, result.id, MAX_WAITS - 1) == ("failed", MAX_WAITS, "TooManyWaitsError")


def test_who_waits_for_a_lock_does_so_for_so_long_however_many_retries_it_has(rig: Rig) -> None:
    result = rig.huey.task(name="locked", retries=10_000)(rig.huey.lock_task("door")(fail))()
    rig.huey.lock_task("door").acquire()
    assert wait_out(rig, result.id, MAX_WAITS - 3) == ("failed", MAX_WAITS, "TooManyWaitsError")
    assert {row[0] for row in rig.rows("SELECT outcome FROM postroom_attempts LIMIT 3")} == {"wait"}


def test_who_waits_for_a_lock_with_few_retries_uses_them_up(rig: Rig) -> None:
    result = rig.huey.task(name="locked", retries=2)(rig.huey.lock_task("door")(fail))()
    rig.huey.lock_task("door").acquire()
    assert wait_out(rig, result.id, 0) == ("failed", 2, "TaskLockedException")


def test_who_waits_for_a_rate_limit_waits_as_long_as_it_takes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huey.utils.utcnow", rig.huey._get_timestamp)
    limited = rig.huey.task(name="limited", max_waits=3)(rig.huey.rate_limit("api", 1, 60)(lambda: None))
    limited.map([()] * 8)
    for _ in range(8):
        rig.promote()
        while claimed := rig.claim():
            rig.finish(rig.huey.run(claimed))
        rig.clock.advance(60)
    assert rig.states() == {"done": 8}
    assert rig.rows("SELECT MAX(waits), MAX(attempt) FROM postroom_jobs") == [(0, 1)]


# History


def test_of_many_tries_the_last_ones_are_kept(rig: Rig) -> None:
    kept = KEEP_ATTEMPTS
    result = rig.huey.task(name="stubborn", retries=kept + 4)(fail)()
    other = rig.huey.task(name="other")(fail)()
    rig.run_all(workers=1)
    numbers = [number for (number,) in rig.rows(HISTORY, rig.row(result.id)["id"])]
    assert numbers == list(range(6, kept + 6))
    assert rig.rows(HISTORY, rig.row(other.id)["id"]) == [(1,)]


HISTORY = "SELECT number FROM postroom_attempts WHERE job = ? ORDER BY rowid"


def test_a_job_that_is_stopped_again_and_again_keeps_a_short_history_too(rig: Rig, give: Any) -> None:
    result = give()
    stop = "INSERT INTO postroom_instances VALUES ('i1', 1, 1, 'stopping', 0, 1)"
    for _ in range(KEEP_ATTEMPTS + 3):
        rig.claim("i1")
        rig.database.write(lambda connection: connection.execute(stop))
        rig.huey.free("i1")
    assert len(rig.rows(HISTORY, rig.row(result.id)["id"])) == KEEP_ATTEMPTS
