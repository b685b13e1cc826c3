"""What is revoked does not run: as often as was said, whoever looks, whatever comes between (P2)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.engine_rig import Rig

FLAGS = "SELECT key FROM postroom_huey_data"


def test_of_the_jobs_of_a_task_revoked_once_one_is_skipped_however_many_workers_look(rig: Rig) -> None:
    task = rig.huey.task(name="rare")(lambda n: n)
    task.map(range(3))
    task.revoke(revoke_once=True)
    ended = [rig.huey.run(claimed) for claimed in [rig.claim() for _ in range(3)]]
    for one in ended:
        rig.finish(one)
    assert (rig.states(), rig.rows(FLAGS)) == ({"cancelled": 1, "done": 2}, [])


def test_a_skip_that_died_with_its_process_is_made_up_for(rig: Rig) -> None:
    task = rig.huey.task(name="rare")(lambda n: n)
    task(1), task(2)
    task.revoke(revoke_once=True)
    rig.huey.run(rig.claim("i1"))  # skipped, but not written down
    rig.huey.free("i1")
    rig.run_all()
    assert (rig.states(), rig.rows(FLAGS)) == ({"cancelled": 1, "done": 1}, [])


def test_of_a_batch_of_a_task_revoked_once_one_job_is_skipped(rig: Rig) -> None:
    called: list[Any] = []
    task = rig.huey.batch_task(every_s=0.001, name="sale")(called.extend)
    task.map(range(3))
    task.revoke(revoke_once=True)
    rig.clock.advance(1)
    rig.run_all()
    assert (len(called), rig.states()) == (2, {"cancelled": 1, "done": 2})


@pytest.mark.parametrize("once", [True, False])
def test_a_job_revoked_while_it_is_tried_is_tried_no_more(rig: Rig, once: bool) -> None:
    tries: list[int] = []

    def body() -> None:
        tries.append(1)
        result.revoke(revoke_once=once)
        raise ValueError("no")

    result = rig.huey.task(name="fails", retries=3)(body)()
    rig.run_all()
    assert (len(tries), rig.states()) == (1, {"cancelled": 1})
    assert result.is_revoked() is not once


def test_a_job_revoked_while_it_runs_for_the_last_time_leaves_no_flag(rig: Rig) -> None:
    result = rig.huey.task(name="last")(lambda: result.revoke())()  # noqa: PLW0108 (made later)
    rig.run_all()
    assert (rig.states(), rig.rows(FLAGS)) == ({"done": 1}, [])


def test_what_is_revoked_for_good_stays_so_until_it_is_restored(rig: Rig, give: Any) -> None:
    result = give(1, id="order")
    result.revoke(revoke_once=False)
    rig.run_all()
    assert result.is_revoked()
    give(2, id="order")
    rig.run_all()
    assert rig.states() == {"cancelled": 1}
    assert result.restore()
    give(3, id="order")
    rig.run_all()
    assert (rig.states(), rig.huey.result("order")) == ({"done": 1}, 3)
