"""The queue from the command line: list, show, retry, cancel, backup."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import tasks
from app.kit.engine.operate import commands
from app.kit.errors import InvalidInputError, NotFoundError


def run(*arguments: str) -> int:
    """Run `python3 main.py jobs` with these arguments."""
    return commands.run(tasks.huey, list(arguments))


@pytest.fixture
def divide(app: Flask) -> Iterator[Any]:
    """A task that fails for want of a divisor."""

    @tasks.task(name="divide")
    def divide(a: int, b: int) -> float:
        return a / b

    yield divide
    divide.unregister()


@pytest.fixture
def failed(divide: Any, run_jobs: Callable[[], None]) -> str:
    """The uuid of a job on the shelf."""
    uuid: str = divide(1, 0).id
    run_jobs()
    return uuid


def test_list_shows_the_failed_jobs_and_how_many_there_are_of_each_state(
    failed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list") == 0
    counts, line = capsys.readouterr().out.splitlines()
    assert "1 failed" in counts
    assert failed in line
    assert "ZeroDivisionError: division by zero" in line


def test_show_tells_arguments_and_every_attempt(failed: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("show", failed)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["state"], shown["args"]) == ("failed", [1, 0])
    (attempt,) = shown["attempts"]
    assert attempt["error"] == "ZeroDivisionError: division by zero"
    assert "in divide" in attempt["traceback"]


@pytest.mark.parametrize("which", [["--all"], ["--task", "tests.kit.engine.test_commands.divide"], []])
def test_retry_makes_failed_jobs_ready_again(
    failed: str, which: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run("retry", *(which or [failed]))
    assert capsys.readouterr().out == "1 job runs again as soon as a worker is free.\n"
    assert tasks.huey.job(failed)["state"] == "ready"


def test_retry_of_another_task_touches_nothing(failed: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("retry", "--task", "tasks.example.nothing")
    assert capsys.readouterr().out.startswith("0 jobs run again")
    assert tasks.huey.job(failed)["state"] == "failed"


def test_cancel_takes_a_waiting_job_out_of_the_queue(divide: Any) -> None:
    uuid = divide(1, 2).id
    run("cancel", uuid)
    assert tasks.huey.job(uuid)["state"] == "cancelled"


def test_what_cannot_be_done_is_refused_with_the_state(failed: str) -> None:
    with pytest.raises(InvalidInputError, match="is failed; only ready and scheduled jobs"):
        run("cancel", failed)
    run("retry", failed)
    with pytest.raises(InvalidInputError, match="is ready; only failed jobs"):
        run("retry", failed)


@pytest.mark.parametrize("command", ["show", "retry", "cancel"])
def test_an_unknown_job_is_named(app: Flask, command: str) -> None:
    with pytest.raises(NotFoundError, match="There is no job nobody"):
        run(command, "nobody")


def test_a_backup_is_a_whole_database_of_its_own(app: Flask, failed: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    app.extensions["database"].backup(copy)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("SELECT uuid FROM postroom_jobs WHERE state = 'failed'").fetchall() == [
            (failed,)
        ]


def test_a_backup_overwrites_nothing(app: Flask, tmp_path: Path) -> None:
    precious = tmp_path / "precious.db"
    precious.write_text("mine")
    with pytest.raises(InvalidInputError, match=r"precious\.db exists"):
        app.extensions["database"].backup(precious)
    assert precious.read_text() == "mine"
