"""The database: transactions, what happens after their commit, readers (P3)."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app.kit.database.file import Database
from app.kit.errors import DatabaseBusyError, DatabaseUnusableError, DeadlockError
from tests.kit.engine_rig import Threads, numbers, put


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with one table."""
    database = Database(tmp_path / "a.db", wait_s=0.2)
    database.write(lambda connection: connection.execute("CREATE TABLE numbers (n INTEGER NOT NULL)"))
    yield database
    database.close()


def elsewhere(work: Callable[[], object]) -> list[object]:
    """Run `work` in another thread and return what it returned, in a list."""
    answers: list[object] = []
    with Threads() as threads:
        threads.start(lambda: answers.append(work()))
    assert not threads.errors, threads.errors
    return answers


# Transactions


def test_a_transaction_keeps_everything(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
        put(database, 2)
    assert numbers(database) == [1, 2]


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_transaction_that_raises_keeps_nothing(database: Database, raised: type[BaseException]) -> None:
    with suppress(raised), database.transaction() as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
        put(database, 2)
        raise raised
    assert numbers(database) == []
    put(database, 3)
    assert numbers(database) == [3]


def test_a_nested_transaction_that_fails_takes_only_its_own_with_it(database: Database) -> None:
    with database.transaction():
        put(database, 1)
        with suppress(ValueError), database.transaction():
            put(database, 2)
            with database.transaction():
                put(database, 3)
            raise ValueError
        with database.transaction():
            put(database, 4)
    assert numbers(database) == [1, 4]


def test_a_write_that_fails_inside_a_transaction_leaves_the_rest_of_it(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (9)")
        raise ValueError("half way")

    with database.transaction():
        put(database, 1)
        with pytest.raises(ValueError, match="half way"):
            database.write(fail)
    assert numbers(database) == [1]


def test_a_transaction_sees_its_own_writes_and_other_threads_do_not(database: Database) -> None:
    put(database, 1)
    with database.transaction():
        put(database, 2)
        assert numbers(database) == [1, 2]
        assert elsewhere(lambda: numbers(database)) == [[1]]
    assert elsewhere(lambda: numbers(database)) == [[1, 2]]


def test_a_transaction_is_the_only_writer_while_it_lasts(database: Database) -> None:
    with database.transaction(), Threads() as threads:
        threads.start(lambda: put(database, 1))
    assert [type(error) for error in threads.errors] == [DatabaseBusyError]
    assert numbers(database) == []


def test_a_transaction_that_sqlite_rolled_back_takes_no_more_writes(database: Database) -> None:
    database.write(
        lambda connection: connection.execute(
            "CREATE TRIGGER culprit BEFORE INSERT ON numbers WHEN new.n = -1"
            " BEGIN SELECT RAISE(ROLLBACK, 'the culprit'); END"
        )
    )

    @database.transaction()
    def go_on_all_the_same() -> None:
        put(database, 1)
        with pytest.raises(sqlite3.Error, match="the culprit"):
            put(database, -1)
        with pytest.raises(sqlite3.OperationalError, match="has rolled this transaction back"):
            put(database, 2)

    with pytest.raises(sqlite3.OperationalError):
        go_on_all_the_same()
    assert numbers(database) == []


# After the commit


def test_after_commit_calls_once_the_outermost_transaction_is_over(database: Database) -> None:
    calls: list[list[int]] = []
    with database.transaction():
        with database.transaction():
            put(database, 1)
            database.after_commit(lambda: calls.extend(elsewhere(lambda: numbers(database))))  # type: ignore[arg-type]
        assert calls == []
    assert calls == [[1]]


def test_after_commit_outside_a_transaction_calls_at_once(database: Database) -> None:
    calls: list[int] = []
    database.after_commit(lambda: calls.append(1))
    assert calls == [1]


def test_after_commit_forgets_what_was_asked_for_in_a_block_that_was_rolled_back(database: Database) -> None:
    calls: list[str] = []
    with database.transaction():
        database.after_commit(lambda: calls.append("before"))
        with suppress(ValueError), database.transaction():
            database.after_commit(lambda: calls.append("inner"))
            raise ValueError
        database.after_commit(lambda: calls.append("after"))
    with suppress(ValueError), database.transaction():
        database.after_commit(lambda: calls.append("outer"))
        raise ValueError
    assert calls == ["before", "after"]


def test_after_commit_calls_everybody_though_one_raises(database: Database) -> None:
    calls: list[str] = []

    def stumble() -> None:
        calls.append("first")
        raise ValueError("stumbled")

    @database.transaction()
    def put_and_stumble() -> None:
        put(database, 1)
        database.after_commit(stumble)
        database.after_commit(lambda: calls.append("second"))

    with pytest.raises(ValueError, match="stumbled"):
        put_and_stumble()
    assert (calls, numbers(database), database.in_transaction) == (["first", "second"], [1], False)


def test_a_callback_may_open_a_transaction_of_its_own(database: Database) -> None:
    with database.transaction():
        database.after_commit(lambda: put(database, 2))
        put(database, 1)
    assert numbers(database) == [1, 2]


# Warnings


def test_a_slow_transaction_is_named_by_file_and_line(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.kit.database.file.SLOW_TRANSACTION_S", -1.0)
    line = sys._getframe().f_lineno + 1
    with database.transaction():
        pass
    (record,) = caplog.records
    assert f"{__file__}:{line}" in record.getMessage()


def test_a_quick_transaction_warns_of_nothing(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with database.transaction():
        put(database, 1)
    assert caplog.records == []


# Readers


def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.read("INSERT INTO numbers VALUES (1)")
    assert numbers(database) == []


def test_read_one_returns_the_first_row_or_none(database: Database) -> None:
    assert database.read_one("SELECT n FROM numbers") is None
    put(database, 7)
    row = database.read_one("SELECT n FROM numbers WHERE n = :n", {"n": 7})
    assert row is not None
    assert row["n"] == 7


def test_the_readers_of_threads_that_have_gone_are_closed(database: Database) -> None:
    for _ in range(20):
        elsewhere(lambda: numbers(database))
    assert len(database._readers) <= 2


def test_data_version_changes_with_a_commit_and_only_then(database: Database) -> None:
    before = database.data_version()
    assert database.data_version() == before
    put(database, 1)
    assert database.data_version() != before


def test_a_full_disk_is_said_clearly_and_leaves_nothing_half_done(database: Database) -> None:
    database.write(lambda connection: connection.execute("CREATE TABLE letters (text TEXT)"))
    pages = database.writer.connection.execute("PRAGMA page_count").fetchone()[0]
    database.writer.connection.execute(f"PRAGMA max_page_count = {pages}")
    fill = ("INSERT INTO letters VALUES (?)", ("x" * 100_000,))
    with pytest.raises(DatabaseUnusableError, match="cannot be written: database or disk is full"):
        database.write(lambda connection: connection.execute(*fill))

    def small_and_large() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO letters VALUES ('small')")
            connection.execute(*fill)

    with pytest.raises(DatabaseUnusableError):
        small_and_large()
    assert database.read("SELECT * FROM letters") == []
    database.writer.connection.execute("PRAGMA max_page_count = 1000000")
    database.write(lambda connection: connection.execute(*fill))
    assert len(database.read("SELECT * FROM letters")) == 1


# Coroutines of one thread


def test_of_two_coroutines_each_has_a_transaction_of_its_own_or_is_refused(database: Database) -> None:
    heard: list[str] = []

    async def one(number: int, entered: asyncio.Event, go_on: asyncio.Event) -> None:
        with database.transaction():
            put(database, number)
            entered.set()
            await go_on.wait()
            raise ValueError("undo me")

    async def other(number: int, entered: asyncio.Event, go_on: asyncio.Event) -> None:
        await entered.wait()
        heard.append(f"sees {numbers(database)}, in a transaction: {database.in_transaction}")
        for write in (lambda: put(database, number), lambda: database.transaction().__enter__()):
            with pytest.raises(DeadlockError, match="another coroutine"):
                write()
        go_on.set()

    async def both() -> None:
        entered, go_on = asyncio.Event(), asyncio.Event()
        await asyncio.gather(one(1, entered, go_on), other(2, entered, go_on), return_exceptions=True)
        put(database, 3)

    asyncio.run(both())
    assert heard == ["sees [], in a transaction: False"]
    assert numbers(database) == [3]


def test_a_coroutine_joins_its_own_transaction_and_that_of_the_code_that_runs_it(database: Database) -> None:
    async def one(number: int) -> None:
        with database.transaction():
            put(database, number)
            with database.transaction():
                put(database, number + 1)

    with database.transaction():
        asyncio.run(one(1))
    asyncio.run(one(3))
    assert numbers(database) == [1, 2, 3, 4]


def test_two_coroutines_inside_one_transaction_do_not_share_a_savepoint(database: Database) -> None:
    async def one(number: int, seconds: float) -> None:
        with database.transaction():
            put(database, number)
            await asyncio.sleep(seconds)

    async def both() -> list[BaseException | None]:
        return await asyncio.gather(one(1, 0.01), one(2, 0), return_exceptions=True)

    with database.transaction():
        kept, refused = asyncio.run(both())
    assert (kept, type(refused), numbers(database)) == (None, DeadlockError, [1])
