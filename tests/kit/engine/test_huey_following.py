"""What a job is about follows it in the job's own commit, however it ends and when it is run again (P2, P3)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.kit.engine_rig import Rig

Order = Callable[..., Any]


@pytest.fixture
def rig(rig: Rig) -> Rig:
    """A queue beside a table of orders, each of which has its job."""
    rig.database.write(lambda c: c.execute("CREATE TABLE orders (job TEXT, state TEXT, reason TEXT)"))
    return rig


def close(connection: sqlite3.Connection, job: str, state: str, reason: str) -> None:
    change = "UPDATE orders SET state = ?, reason = ? WHERE job = ?"
    assert connection.execute(change, (state, reason, job)).rowcount == 1


def reopen(connection: sqlite3.Connection, job: str) -> None:
    connection.execute("UPDATE orders SET state = 'open', reason = NULL WHERE job = ?", (job,))


@pytest.fixture
def order(rig: Rig) -> Order:
    """A function that places an order and enqueues its job, which fails or not."""

    @rig.huey.task(name="ship", if_not_done=close, if_redriven=reopen)
    def ship(problem: str = "") -> None:
        if problem:
            raise ValueError(problem)

    def place(problem: str = "", **options: Any) -> Any:
        with rig.database.transaction() as connection:
            result = ship(problem, **options)
            connection.execute("INSERT INTO orders VALUES (?, 'open', NULL)", (result.id,))
        return result

    return place


def orders(rig: Rig) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in rig.database.read("SELECT state, reason FROM orders")]


def test_an_order_fails_with_its_job_in_one_commit(rig: Rig, order: Order) -> None:
    order("no stamps")
    claimed = rig.claim("i1")
    commits = rig.database.writer.commits
    ended = rig.huey.run(claimed)
    rig.huey.finish(ended, None, rig.huey.rules())
    assert rig.database.writer.commits == commits + 1
    assert orders(rig) == [("failed", "ValueError: no stamps")]


def test_an_order_stays_open_while_its_job_is_done_or_tried_again(rig: Rig, order: Order) -> None:
    order()
    order("no stamps", retries=1, retry_delay=60)
    rig.run_all()
    assert orders(rig) == [("open", None), ("open", None)]


def test_an_order_is_cancelled_with_its_job(rig: Rig, order: Order) -> None:
    assert rig.huey.cancel(order().id)
    assert orders(rig) == [("cancelled", "Cancelled: by hand")]


def test_an_order_is_cancelled_when_its_job_was_revoked(rig: Rig, order: Order) -> None:
    order().revoke()
    rig.run_all()
    assert orders(rig) == [("cancelled", "Revoked: it was revoked before it ran")]


def test_an_order_fails_when_its_job_died_too_often(rig: Rig, order: Order) -> None:
    order()
    for _ in range(3):
        assert orders(rig) == [("open", None)]
        assert rig.claim("i1")
        rig.huey.free("i1")
    assert orders(rig) == [("failed", "ProcessDiedError: its process died 3 times while it ran")]


def test_an_order_is_open_again_when_its_job_is_redriven(rig: Rig, order: Order) -> None:
    order("no stamps")
    order("no box")
    rig.run_all()
    assert [state for state, _ in orders(rig)] == ["failed", "failed"]
    assert rig.huey.redrive(task="ship") + rig.huey.redrive() == 2
    assert orders(rig) == [("open", None), ("open", None)]


def test_a_redrive_that_is_undone_leaves_the_order_closed(rig: Rig, order: Order) -> None:
    order("no stamps")
    rig.run_all()
    with suppress(KeyError), rig.database.transaction():
        assert rig.huey.redrive() == 1
        raise KeyError
    assert orders(rig)[0][0] == "failed"


def test_an_order_that_cannot_follow_keeps_no_job_from_its_end(rig: Rig, order: Order) -> None:
    result = order("no stamps")
    rig.database.write(lambda c: c.execute("DELETE FROM orders"))  # which makes `close` raise
    rig.run_all()
    assert rig.row(result.id)["state"] == "failed"
