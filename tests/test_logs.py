"""Log lines: no trace of what has been told in words already, and no secret."""

from __future__ import annotations

import logging

import pytest

from app import logs
from app.mail.replies import NotSentError, Reply


@pytest.fixture(autouse=True)
def as_before() -> object:
    """The root logger as pytest has it, after each test."""
    root = logging.getLogger()
    handlers, level, huey = root.handlers[:], root.level, logging.getLogger("huey").level
    yield None
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("huey").setLevel(huey)


def log_error(error: Exception) -> None:
    try:
        raise error
    except type(error):
        logging.getLogger("huey").exception("Unhandled exception in task 7.")


def test_an_error_of_mail_is_told_once_and_any_other_with_its_trace(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("INFO")
    log_error(NotSentError(Reply("rcpt", 550, "5.1.1", "no such reader")))
    assert capsys.readouterr().err == ""
    log_error(ValueError("a bug"))
    assert "Traceback" in capsys.readouterr().err


def test_no_secret_is_written_not_even_in_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", ["hunter2"])
    log_error(ValueError("smtp://cleo:hunter2@mail.example"))
    said = capsys.readouterr().err
    assert "hunter2" not in said
    assert "cleo:***@mail" in said
