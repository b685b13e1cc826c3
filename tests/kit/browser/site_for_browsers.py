"""The kit's own site with tasks whose progress and end the test decides, and mails of any content."""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask, request
from jinja2 import ChoiceLoader, DictLoader

import tasks
from app import create_app
from app.kit.mail.sending import send_email
from tasks import bookshop as alerts

RAW_MAIL = {"emails/raw.txt": "{{ subject }}\n\n{{ text }}\n", "emails/raw.html": "{{ html | safe }}\n"}
"""A mail whose HTML is whatever the test wants it to be."""

may_step = threading.Semaphore(0)
expected: set[str] = set()
may_go_on = threading.Event()
hold_at = 0
"""So many readers told of a book are enough for now."""


@tasks.task()
def walk(total: int, note: str = "") -> str:
    """Report a step whenever the test allows one; return the note."""
    for done in range(1, total + 1):
        may_step.acquire()
        tasks.huey.progress(done, total, note)
    return note


@tasks.task()
def fail_unless(word: str) -> str:
    """Fail with a word, until the test has made it one that is expected."""
    if word not in expected:
        raise ValueError(word)
    return word


def progress_that_may_be_held(done: float, total: float, note: str = "") -> None:
    """Report progress as the kit does; then wait, if that is as far as the test wants it."""
    tasks.progress(done, total, note)
    if done >= hold_at:
        may_go_on.wait()


def make() -> Flask:
    """Build the app with its extra routes."""
    app = create_app()
    # The desk shows what runs by the clock; were it to run, the desk would show other numbers at that minute.
    tasks.huey.enqueue_cron = lambda _task, _minute: False  # type: ignore[method-assign]
    alerts.progress = progress_that_may_be_held
    may_go_on.set()
    app.jinja_env.loader = ChoiceLoader([DictLoader(RAW_MAIL), app.jinja_env.loader])

    @app.post("/api/test/walk")
    def start_walking() -> dict[str, str]:
        body = request.get_json()
        return {"id": walk(body["total"], body.get("note", "")).id}

    @app.post("/api/test/step")
    def allow_steps() -> dict[str, Any]:
        may_step.release(request.get_json()["steps"])
        return {}

    @app.post("/api/test/fail")
    def start_failing() -> dict[str, str]:
        return {"id": fail_unless(request.get_json()["word"]).id}

    @app.post("/api/test/expect")
    def expect() -> dict[str, Any]:
        expected.add(request.get_json()["word"])
        return {}

    @app.post("/api/test/hold")
    def hold_alerts() -> dict[str, Any]:
        global hold_at  # noqa: PLW0603
        hold_at = request.get_json()["at"]
        may_go_on.clear()
        return {}

    @app.post("/api/test/go-on")
    def go_on() -> dict[str, Any]:
        may_go_on.set()
        return {}

    @app.post("/api/test/mail")
    def send_raw_mail() -> dict[str, Any]:
        body = request.get_json()
        return {"id": send_email(body.pop("to"), "raw", **body)}

    return app


app = make()
