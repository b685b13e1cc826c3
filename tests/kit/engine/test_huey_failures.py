"""Bodies, payloads and hooks that misbehave: the job comes to an end with its reason in view (P2, P6)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huey import chord, group
from huey.exceptions import RetryTask, TaskException

from app.kit.engine.consumer.run import MAX_WAITS
from app.kit.engine.jobs import enqueue as arrivals
from app.kit.engine.jobs.enqueue import NewJob
from tests.kit.engine_rig import Rig, rig_in, until


@pytest.fixture
def gather(rig: Rig) -> Any:
    """A task that counts the values it is given."""
    return rig.huey.task(name="gather")(len)


def put_in_by_hand(rig: Rig, payload: bytes) -> None:
    new_job = NewJob("by-hand", "somebody.elses", payload)
    rig.database.write(lambda connection: arrivals.insert(connection, [new_job], rig.clock()))


def workers_live(rig: Rig, give: Any) -> bool:
    """Say whether a job that comes later still runs."""
    result = give(1)
    with rig.consuming(workers=1):
        return bool(result.get(blocking=True, timeout=10) == 1)


# Bodies that try to end more than themselves


def exits() -> None:
    sys.exit(3)


def interrupts() -> None:
    raise KeyboardInterrupt


def closes() -> None:
    raise GeneratorExit


@pytest.mark.parametrize("body", [exits, interrupts, closes])
def test_a_body_that_tries_to_end_the_process_fails_alone(
    rig: Rig, give: Any, body: Callable[[], None]
) -> None:
    result = rig.huey.task(name="bad")(body)()
    later = give(1)
    rig.run_all(workers=1)
    assert (rig.row(result.id)["state"], later.get()) == ("failed", 1)
    assert rig.row(result.id)["error"].startswith("BodyExitError: the body raised")


@pytest.mark.parametrize("hook", ["pre_execute", "post_execute", "signal"])
def test_a_hook_that_tries_to_end_the_process_fails_its_job_alone(rig: Rig, give: Any, hook: str) -> None:
    bad: list[str] = []

    def leave(*about: Any) -> None:
        if about[0 if hook != "signal" else 1].id in bad:
            sys.exit(3)

    {"pre_execute": rig.huey.pre_execute("bad"), "post_execute": rig.huey.post_execute("bad")}.get(
        hook, rig.huey.signal("executing")
    )(leave)
    result = give(1)
    bad.append(result.id)
    with rig.consuming(workers=1):
        until(lambda: rig.row(result.id)["state"] == "failed", "the job's failure")
    assert "SystemExit" in rig.row(result.id)["error"]


# Jobs that cannot start


@pytest.mark.parametrize("payload", [b"", b"\x80\x04N.", b"{", b"[1]", b"null", b'{"$message": {"id": "x"}}'])
def test_a_payload_that_cannot_be_read_goes_to_the_shelf_with_the_reason(
    rig: Rig, give: Any, payload: bytes
) -> None:
    put_in_by_hand(rig, payload)
    rig.run_all()
    row = rig.row("by-hand")
    assert (row["state"], row["attempt"], bool(row["error"])) == ("failed", 1, True)
    assert workers_live(rig, give)


def test_a_job_of_an_unknown_task_goes_to_the_shelf_by_name(rig: Rig, give: Any) -> None:
    gone = rig.huey.task(name="gone", retries=5)(lambda: 1)
    result = gone()
    gone.unregister()
    rig.run_all()
    assert rig.row(result.id)["state"] == "failed"
    assert "gone not found in TaskRegistry" in rig.row(result.id)["error"]
    assert workers_live(rig, give)


def test_a_job_called_with_the_wrong_arguments_fails_with_pythons_words(rig: Rig) -> None:
    result = rig.huey.task(name="one")(lambda only: only)(1, 2, 3)
    rig.run_all()
    assert "TypeError" in rig.row(result.id)["error"]


# Results that cannot be kept


@pytest.mark.parametrize(("value", "error"), [({1, 2}, "PayloadError"), ("x" * 300_000, "JobTooLargeError")])
def test_a_result_that_cannot_be_kept_fails_the_job_without_a_retry(
    rig: Rig, value: object, error: str
) -> None:
    runs: list[int] = []

    @rig.huey.task(name="unkeepable", retries=5)
    def unkeepable() -> object:
        runs.append(1)
        return value

    result = unkeepable()
    rig.run_all()
    assert (len(runs), rig.row(result.id)["error"].split(":")[0]) == (1, error)
    with pytest.raises(TaskException, match=error):
        result.get()


def test_a_member_whose_result_cannot_be_kept_still_lets_its_chord_fire(
    rig: Rig, give: Any, gather: Any
) -> None:
    bad = rig.huey.task(name="bad")(lambda: {1})
    result = rig.huey.enqueue(chord([give.s(1), bad.s(), give.s(3)], gather.s()))
    rig.run_all()
    assert result.get() == 3


def test_a_result_that_cannot_be_kept_calls_the_error_handler(rig: Rig) -> None:
    seen: list[str] = []
    handle = rig.huey.task(name="handle")(lambda error: seen.append(error.type))
    bad = rig.huey.task(name="bad")(lambda: {1})
    rig.huey.enqueue(bad.s().error(handle))
    rig.run_all()
    assert seen == ["PayloadError"]


@pytest.mark.parametrize("key", [("x" * 300_000,), b"x" * 300_000], ids=["tuple", "bytes"])
def test_a_refusal_stays_short_however_long_what_it_names(rig: Rig, give: Any, key: Any) -> None:
    seen: list[int] = []
    handle = rig.huey.task(name="handle")(lambda error: seen.append(len(error.message)))
    bad = rig.huey.task(name="bad")(lambda: {"fine": {key: 1}})
    result = next(iter(rig.huey.enqueue(group([bad.s().error(handle)]))))
    rig.run_all(workers=1)
    assert rig.row(result.id)["state"] == "failed"
    assert seen[0] < 1000


def test_an_error_handler_that_does_not_fit_is_left_out_and_the_job_still_ends(rig: Rig) -> None:
    handle = rig.huey.task(name="handle")(lambda error: None)
    bad = rig.huey.task(name="bad")(lambda: {1})
    sent = bad.s().error(handle)
    rig.huey.max_job_bytes = len(rig.huey.serialize_task(sent))
    result = rig.huey.enqueue(sent)
    with rig.consuming(workers=1):
        until(lambda: rig.row(result.id)["state"] == "failed", "the job's failure")


# Errors that cannot be kept as they are


class MuteError(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no word")

    __repr__ = __str__


ERRORS = [
    ValueError("\ud800 half a letter"),
    ValueError("nul \x00 inside"),
    ValueError("long " * 1_000_000),
    ValueError(b"\xff" * 100_000),
    MuteError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["surrogate", "nul", "long", "bytes", "mute"])
def test_whatever_a_body_raises_is_retried_then_failed_within_bounds(rig: Rig, error: Exception) -> None:
    runs: list[int] = []

    @rig.huey.task(name="bad", retries=1)
    def bad() -> None:
        runs.append(1)
        raise error

    result = bad()
    rig.run_all()
    row = rig.row(result.id)
    assert (len(runs), row["state"]) == (2, "failed")
    kept = rig.rows("SELECT LENGTH(error), LENGTH(traceback) FROM postroom_attempts")
    assert max(len(row["error"]), *(max(lengths) for lengths in kept)) < 40_000
    assert type(error).__name__ in row["error"]


@pytest.mark.parametrize("error", ERRORS, ids=["surrogate", "nul", "long", "bytes", "mute"])
def test_whatever_a_member_raises_its_chord_fires(rig: Rig, give: Any, gather: Any, error: Exception) -> None:
    @rig.huey.task()
    def bad() -> None:
        raise error

    result = rig.huey.enqueue(chord([bad.s(), give.s(1)], gather.s()))
    rig.run_all()
    assert result.get() == 2


def test_a_failure_is_kept_where_only_little_fits_into_a_job(tmp_path: Path) -> None:
    with rig_in(tmp_path / "small", max_job_bytes=600) as rig:
        bad = rig.huey.task(name="bad")(lambda: 1 / 0)
        gather = rig.huey.task(name="gather")(len)
        result = rig.huey.enqueue(chord([bad.s()], gather.s()))
        with rig.consuming(workers=1):
            until(lambda: rig.states() == {"failed": 1, "done": 1}, "the callback's end")
        assert rig.row(next(iter(result.results)).id)["error"].startswith("ZeroDivisionError")


# Limits


def test_a_job_that_asks_to_wait_too_often_fails(rig: Rig) -> None:
    @rig.huey.task(name="never")
    def never() -> None:
        raise RetryTask("not yet")

    result = never()
    rig.database.write(
        lambda connection: connection.execute("UPDATE postroom_jobs SET waits = ?", (MAX_WAITS - 1,))
    )
    rig.run_all()
    row = rig.row(result.id)
    assert (row["state"], row["waits"], row["error"].split(":")[0]) == (
        "failed",
        MAX_WAITS,
        "TooManyWaitsError",
    )
