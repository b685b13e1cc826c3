"""Jobs by id: a caller's own id is an idempotency key, and what is kept under an id is of that job (P1, P4)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from huey.exceptions import TaskException

from app.kit.engine.api.durable import DurableHuey
from app.kit.errors import PostroomError
from tests.kit.engine_rig import PATIENCE_S, Rig, Threads, sleeps_for, until


def test_a_job_enqueued_twice_under_one_id_runs_once(rig: Rig, give: Any) -> None:
    results = [give(n, id="order-42") for n in range(3)]
    rig.run_all()
    assert (rig.states(), [result.get() for result in results]) == ({"done": 1}, [0, 0, 0])


def test_an_id_twice_in_one_lot_is_one_job(rig: Rig, give: Any) -> None:
    with rig.huey.bulk():
        give(1, id="order-42")
        give(2, id="order-42")
    give.schedule((3,), delay=60, id="order-42")
    assert rig.states() == {"ready": 1}


def test_an_id_that_has_ended_is_a_new_job_with_a_result_of_its_own(rig: Rig, give: Any) -> None:
    for n in (1, 2):
        result = give(n, id="order-42")
        assert not result.is_ready()
        rig.run_all()
        assert rig.huey.result("order-42") == n


@pytest.mark.parametrize("id", ["", "with space", "é", "x" * 1000, "'; DROP TABLE jobs; --"])
def test_any_text_is_an_id(rig: Rig, give: Any, id: str) -> None:
    result = give(1, id=id)
    rig.run_all()
    assert rig.huey.result(result.id) == 1


@pytest.mark.parametrize("id", [7, 7.5])
def test_a_number_as_id_is_as_good_as_its_text_or_refused(rig: Rig, give: Any, id: object) -> None:
    try:
        give(1, id=id)
    except (TypeError, ValueError, PostroomError):
        assert rig.states() == {}
    else:
        rig.run_all()
        assert rig.states() == {"done": 1}


# What others left under an id


def test_a_step_that_waits_shows_no_failure_of_the_time_before(rig: Rig, give: Any) -> None:
    """The first step fails, so the second has a failure for a result; then the first is run again."""
    runs: list[int] = []

    @rig.huey.task(name="first")
    def first() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("once")
        return 5

    _, second = rig.huey.enqueue(first.s().then(give))
    rig.run_next()
    with pytest.raises(TaskException, match="once"):
        rig.huey.result(second.id, preserve=True)
    assert rig.huey.redrive() == 1
    rig.run_next()
    assert rig.states() == {"done": 1, "ready": 1}
    assert not second.is_ready()
    rig.run_next()
    assert second.get() == 5


def test_who_waits_for_the_last_step_of_a_pipeline_is_called_when_it_breaks(
    rig: Rig, give: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kit.engine.operate.control.ALONE_LOOK_S", 60.0)
    broken = rig.huey.task(name="broken")(lambda: 1 / 0)
    last = list(rig.huey.enqueue(broken.s().then(give).then(give)))[-1]
    with Threads() as threads:
        threads.start(lambda: last.get(blocking=True, timeout=PATIENCE_S / 4))
        until(lambda: sleeps_for(rig, last.id))
        rig.run_next()
        began = time.monotonic()
    assert time.monotonic() - began < PATIENCE_S / 8
    assert [type(error) for error in threads.errors] == [TaskException]


def test_options_of_huey_that_other_storages_have_are_taken_and_ignored(tmp_path: Path) -> None:
    assert DurableHuey("other", expire_time=60, notify_result=True).name == "other"


def test_a_result_stored_by_hand_is_kept_as_long_as_results_are(rig: Rig) -> None:
    rig.huey.put_result("by-hand", 5)
    rig.huey.put("setting", 6)
    assert rig.huey.result("by-hand", preserve=True) == 5
    rig.clock.advance(rig.huey.ages.result_s + 1)
    assert rig.huey.get("by-hand", peek=True) is None
    assert rig.huey.get("setting", peek=True) == 6
