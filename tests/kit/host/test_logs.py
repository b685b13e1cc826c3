"""Log lines: no trace of what has been told in words already, and no secret."""

from __future__ import annotations

import logging
import re
import sys

import pytest

from app.kit.host import logs
from app.kit.mail.replies import NotSentError, Reply


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


# However much a client makes us write


def test_long_line_is_cut_in_the_middle_and_a_trace_later(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO")
    log = logging.getLogger("postroom")
    log.warning("begins %s ends", "x" * 10**6)
    said = capsys.readouterr().err
    assert len(said) < logs.MOST_LETTERS + 100
    assert re.search(r"begins x+ \.\.\. \d+ letters left out \.\.\. x+ ends\n$", said)
    log_error(ValueError("y" * 10**6))
    said = capsys.readouterr().err
    assert logs.MOST_LETTERS < len(said) < logs.MOST_WITH_TRACE + 100
    assert "Traceback" in said


@pytest.mark.parametrize("name", ["gunicorn.error", "gunicorn.access"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Error handling request POST /unsubscribe/1.SECRET", "POST /unsubscribe/***"),
        ("Error handling request GET /sign-in?next=/desk&token=SECRET", "/sign-in?next=/desk&token=***"),
        ("Invalid Request Line: 'GET /confirm/7.a.SECRET x HTTP/1.1'", "'GET /confirm/*** x HTTP/1.1'"),
        ("Error handling request GET /unsubscribe", "GET /unsubscribe"),
    ],
)
def test_address_in_a_line_of_gunicorn_does_not_open_what_it_leads_to(
    capsys: pytest.CaptureFixture[str], name: str, line: str, expected: str
) -> None:
    gunicorn = logging.getLogger(name)
    handler = logging.StreamHandler(sys.stderr)
    gunicorn.addHandler(handler)
    gunicorn.propagate = False
    try:
        logs.configure("INFO")
        gunicorn.warning(line)
    finally:
        gunicorn.removeHandler(handler)
        gunicorn.propagate = True
    assert capsys.readouterr().err.endswith(f"{expected}\n")


def test_lines_of_one_kind_are_counted_and_others_are_still_written() -> None:
    now_s = 0.0
    sparing = logs.Sparing(lambda: now_s)

    def written(place: int, times: int, error: Exception | None = None) -> list[str]:
        records = [
            logging.LogRecord("a", logging.ERROR, "f.py", place, "line %d", (n,), None) for n in range(times)
        ]
        for record in records:
            record.exc_info = (type(error), error, error.__traceback__) if error else None
        return [record.getMessage() for record in records if sparing.filter(record)]

    first = written(1, 1000)
    assert first[:-1] == [f"line {n}" for n in range(logs.MOST_ALIKE - 1)]
    assert first[-1].startswith(f"line {logs.MOST_ALIKE - 1} [others like this one are only counted")
    assert written(2, 3) == ["line 0", "line 1", "line 2"]
    assert len(written(1, 3, ValueError())) == len(written(1, 3, TypeError())) == 3
    now_s = logs.ALIKE_S
    assert written(3, 2) == [
        f"line 0 [{1000 - logs.MOST_ALIKE} lines like others were not written in the minute before]",
        "line 1",
    ]
    assert written(1, 1) == ["line 0"]


def test_kinds_of_lines_are_bounded() -> None:
    sparing = logs.Sparing()
    for place in range(3 * logs.MOST_KINDS):
        sparing.filter(logging.LogRecord("a", logging.ERROR, "f.py", place, "line", (), None))
    assert len(sparing._counts) <= logs.MOST_KINDS
