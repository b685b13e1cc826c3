"""What tests of the desk share: how they read a page, a mail to send, a task that fails."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from jinja2 import ChoiceLoader, DictLoader

import tasks
from app.kit.mail.sending import send_email
from tests.conftest import RunJobs
from tests.kit.smtp_sink import HANG_UP, SmtpSink

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
FAIL = "tests.kit.desk_rig.fail"
"""The name of the task that `failing` makes."""


def look(operator: FlaskClient, path: str = "/desk", status: int = 200) -> str:
    """Return a page."""
    answer = operator.get(path)
    assert answer.status_code == status, answer.text
    return answer.text


def text_of(page: str) -> str:
    """Return a page's words as a reader has them, with one blank between two."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def part(page: str, name: str) -> str:
    """Return one live part of a page, up to the next one."""
    return page.split(f'data-part="{name}"', 1)[1].split("data-part=", 1)[0]


def values(page: str, name: str) -> list[str]:
    """Return the values of an attribute, in their order."""
    return [html.unescape(value) for value in re.findall(rf'{name}="([^"]*)"', page)]


def add_template(app: Flask) -> None:
    """Add a mail to send, `note`, to the site's own templates."""
    assert app.jinja_env.loader is not None
    notes = DictLoader({"emails/note.txt": "{{ subject }}\n\nHello"})
    app.jinja_env.loader = ChoiceLoader([notes, app.jinja_env.loader])


@contextmanager
def failing(name: str = "fail") -> Iterator[Callable[[str], Any]]:
    """Make a task that raises ValueError with the word it is given."""

    def fail(word: str) -> None:
        raise ValueError(word)

    task = tasks.huey.task(name=name)(fail)
    yield task
    task.unregister()


def make_unknown(sink: SmtpSink, run_jobs: RunJobs) -> int:
    """Send a mail of which nobody can know whether it arrived."""
    sink.answer("dot", HANG_UP)
    email_id = send_email("cleo@example.com", "note", subject="Lost & found", policy="hold")
    run_jobs()
    return email_id
