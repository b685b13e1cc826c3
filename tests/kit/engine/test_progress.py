"""A body says how far it is: seen while it runs, here and in other processes, never by a stale one (P6, P7)."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from typing import Any

import pytest

import tasks
from app.kit.engine.body import progress
from app.kit.errors import InvalidInputError
from tests.kit.engine_rig import (
    PATIENCE_S,
    Rig,
    Threads,
    rig_in,
    sleeps_for,
    until,
)


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first report is written at once; the next would be due in an hour."""
    monkeypatch.setattr(progress, "EVERY_S", 3600.0)


def seen(rig: Rig, uuid: str) -> Any:
    """Return a job's progress as its holder sees it."""
    return rig.huey.job(uuid)["progress"]


def add(rig: Rig, body: Any, **options: Any) -> str:
    """Enqueue a job that runs a body; return its id."""
    return str(rig.huey.task(**{"name": "work"} | options)(body)().id)


# In a body


def test_the_progress_is_seen_while_the_body_runs_and_after_it(rig: Rig) -> None:
    during: list[Any] = []

    def body() -> None:
        rig.huey.progress(3, 10, "reading")
        during.append(seen(rig, uuid))

    uuid = add(rig, body)
    rig.run_next()
    assert during == [{"done": 3, "total": 10, "note": "reading"}]
    assert seen(rig, uuid) == during[0]


def test_it_is_called_as_tasks_progress() -> None:
    assert tasks.progress == tasks.huey.progress


def test_an_async_body_may_say_how_far_it_is(rig: Rig) -> None:
    async def body() -> None:
        rig.huey.progress(1, 2)

    uuid = add(rig, body)
    rig.run_next()
    assert seen(rig, uuid)["done"] == 1


@pytest.mark.usefixtures("seldom")
def test_ten_thousand_reports_are_one_write_and_the_last_comes_with_the_end(rig: Rig) -> None:
    counts: list[int] = []

    def body() -> None:
        with rig.commits() as count:
            for done in range(1, 10_001):
                rig.huey.progress(done, 10_000)
            counts.append(count())
        counts.append(seen(rig, uuid)["done"])

    uuid = add(rig, body)
    rig.promote()
    with rig.commits() as count:
        rig.run_next()
        assert count() == 3  # the claim, the first report, the end with the last
    assert (counts, seen(rig, uuid)["done"]) == ([1, 1], 10_000)


@pytest.mark.usefixtures("seldom")
@pytest.mark.parametrize("retries", [0, 1], ids=["fails", "tries again"])
def test_the_last_progress_of_a_body_that_raises_is_kept(rig: Rig, retries: int) -> None:
    def body() -> None:
        rig.huey.progress(1, 3)
        rig.huey.progress(2, 3, "here it stopped")
        raise ValueError

    uuid = add(rig, body, retries=retries)
    rig.run_next()
    assert seen(rig, uuid) == {"done": 2, "total": 3, "note": "here it stopped"}
    assert rig.states() == {"ready" if retries else "failed": 1}


def test_what_was_reported_too_soon_is_written_a_moment_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.02)

    def body() -> None:
        rig.huey.progress(1, 3)
        rig.huey.progress(2, 3, "now something long")
        until(lambda: seen(rig, uuid)["done"] == 2, "the second report")

    uuid = add(rig, body)
    rig.run_next()
    assert rig.states() == {"done": 1}


def test_nothing_is_written_late_once_the_body_has_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 1.0)
    timers: list[threading.Timer] = []

    def body() -> None:
        rig.huey.progress(1, 3)
        rig.huey.progress(2, 3)
        timers.extend(one for one in threading.enumerate() if isinstance(one, threading.Timer))

    add(rig, body)
    rig.run_next()
    version = rig.database.data_version()
    for timer in timers:
        timer.join(PATIENCE_S)
    assert timers
    assert rig.database.data_version() == version


def test_each_job_of_a_batch_has_the_progress_of_the_call(rig: Rig) -> None:
    def body(items: list[int]) -> None:
        rig.huey.progress(1, len(items))
        rig.huey.progress(2, len(items))

    rig.huey.batch_task(every_s=0, name="batch")(body).map(range(4))
    rig.run_next()
    kept = [json.loads(text)["done"] for (text,) in rig.rows("SELECT progress FROM postroom_jobs")]
    assert kept == [2, 2, 2, 2]


def test_the_next_job_of_a_worker_begins_without_progress(rig: Rig) -> None:
    uuids = [add(rig, lambda: rig.huey.progress(1, 2)), add(rig, lambda: None, name="other")]
    rig.run_next(), rig.run_next()
    assert [seen(rig, uuid) is None for uuid in uuids] == [False, True]


def test_a_body_whose_job_runs_elsewhere_by_now_writes_no_progress(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)

    def body() -> None:
        rig.huey.progress(1, 10)
        rig.huey.free("by-hand")  # its process was taken for dead
        rig.claim("another")
        rig.huey.progress(9, 10)

    uuid = add(rig, body)
    rig.run_next()
    assert (rig.row(uuid)["instance"], seen(rig, uuid)["done"]) == ("another", 1)


def test_a_redriven_job_begins_without_progress(rig: Rig) -> None:
    def body() -> None:
        rig.huey.progress(1, 2)
        raise ValueError

    uuid = add(rig, body)
    rig.run_next()
    rig.huey.redrive(uuid)
    assert seen(rig, uuid) is None


def test_progress_inside_a_transaction_is_seen_once_it_commits(rig: Rig) -> None:
    during: list[Any] = []

    def body() -> None:
        with rig.database.transaction():
            rig.huey.progress(1, 2)
            with Threads() as threads:
                threads.start(lambda: during.append(seen(rig, uuid)))
        during.append(seen(rig, uuid)["done"])

    uuid = add(rig, body)
    rig.run_next()
    assert during == [None, 1]


def test_a_progress_that_cannot_be_written_costs_no_job(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(work: Any, durable: bool = True) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def body() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(rig.database, "write", refuse)
            rig.huey.progress(1, 2)

    uuid = add(rig, body)
    rig.run_next()
    assert (rig.states(), seen(rig, uuid)["done"]) == ({"done": 1}, 1)
    assert "disk is full" in caplog.text


# Elsewhere


@pytest.mark.parametrize("immediate", [False, True], ids=["called", "immediate"])
def test_outside_the_queue_a_body_may_be_called_and_nothing_is_written(rig: Rig, immediate: bool) -> None:
    rig.huey.immediate = immediate

    @rig.huey.task()
    def work(items: list[int]) -> int:
        for done, _ in enumerate(items, 1):
            rig.huey.progress(done, len(items))
        return len(items)

    rig.states()
    with rig.commits() as count:
        assert (work([1, 2]).get() if immediate else work.call_local([1, 2])) == 2
        assert count() == 0


# Values


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((0, 10), (0, 10)),
        ((2.5, 10), (2.5, 10)),
        ((11, 10), (10, 10)),
        ((0, 0), (1, 1)),
        ((3, 0), (1, 1)),
    ],
    ids=str,
)
def test_more_than_all_is_all_and_nothing_of_nothing_is_done(
    given: tuple[float, float], kept: tuple[float, float]
) -> None:
    found = json.loads(progress.as_text(*given))
    assert (found["done"], found["total"]) == kept


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf, 10**400, "3", None, [1]], ids=lambda w: str(w)[:5])
@pytest.mark.parametrize("field", ["done", "total"])
def test_a_wrong_value_is_told_by_its_name_wherever_the_body_runs(rig: Rig, field: str, wrong: Any) -> None:
    values = {"done": 1, "total": 2} | {field: wrong}
    with pytest.raises(InvalidInputError, match=rf"progress\(\) found {field}=.*expected a number") as raised:
        rig.huey.progress(**values)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize(
    ("note", "kept"), [("x" * 1000, "x" * 200), ("half \ud800", "half ?"), (None, ""), (7, "7")], ids=str
)
def test_a_note_is_short_text(note: Any, kept: str) -> None:
    assert json.loads(progress.as_text(1, 2, note))["note"] == kept


# Who waits for it


def version(rig: Rig, uuid: str) -> str:
    return str(rig.huey.job(uuid)["version"])


def test_the_version_changes_with_the_start_the_progress_and_the_end(rig: Rig) -> None:
    versions: list[str] = []

    def body() -> None:
        versions.append(version(rig, uuid))
        rig.huey.progress(1, 2)
        versions.append(version(rig, uuid))

    uuid = add(rig, body)
    versions.append(version(rig, uuid))
    rig.run_next()
    versions.append(version(rig, uuid))
    assert len(set(versions)) == 4
    assert rig.huey.details(uuid)["version"] == versions[-1]


def test_a_retry_is_another_version(rig: Rig) -> None:
    def body() -> None:
        raise ValueError

    uuid = add(rig, body, retries=1)
    before = version(rig, uuid)
    rig.run_next()
    assert (rig.row(uuid)["state"], version(rig, uuid) == before) == ("ready", False)


def test_who_waits_for_a_change_is_called_by_the_progress(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "app.kit.engine.operate.control.ALONE_LOOK_S", 2 * PATIENCE_S
    )  # who is not called waits too long
    go, said = threading.Event(), threading.Event()

    def body() -> None:
        go.wait(PATIENCE_S)
        rig.huey.progress(1, 2)
        said.wait(PATIENCE_S)

    uuid = add(rig, body)
    with rig.consuming(1), Threads() as threads:
        until(lambda: rig.row(uuid)["state"] == "running")
        running = version(rig, uuid)
        changed: list[Any] = []

        def wait() -> None:
            rig.huey.wait_for_change(uuid, running, PATIENCE_S)
            changed.append(seen(rig, uuid))

        thread = threads.start(wait)
        until(lambda: sleeps_for(rig, uuid), "a waiting thread")
        go.set()
        thread.join(PATIENCE_S)
        assert changed == [{"done": 1, "total": 2, "note": ""}]
        said.set()
    assert threads.errors == []


def test_who_waits_for_a_change_is_called_by_the_start(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.kit.engine.operate.control.ALONE_LOOK_S", 2 * PATIENCE_S)
    uuid = add(rig, lambda: None)
    ready, states = version(rig, uuid), []

    def wait() -> None:
        rig.huey.wait_for_change(uuid, ready, PATIENCE_S)
        states.append(rig.row(uuid)["state"])

    with Threads() as threads:
        thread = threads.start(wait)
        until(lambda: sleeps_for(rig, uuid), "a waiting thread")
        rig.claim()
        thread.join(PATIENCE_S)
    assert states == ["running"]


def test_a_change_in_another_process_is_seen_too(rig: Rig) -> None:
    uuid = add(rig, lambda: None)
    ready = version(rig, uuid)
    rig.huey.has_siblings = True
    with rig_in(rig.folder) as other, Threads() as threads:
        thread = threads.start(lambda: rig.huey.wait_for_change(uuid, ready, PATIENCE_S))
        until(lambda: sleeps_for(rig, uuid), "a waiting thread")
        other.claim()  # nobody calls in this process
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert version(rig, uuid) != ready


def test_what_changed_before_the_wait_needs_no_wait(rig: Rig) -> None:
    uuid = add(rig, lambda: None)
    rig.huey.wait_for_change(uuid, "something older", math.inf)
    rig.huey.wait_for_change("nobody", "anything", math.inf)


def test_the_wait_ends_when_nothing_changes(rig: Rig) -> None:
    uuid = add(rig, lambda: None)
    rig.huey.wait_for_change(uuid, version(rig, uuid), 0.01)
    assert rig.states() == {"ready": 1}
