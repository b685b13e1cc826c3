"""The writer: small writes that wait together commit together, and none suffers for another."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import pytest

from app.kit.database.file import Database
from app.kit.database.writer import MAX_GROUP
from app.kit.errors import DatabaseBusyError
from tests.kit.engine_rig import Threads, numbers, put, until

CULPRIT = -1


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with one table, in which the number -1 makes SQLite roll everything back."""
    database = Database(tmp_path / "writer.db", synchronous="NORMAL", wait_s=10)
    with database.transaction() as connection:
        connection.execute("CREATE TABLE numbers (n INTEGER NOT NULL)")
        connection.execute(
            "CREATE TRIGGER culprit BEFORE INSERT ON numbers WHEN new.n = -1"
            " BEGIN SELECT RAISE(ROLLBACK, 'the culprit'); END"
        )
    yield database
    database.close()


def waiting(database: Database) -> int:
    return len(database.writer.line)


@contextmanager
def held(database: Database, threads: Threads) -> Iterator[None]:
    """Hold the writer from another thread while the block runs."""
    has_it, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with database.transaction():
            has_it.set()
            let_go.wait()

    threads.start(hold)
    has_it.wait()
    try:
        yield
    finally:
        let_go.set()


def queue_up(database: Database, threads: Threads, *works: Callable[[], object]) -> None:
    """Start each work in a thread of its own, the next once the one before stands in line."""
    for work in works:
        before = waiting(database)
        threads.start(work)
        until(lambda before=before: waiting(database) == before + 1, "a place in the line")


def test_writes_that_wait_together_commit_together(database: Database) -> None:
    before = database.writer.commits
    with Threads() as threads, held(database, threads):
        queue_up(database, threads, *(lambda n=n: put(database, n) for n in range(20)))
    assert (numbers(database), threads.errors) == (list(range(20)), [])
    assert database.writer.commits - before == 2  # the holder's, and one for all twenty


def test_a_lone_write_is_one_commit_on_its_own_thread(database: Database) -> None:
    before, ran_on = database.writer.commits, []
    database.write(lambda connection: ran_on.append(threading.current_thread()))
    assert (ran_on, database.writer.commits - before) == ([threading.current_thread()], 1)


def test_a_group_never_grows_beyond_its_limit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_GROUP == 256
    monkeypatch.setattr("app.kit.database.writer.MAX_GROUP", 4)
    before = database.writer.commits
    with Threads() as threads, held(database, threads):
        queue_up(database, threads, *(lambda n=n: put(database, n) for n in range(8)))
    assert (numbers(database), database.writer.commits - before) == (list(range(8)), 3)


def test_a_transaction_in_line_parts_the_groups(database: Database) -> None:
    def exclusive() -> None:
        with database.transaction() as connection:
            connection.execute("INSERT INTO numbers VALUES (100)")

    before = database.writer.commits
    with Threads() as threads, held(database, threads):
        queue_up(database, threads, lambda: put(database, 1), lambda: put(database, 2), exclusive)
        queue_up(database, threads, lambda: put(database, 3), lambda: put(database, 4))
    assert numbers(database) == [1, 2, 100, 3, 4]
    assert database.writer.commits - before == 4


@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "middle", "last"])
@pytest.mark.parametrize("raised", [ValueError, SystemExit, sqlite3.IntegrityError])
def test_a_write_that_fails_in_a_group_hurts_nobody_else(
    database: Database, place: int, raised: type[BaseException]
) -> None:
    def fail() -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO numbers VALUES (99)")
            raise raised("mine alone")

        database.write(work)

    works: list[Callable[[], object]] = [lambda: put(database, 1), lambda: put(database, 2)]
    works.insert(place, fail)
    with Threads() as threads, held(database, threads):
        queue_up(database, threads, *works)
    assert numbers(database) == [1, 2]
    assert [(type(error), str(error)) for error in threads.errors] == [(raised, "mine alone")]


@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "middle", "last"])
def test_when_sqlite_rolls_a_group_back_only_the_culprit_fails(database: Database, place: int) -> None:
    order = [1, 2]
    order.insert(place, CULPRIT)
    with Threads() as threads, held(database, threads):
        queue_up(database, threads, *(lambda n=n: put(database, n) for n in order))
    assert sorted(numbers(database)) == [1, 2]
    assert [str(error) for error in threads.errors] == ["the culprit"]


def test_a_culprit_that_hides_sqlites_error_behind_its_own_still_hurts_nobody_else(
    database: Database,
) -> None:
    def hide() -> None:
        def work(connection: sqlite3.Connection) -> None:
            try:
                connection.execute("INSERT INTO numbers VALUES (-1)")
            except sqlite3.Error:
                raise ValueError("something of my own") from None

        database.write(work)

    with Threads() as threads, held(database, threads):
        queue_up(database, threads, lambda: put(database, 1), hide, lambda: put(database, 2))
    assert sorted(numbers(database)) == [1, 2]
    assert [str(error) for error in threads.errors] == ["something of my own"]


@pytest.mark.parametrize("place", [0, 1], ids=["first", "later"])
def test_a_culprit_that_swallows_sqlites_error_lets_nobody_write_twice(
    database: Database, place: int
) -> None:
    def swallow() -> None:
        def work(connection: sqlite3.Connection) -> None:
            with pytest.raises(sqlite3.Error):
                connection.execute("INSERT INTO numbers VALUES (-1)")

        database.write(work)

    works: list[Callable[[], object]] = [lambda: put(database, 1), lambda: put(database, 2)]
    works.insert(place, swallow)
    with Threads() as threads, held(database, threads):
        queue_up(database, threads, *works)
    assert sorted(numbers(database)) == [1, 2]
    assert len(threads.errors) == 1  # its own: there was no transaction left to commit


@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "middle", "last"])
def test_when_the_disk_is_full_the_small_writes_get_through(database: Database, place: int) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE big AS SELECT zeroblob(1000000) AS hole")

    pages = database.read("PRAGMA page_count")[0][0]
    database.write(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 5}"))
    works: list[Callable[[], object]] = [lambda: put(database, 1), lambda: put(database, 2)]
    works.insert(place, lambda: database.write(fill))
    with Threads() as threads, held(database, threads):
        queue_up(database, threads, *works)
    assert (sorted(numbers(database)), len(threads.errors)) == ([1, 2], 1)
    assert "full" in str(threads.errors[0])


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_a_write_raises_the_line_goes_on(database: Database, raised: type[BaseException]) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (99)")
        raise raised

    with pytest.raises(raised):
        database.write(work)
    put(database, 1)
    assert numbers(database) == [1]


def test_ctrl_c_in_a_leader_leaves_the_writes_of_the_others_alone(database: Database) -> None:
    runs: list[int] = []

    def interrupted(connection: sqlite3.Connection) -> None:
        runs.append(1)
        connection.execute("INSERT INTO numbers VALUES (2)")
        if len(runs) == 1:
            raise KeyboardInterrupt  # reaches the thread that leads, whosever work it runs

    with Threads() as threads, held(database, threads):
        queue_up(database, threads, lambda: put(database, 1), lambda: database.write(interrupted))
        queue_up(database, threads, lambda: put(database, 3))
    assert (numbers(database), [type(error) for error in threads.errors]) == ([2, 3], [KeyboardInterrupt])


def test_ctrl_c_while_waiting_in_line_gives_the_place_up(database: Database) -> None:
    def interrupt() -> None:
        until(lambda: waiting(database) == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Threads() as threads, held(database, threads):
        threads.start(interrupt)
        with pytest.raises(KeyboardInterrupt):
            put(database, 1)
        assert waiting(database) == 0
    put(database, 2)
    assert numbers(database) == [2]


def test_who_waits_too_long_gets_a_busy_error_and_leaves_the_line(tmp_path: Path) -> None:
    database = Database(tmp_path / "busy.db", wait_s=0.05)
    database.open()
    with Threads() as threads, held(database, threads):
        with pytest.raises(DatabaseBusyError, match=r"busy for 0\.05 s"):
            database.write(lambda connection: connection.execute("CREATE TABLE never (n)"))
        with pytest.raises(DatabaseBusyError), database.transaction():
            pass
        assert waiting(database) == 0
    database.write(lambda connection: connection.execute("CREATE TABLE later (n)"))
    assert database.read("SELECT name FROM sqlite_schema WHERE name IN ('never', 'later')")[0][0] == "later"
    database.close()


def test_the_connection_is_on_full_only_when_a_write_of_the_group_asks_for_it(tmp_path: Path) -> None:
    database = Database(tmp_path / "durable.db", synchronous="FULL")
    seen: list[int] = []

    def look(connection: sqlite3.Connection) -> None:
        seen.append(connection.execute("PRAGMA synchronous").fetchone()[0])

    database.write(look, durable=False)
    database.write(look)
    with Threads() as threads, held(database, threads):
        queue_up(database, threads, lambda: database.write(look, durable=False), lambda: database.write(look))
    assert seen == [1, 2, 2, 2]
    database.close()


def test_work_runs_in_the_context_of_who_brought_it(database: Database) -> None:
    visitor: ContextVar[str] = ContextVar("visitor")
    seen: list[str] = []

    def visit(who: str) -> None:
        visitor.set(who)
        database.write(lambda _connection: seen.append(visitor.get()))

    with Threads() as threads, held(database, threads):
        queue_up(database, threads, *(lambda who=who: visit(who) for who in ("ann", "bob", "cyd")))
    assert (seen, threads.errors) == (["ann", "bob", "cyd"], [])


def test_work_that_runs_again_alone_runs_in_its_own_context_too(database: Database) -> None:
    visitor: ContextVar[int] = ContextVar("visitor")

    def visit(number: int) -> None:
        visitor.set(number)
        database.write(lambda c: c.execute("INSERT INTO numbers VALUES (?)", (visitor.get(),)))

    with Threads() as threads, held(database, threads):
        queue_up(database, threads, *(lambda n=n: visit(n) for n in (1, CULPRIT, 3)))
    assert (numbers(database), len(threads.errors)) == ([1, 3], 1)
