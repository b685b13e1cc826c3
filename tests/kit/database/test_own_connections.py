"""A body with a connection of its own to the file, and a transaction open in it, when it fails (P2)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.engine_rig import Rig, numbers, put, rig_in

# The bodies below close nothing, and newer Pythons say so of each.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

Make = Callable[[Rig], Any]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A queue whose writer waits for nobody."""
    with rig_in(tmp_path, wait_s=1) as rig:
        rig.database.write(lambda connection: connection.execute("CREATE TABLE numbers (n)"))
        yield rig


def begin(rig: Rig) -> sqlite3.Connection:
    """Open a connection and leave a transaction open in it."""
    connection = sqlite3.connect(rig.database.path)
    connection.execute("INSERT INTO numbers VALUES (-1)")
    return connection


def plain(rig: Rig) -> Any:
    def body(_n: int) -> None:
        connection = begin(rig)
        raise ValueError(f"row 7 is not a number, {connection.in_transaction}")

    return rig.huey.task(name="body")(body)


def in_a_loop(rig: Rig) -> Any:
    async def body(_n: int) -> None:
        connection = begin(rig)
        raise ValueError(connection.in_transaction)

    return rig.huey.task(name="body")(body)


def another_error(rig: Rig) -> Any:
    def fail() -> None:
        connection = begin(rig)
        raise KeyError(connection.in_transaction)

    def body(_n: int) -> None:
        try:
            fail()
        except KeyError as error:
            raise ExceptionGroup("both", [ValueError("one"), error]) from None

    return rig.huey.task(name="body")(body)


def kept_by_itself(rig: Rig) -> Any:
    def body(_n: int) -> None:
        connection, kept = begin(rig), []
        try:
            raise ValueError(connection.in_transaction)
        except ValueError as error:
            kept.append(error)
            raise

    return rig.huey.task(name="body")(body)


def that_leaves(rig: Rig) -> Any:
    def body(_n: int) -> None:
        connection = begin(rig)
        raise SystemExit(connection.in_transaction)

    return rig.huey.task(name="body")(body)


@pytest.mark.parametrize("make", [plain, in_a_loop, another_error, kept_by_itself, that_leaves])
def test_a_body_that_fails_with_a_transaction_of_its_own_open_stops_nobody(rig: Rig, make: Make) -> None:
    heard: list[BaseException] = []
    rig.huey.signal("error")(lambda _signal, _task, error: (heard.append(error), put(rig.database, 1)))
    job = make(rig)(1)
    rig.run_next()
    assert rig.row(job.id)["state"] == "failed"
    put(rig.database, 2)
    assert numbers(rig.database) == [1, 2]  # what the body began is undone, also before any handler runs
    assert len(heard) == 1


def test_a_batch_that_fails_so_is_tried_one_by_one(rig: Rig) -> None:
    def body(items: list[int]) -> None:
        connection, kept = begin(rig), []
        try:
            raise ValueError(connection.in_transaction, items)
        except ValueError as error:
            kept.append(error)
            raise

    task = rig.huey.batch_task(name="batch", every_s=1)(body)
    for n in range(2):
        task(n)
    rig.clock.advance(2)
    rig.promote()
    for _ in range(3):
        rig.run_next()
    assert rig.states() == {"failed": 2}


def test_a_body_that_returns_and_forgets_its_connection_stops_nobody(rig: Rig) -> None:
    rig.huey.task(name="body")(lambda _n: begin(rig).in_transaction)(1)
    rig.run_next()
    assert (rig.states(), numbers(rig.database)) == ({"done": 1}, [])
