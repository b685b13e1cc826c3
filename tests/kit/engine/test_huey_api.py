"""Huey's documented API on the durable queue, with the real consumer: results, retries, time, locks, hooks."""

from __future__ import annotations

import datetime as dt
import threading
import time
from typing import Any

import pytest
from huey.exceptions import CancelExecution, ResultTimeout, RetryTask, TaskException

from app.kit.engine.times import unix_time
from tests.kit.engine_rig import PATIENCE_S, Rig


class Flaky:
    """A body that fails as often as told, then returns; it knows how often it ran."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.runs = list(errors), 0

    def __call__(self) -> str:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done at last"


def flaky_task(rig: Rig, *errors: BaseException, **options: Any) -> tuple[Flaky, Any]:
    body = Flaky(*errors)

    def flaky() -> str:
        return body()

    return body, rig.huey.task(**options)(flaky)


# Results


@pytest.mark.parametrize("value", [3, "text", None, False, [], {"a": (1, None)}])
def test_a_result_is_what_the_body_returned(rig: Rig, value: object) -> None:
    task = rig.huey.task(name="give")(lambda given: given)
    result = task(value)
    assert result.get() is None
    rig.run_all()
    assert result.get(blocking=True, timeout=0) == value
    assert rig.huey.result(result.id) == value
    assert rig.states() == {"done": 1}


def test_a_result_is_not_taken_away_by_looking(rig: Rig) -> None:
    result = rig.huey.task(name="give")(lambda: 5)()
    rig.run_all()
    assert [rig.huey.result(result.id) for _ in range(3)] == [5, 5, 5]
    assert [result.get(preserve=True), result(), result.is_ready()] == [5, 5, True]


def test_who_waits_for_a_result_is_called_by_the_jobs_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.kit.engine.operate.control.ALONE_LOOK_S", PATIENCE_S)
    go = threading.Event()

    @rig.huey.task(name="wait")
    def wait() -> str:
        go.wait(PATIENCE_S)
        return "gone"

    with rig.consuming():
        result = wait()
        threading.Timer(0.05, go.set).start()
        began = time.monotonic()
        assert result.get(blocking=True, timeout=PATIENCE_S) == "gone"
    assert time.monotonic() - began < PATIENCE_S / 2


def test_a_wait_for_a_result_ends_with_its_time_limit(rig: Rig) -> None:
    result = rig.huey.task(name="give")(lambda: 5)()
    with pytest.raises(ResultTimeout):
        result.get(blocking=True, timeout=0.01)
    with pytest.raises(ResultTimeout):
        result.get(blocking=True, timeout=0.01, revoke_on_timeout=True)
    rig.run_all()
    assert rig.states() == {"cancelled": 1}


def test_a_failure_is_raised_where_its_result_is_asked_for(rig: Rig) -> None:
    _, task = flaky_task(rig, ValueError("no such book"))
    result = task()
    rig.run_all()
    with pytest.raises(TaskException, match="no such book") as caught:
        result.get()
    assert caught.value.metadata["task_id"] == result.id
    assert "ValueError" in caught.value.metadata["traceback"]
    assert rig.row(result.id)["error"] == "ValueError: no such book"


# Retries


def test_a_job_is_retried_as_often_as_it_says(rig: Rig) -> None:
    body, task = flaky_task(rig, ValueError("1"), ValueError("2"), retries=2)
    result = task()
    rig.run_all()
    assert (body.runs, result.get(), rig.row(result.id)["attempt"]) == (3, "done at last", 3)
    assert rig.rows("SELECT number, error FROM postroom_attempts") == [
        (1, "ValueError: 1"),
        (2, "ValueError: 2"),
    ]


def test_a_job_out_of_retries_fails_with_its_last_error(rig: Rig) -> None:
    body, task = flaky_task(rig, *(ValueError(str(n)) for n in range(9)), retries=2)
    result = task()
    rig.run_all()
    assert (body.runs, rig.row(result.id)["state"], rig.row(result.id)["error"]) == (
        3,
        "failed",
        "ValueError: 2",
    )


def test_the_back_off_grows_and_is_capped(rig: Rig) -> None:
    _, task = flaky_task(
        rig, *[ValueError("x")] * 9, retries=4, retry_delay=10, retry_backoff=3, max_delay=50
    )
    result, delays = task(), []
    for _ in range(4):
        before = rig.clock()
        rig.run_next()
        delays.append(round(rig.row(result.id)["run_at"] - before))
        rig.clock.advance(delays[-1] + 1)
        rig.promote()
    assert delays == [10, 30, 50, 50]


def test_jitter_spreads_the_delay_below_its_full_length(rig: Rig) -> None:
    _, task = flaky_task(rig, *[ValueError("x")] * 20, retries=1, retry_delay=1000, jitter=True)
    delays = []
    for _ in range(20):
        result = task()
        rig.run_next()
        delays.append(rig.row(result.id)["run_at"] - rig.clock())
    assert all(-1 <= delay <= 1000 for delay in delays)
    assert len({round(delay) for delay in delays}) > 5


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({"retry_on": (OSError,)}, 1),
        ({"retry_on": (LookupError,)}, 4),
        ({"give_up_on": (KeyError,)}, 1),
        ({"give_up_on": (OSError,)}, 4),
        ({"retry_on": (LookupError,), "give_up_on": (KeyError,)}, 1),
    ],
    ids=str,
)
def test_only_the_errors_that_a_task_names_are_tried_again(
    rig: Rig, options: dict[str, Any], runs: int
) -> None:
    body, task = flaky_task(rig, *[KeyError("k")] * 9, retries=3, **options)
    task()
    rig.run_all()
    assert body.runs == runs


def test_retrytask_burns_no_attempt_and_counts_a_wait(rig: Rig) -> None:
    body, task = flaky_task(rig, RetryTask(), RetryTask(delay=0), retries=0)
    result = task()
    rig.run_all()
    row = rig.row(result.id)
    assert (body.runs, row["state"], row["attempt"], row["waits"]) == (3, "done", 1, 2)


def test_retrytask_waits_as_long_as_it_says(rig: Rig) -> None:
    _, task = flaky_task(rig, RetryTask(delay=60))
    result = task()
    rig.run_next()
    row = rig.row(result.id)
    assert (row["state"], round(row["run_at"] - rig.clock())) == ("scheduled", 60)


@pytest.mark.parametrize(
    ("retry", "runs", "state"), [(None, 2, "done"), (True, 2, "done"), (False, 1, "cancelled")]
)
def test_cancelexecution_retries_or_ends_as_it_says(
    rig: Rig, retry: bool | None, runs: int, state: str
) -> None:
    body, task = flaky_task(rig, CancelExecution("not today", retry=retry), retries=1)
    result = task()
    rig.run_all()
    assert (body.runs, rig.row(result.id)["state"]) == (runs, state)


# Time


@pytest.mark.parametrize("how", ["delay", "eta", "aware eta", "timedelta", "s()"])
def test_a_scheduled_job_runs_when_its_time_comes(rig: Rig, how: str) -> None:
    task = rig.huey.task(name="give")(lambda: 5)
    when = dt.datetime.now() + dt.timedelta(seconds=60)  # noqa: DTZ005
    results = {
        "delay": lambda: task.schedule(delay=60),
        "eta": lambda: task.schedule(eta=when),
        "aware eta": lambda: task.schedule(eta=when.astimezone(dt.UTC)),
        "timedelta": lambda: task.schedule(dt.timedelta(seconds=60)),
        "s()": lambda: rig.huey.enqueue(task.s(delay=60)),
    }
    result = results[how]()
    assert abs(rig.row(result.id)["run_at"] - time.time() - 60) < 2
    rig.run_all()
    assert rig.states() == {"scheduled": 1}
    with rig.consuming():
        rig.clock.advance(61)
        rig.huey.clock_bell.ring_all()
        assert result.get(blocking=True, timeout=PATIENCE_S) == 5


def test_a_job_that_has_expired_is_cancelled_and_never_runs(rig: Rig) -> None:
    body, task = flaky_task(rig, expires=30)
    result = task()
    rig.clock.advance(31)
    rig.run_all()
    assert (body.runs, rig.row(result.id)["state"]) == (0, "cancelled")
    assert rig.row(result.id)["error"].startswith("Expired")


def test_a_job_is_rescheduled_as_another_job(rig: Rig) -> None:
    task = rig.huey.task(name="give")(lambda value: value)
    first = task.schedule((7,), delay=600)
    second = first.reschedule(delay=0)
    rig.clock.advance(700)
    rig.run_all()
    assert (second.get(), rig.row(first.id)["state"], rig.row(second.id)["state"]) == (7, "cancelled", "done")


# Revoking


def test_a_revoked_job_is_cancelled_and_a_restored_one_runs(rig: Rig) -> None:
    body, task = flaky_task(rig)
    first, second, third = task(), task(), task()
    first.revoke()
    rig.huey.revoke_by_id(second.id)
    third.revoke()
    assert (first.is_revoked(), rig.huey.is_revoked(second.id), third.restore()) == (True, True, True)
    rig.run_all()
    assert [rig.row(result.id)["state"] for result in (first, second, third)] == [
        "cancelled",
        "cancelled",
        "done",
    ]
    assert rig.row(first.id)["error"].startswith("Revoked")
    assert body.runs == 1


def test_a_revoked_task_cancels_all_its_jobs_until_it_is_restored(rig: Rig) -> None:
    body, task = flaky_task(rig)
    task.revoke()
    assert task.is_revoked()
    task(), task()
    rig.run_all()
    assert task.restore()
    assert not task.restore()
    task()
    rig.run_all()
    assert (body.runs, rig.states()) == (1, {"cancelled": 2, "done": 1})


def test_a_task_revoked_once_skips_one_job_and_revoked_until_comes_back(rig: Rig) -> None:
    body, task = flaky_task(rig)
    task.revoke(revoke_once=True)
    task(), task()
    rig.run_all(workers=1)
    assert body.runs == 1
    task.revoke(revoke_until=dt.datetime.now() + dt.timedelta(seconds=60))  # noqa: DTZ005
    task()
    rig.run_all()
    rig.clock.advance(61)
    task()
    rig.run_all()
    assert body.runs == 2


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows sets no time zone for a process")
@pytest.mark.parametrize("fold", [0, 1])
def test_a_local_time_that_comes_twice_is_the_one_that_was_meant(
    rig: Rig, give: Any, monkeypatch: pytest.MonkeyPatch, fold: int
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        eta = dt.datetime(2027, 10, 31, 2, 30, 0, 250_000, fold=fold)  # noqa: DTZ001
        due_at = dt.datetime(2027, 10, 31, fold, 30, 0, 250_000, dt.UTC).timestamp()
        again = give(1).reschedule(eta=eta)
        scheduled = [give.schedule((1,), eta=eta), rig.huey.enqueue(give.s(1, eta=eta)), again]
        assert [rig.row(result.id)["run_at"] for result in scheduled] == [due_at] * 3
        give(1, expires=eta, priority=1)
        assert unix_time(rig.huey.pending()[0].expires_resolved) == due_at
    finally:
        monkeypatch.undo()
        time.tzset()
