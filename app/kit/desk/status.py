"""How the site is: /up for health checks of hosts, /ready with reasons, the queue in numbers."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sqlite3
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Response, current_app, request

from app.kit.database.file import database
from app.kit.engine.wiring import huey
from app.kit.errors import DatabaseUnwritableError, PostroomError
from app.kit.host.clock import clock
from app.kit.mail import troubles
from app.kit.web.front_door import is_operator
from app.kit.web.json_out import with_moments

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
    return huey.health()


@bp.get("/up")
def up() -> Response:
    """Say that the web server answers; touches nothing else."""
    return Response("ok\n", mimetype="text/plain")


@bp.get("/ready")
def ready() -> tuple[dict[str, Any], int]:
    """Say whether jobs and mails get done; if not, why (promise P6).

    A pause and trouble with mail or the clock are warnings: a restart would not mend them.
    """
    reasons = without_folders(_database_troubles() or what_holds_jobs_up())
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    answer: dict[str, Any] = {"ready": not reasons, "reasons": reasons}
    if not reasons and (warnings := [*_troubles_to_come(), *troubles.find()]):
        answer["warnings"] = warnings
    return answer, status


def _troubles_to_come() -> list[str]:
    """Return a sentence for what keeps jobs from running and was meant, or will if nobody sees to it."""
    found = []
    if (doubt := clock.doubt()) is not None:
        found.append(doubt)
    if any(pause["task"] == "" for pause in huey.pauses()):
        found.append("The whole queue is paused, so no job starts. The desk says why, and lifts it.")
    if stuck_bytes := database.stuck_wal_bytes():
        found.append(
            f"{stuck_bytes / 2**20:.0f} MiB cannot leave the write-ahead log, which grows: a program or a task has "
            "the database open in a transaction that does not end. Stop it."
        )
    return found


@bp.get("/api/queue")
def queue() -> dict[str, Any]:
    """Answer with the queue's depth by state and its age; to the operator also with who works on what, and pauses.

    Not to strangers: a job's id would let them read its result, and a pause may name what the mail server said.
    """
    overview: dict[str, Any] = with_moments(huey.overview())
    return overview if is_operator() else {name: overview[name] for name in FOR_STRANGERS}


def without_folders(sentences: list[str]) -> list[str]:
    """Leave out, for strangers, where on this machine the files are."""
    folder = f"{current_app.extensions['settings'].data_dir}{os.sep}"
    return sentences if is_operator() else [sentence.replace(folder, "") for sentence in sentences]


def _database_troubles() -> list[str]:
    settings = current_app.extensions["settings"]
    try:
        database.write(_write_something, durable=False)
        room_bytes = shutil.disk_usage(settings.data_dir).free
    except DatabaseUnwritableError as error:
        return [f"{str(error)[0].upper()}{str(error)[1:]}"]
    except (PostroomError, sqlite3.Error) as error:
        return [f"The database cannot be written to: {error}."]
    except OSError:  # it is written to, whatever this is
        return []
    if room_bytes < settings.max_job_bytes:
        return [
            f"The disk is full: {room_bytes} bytes are left for the database, less than a job may take. Make room."
        ]
    return []


def _write_something(connection: sqlite3.Connection) -> None:
    # A value that is there already would not be written at all.
    connection.execute("INSERT OR REPLACE INTO postroom_about VALUES ('probe', ?)", (secrets.token_hex(8),))
