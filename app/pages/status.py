"""How the site is: /up for health checks of hosts, /ready with reasons, the queue in numbers."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, current_app, request

import tasks
from app.clock import clock
from app.database import database
from app.errors import PostroomError
from app.mail import troubles
from app.pages.front_door import is_operator
from app.pages.json_out import with_moments

FOR_STRANGERS = ("counts", "oldest_ready_age_s")

bp = Blueprint("status", __name__)
log = logging.getLogger("postroom")


@bp.before_app_request
def warn_without_consumer() -> None:
    """Say once, where pages are served by another start than the kit's own, that nobody runs their jobs (P6)."""
    if request.endpoint == "status.up" or current_app.extensions.get("consumer_looked_for"):
        return
    current_app.extensions["consumer_looked_for"] = True
    if current_app.extensions["consumer"].is_started():
        return
    with suppress(PostroomError, sqlite3.Error):
        for sentence in what_holds_jobs_up():
            log.warning("%s (python3 main.py does both; beside flask run: python3 main.py worker)", sentence)


def what_holds_jobs_up() -> list[str]:
    """Return a sentence for everything that keeps jobs from running."""
    consumer = current_app.extensions["consumer"]
    if not consumer.is_started():
        consumer.instance.sweep()  # who is gone is still in the table, and nobody else may be there to see it
    return tasks.huey.health()


@bp.get("/up")
def up() -> Response:
    """Say that the web server answers; touches nothing else."""
    return Response("ok\n", mimetype="text/plain")


@bp.get("/ready")
def ready() -> tuple[dict[str, Any], int]:
    """Say whether jobs and mails get done; if not, why (promise P6).

    Trouble with mail or the clock is a warning: another host or a restart of this one would not mend it.
    """
    reasons = without_folders(_database_troubles() or what_holds_jobs_up())
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    answer: dict[str, Any] = {"ready": not reasons, "reasons": reasons}
    if not reasons and (warnings := _warnings()):
        answer["warnings"] = warnings
    return answer, status


def _warnings() -> list[str]:
    doubt = clock.doubt()
    return [*([doubt] if doubt else []), *troubles.find()]


@bp.get("/api/queue")
def queue() -> dict[str, Any]:
    """Answer with the queue's depth by state and its age; to the operator also with who works on what, and pauses.

    Not to strangers: a job's id would let them read its result, and a pause may name what the mail server said.
    """
    overview: dict[str, Any] = with_moments(tasks.huey.overview())
    return overview if is_operator() else {name: overview[name] for name in FOR_STRANGERS}


def without_folders(sentences: list[str]) -> list[str]:
    """Leave out, for strangers, where on this machine the files are."""
    folder = f"{current_app.extensions['settings'].data_dir}{os.sep}"
    return sentences if is_operator() else [sentence.replace(folder, "") for sentence in sentences]


def _database_troubles() -> list[str]:
    try:
        database.write(_write_something)
    except (PostroomError, sqlite3.Error) as error:
        return [f"The database cannot be written to: {error}."]
    return []


def _write_something(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE postroom_about SET value = value WHERE key = 'environment'")
