"""Forks: a child opens its own connections, and what its parent has open stays the parent's (P1)."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.kit.database.file import Database
from app.kit.errors import DatabaseBusyError, DatabaseUnusableError
from tests.kit.engine_rig import Threads, numbers, put, until

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks"),
    pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning"),
]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with one table."""
    database = Database(tmp_path / "a.db", wait_s=0.2)
    database.write(lambda connection: connection.execute("CREATE TABLE numbers (n INTEGER NOT NULL)"))
    yield database
    database.close()


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; return its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_opens_its_own_connection_and_both_go_on(database: Database) -> None:
    database.wait_s = database.writer.wait_s = 10
    put(database, 1)
    parents = database.writer

    def in_child() -> None:
        assert numbers(database)[0] == 1
        assert database.writer is not parents
        for n in range(10, 60):
            put(database, n)

    pid = fork(in_child)
    for n in range(100, 150):
        put(database, n)
    assert status_of(pid) == 0
    assert sorted(numbers(database)) == [1, *range(10, 60), *range(100, 150)]


def test_a_fork_waits_for_the_transaction_of_another_thread(tmp_path: Path) -> None:
    database = Database(tmp_path / "b.db")
    database.write(lambda connection: connection.execute("CREATE TABLE numbers (n)"))
    pids: list[int] = []
    with Threads() as threads:
        with database.transaction():
            threads.start(lambda: pids.append(fork(lambda: put(database, 2))))
            until(lambda: len(database.writer.line) == 1, "the fork's place in the line")
            put(database, 1)
        until(lambda: pids, "the fork")
    assert status_of(pids[0]) == 0
    put(database, 3)
    assert numbers(database) == [1, 2, 3]
    database.close()


def test_a_child_forked_inside_a_transaction_neither_shares_nor_ends_it(database: Database) -> None:
    def in_child() -> None:
        assert not database.in_transaction
        with pytest.raises((DatabaseBusyError, DatabaseUnusableError)):  # its parent has the file
            put(database, 9)

    with database.transaction():
        put(database, 1)
        pid = fork(in_child)
        assert status_of(pid) == 0
        put(database, 2)
    assert numbers(database) == [1, 2]


def test_a_child_that_falls_out_of_its_parents_transaction_commits_nothing(database: Database) -> None:
    try:
        with database.transaction():
            put(database, 1)
            pid = os.fork()
            if pid:
                assert status_of(pid) == 0
    except DatabaseUnusableError:
        os._exit(0)
    if not pid:
        os._exit(1)
    assert numbers(database) == [1]


def test_a_child_never_holds_the_turn_for_a_parent_that_is_gone(database: Database) -> None:
    with database.transaction():
        pid = fork(lambda: time.sleep(60))
    other = Database(database.path, wait_s=0.2)
    put(other, 1)
    other.close()
    os.kill(pid, 9)
    assert status_of(pid) == -9
