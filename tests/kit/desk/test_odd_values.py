"""Jobs with odd arguments, results, errors and ids: pages, API, commands and the log show each of them."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

import tasks
from app.kit.engine.operate import commands
from app.kit.errors import InvalidInputError
from app.kit.host.logs import DiscreetFormatter
from app.kit.plain_text import NOT_TEXT
from tasks.example import count_words

FIRST, LAST = (dt.datetime.fromisoformat(day + "+00:00") for day in ("0001-01-01T00:00", "9999-12-31T23:59"))
VALUES: list[Any] = [
    *(
        "",
        " ",
        "\0",
        "\x1b[31mred\r\n\x7f\x85",
        "\udc80\ud800",
        "\u202e\u2028",
        "<script>{{ 7 * 7 }}",
        "x" * 100_000,
    ),
    *(2**9000, -(2**63), 1e308, -0.0, None, [], {}, ((), ((1,),))),
    *(b"\xff\0", Decimal("NaN"), Decimal("1E+5000"), dt.timedelta.max, dt.time(1, fold=1)),
    *(FIRST, FIRST.replace(tzinfo=None), FIRST.replace(tzinfo=dt.timezone(dt.timedelta(hours=14)))),
    *(LAST, LAST.replace(tzinfo=None)),
    LAST.replace(tzinfo=dt.timezone(dt.timedelta(hours=-14))),
    {"": 1, "\udc80": "\0", "created_at": "yesterday", "$x": [{"_at": ()}]},
]


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value


VALUES.append(deep(200))


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no word")

    __repr__ = __str__


ERRORS: list[BaseException] = [
    *(
        ValueError(),
        ValueError(""),
        ValueError("\0\x1b[31m\r\n2031-01-01 ERROR forged"),
        ValueError("\udc80"),
    ),
    *(
        MuteError(),
        KeyError(""),
        ValueError("y" * 100_000),
        ExceptionGroup("g", [OSError(2, "no", "\udc80")]),
    ),
    *(SystemExit("bye"), KeyboardInterrupt(), GeneratorExit(), StopIteration()),
]
IDS = ["a/b", "é è", "?x=1#y", "'; DROP TABLE jobs; --", "<b>", "x" * 1000]


@pytest.fixture
def odd(app: Flask, run_jobs: Callable[[], None]) -> Iterator[list[str]]:
    """The ids of jobs that have ended, each with something odd about it."""
    give = tasks.huey.task(name="odd/<b>'\"é")(lambda *given, **named: given[0] if given else named["value"])

    def fail(number: int) -> None:
        raise ERRORS[number]

    failing = tasks.huey.task(name="failing")(fail)
    made = [give(value).id for value in VALUES] + [give(value=value).id for value in VALUES]
    made += [give(1, id=id).id for id in IDS]
    made += [give(1, priority=2**53).id, give.schedule((1,), eta=dt.datetime(9999, 12, 30)).id]  # noqa: DTZ001
    made += [failing(number).id for number in range(len(ERRORS))]
    run_jobs()
    yield made
    give.unregister()
    failing.unregister()


def test_pages_and_the_api_show_them(odd: list[str], operator: FlaskClient) -> None:
    for uuid in odd:
        address = quote(uuid)
        for path in (f"/jobs/{address}", f"/jobs/{address}/live?seen=x", f"/api/jobs/{address}"):
            answer = operator.get(path)
            assert answer.status_code == 200, (uuid, path)
            assert not NOT_TEXT.search(answer.text), (uuid, path)
    for path in ("/desk", "/desk?state=done", "/desk?q=%00%1b", "/metrics", "/api/queue"):
        answer = operator.get(path)
        assert answer.status_code == 200, path
        assert not NOT_TEXT.search(answer.text), path


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_commands_show_them_on_any_terminal(
    odd: list[str], monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    def said(*arguments: str) -> str:
        terminal = io.TextIOWrapper(io.BytesIO(), encoding, newline="\n")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            assert commands.run(tasks.huey, list(arguments)) == 0
        terminal.flush()
        text = terminal.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        assert all(line.isprintable() for line in text.split("\n"))
        return text

    for uuid in odd:
        assert json.loads(said("show", uuid))["id"] == uuid
    assert len(said("list").splitlines()) == 1 + len(ERRORS)
    said("list", "done")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["list", "--limit", limit] for limit in ("0", "-1", "9" * 20, "x")),
        *(["list", "--task", "\udc80"], ["show", "\udc80"], ["retry", "\udc80"], ["cancel", "\udc80"]),
    ],
)
def test_a_command_refuses_what_cannot_be_meant(app: Flask, arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        commands.run(tasks.huey, arguments)


def test_a_line_of_the_log_stays_one_line_and_commands_no_terminal() -> None:
    formatter = DiscreetFormatter([])
    try:
        raise ValueError("\x1b[2J\0")
    except ValueError:
        record = logging.makeLogRecord(
            {"msg": "found %s", "args": ("\x1b[31m\n2031 ERROR x",), "exc_info": sys.exc_info()}
        )
    text = formatter.format(record)
    assert not NOT_TEXT.search(text)
    assert "found \\u001b[31m\\n2031 ERROR x\n" in text


@pytest.mark.parametrize("id", ["a\nb", "\0", "\udc80", "x" * 1001])
def test_an_id_that_cannot_be_shown_is_refused(app: Flask, id: str) -> None:
    with pytest.raises(InvalidInputError, match="id="):
        count_words("to be", id=id)
