"""A job as a page and as JSON, with a wait for its end that cannot use up the web threads."""

from __future__ import annotations

import json
from threading import BoundedSemaphore
from typing import Any

import flask
from flask import Blueprint, current_app, render_template
from flask.blueprints import BlueprintSetupState

import tasks
from app.errors import NotFoundError
from app.pages.json_in import number_in_query
from app.pages.json_out import moment, printable

LONGEST_WAIT_S = 25.0
"""Shorter than the 30 s after which proxies commonly give up."""

SHOWN = (
    "id", "task", "state", "attempt", "deaths", "enqueued_at", "started_at", "finished_at",
    "progress", "result", "error",
)  # fmt: skip
"""What the holder of a job's id may see of it, in this order."""

ENDED = ("done", "failed", "cancelled")

bp = Blueprint("jobs", __name__)


@bp.record_once
def set_out_seats(setup: BlueprintSetupState) -> None:
    """Let at most half of the web threads wait, so that the other half serves."""
    settings = setup.app.extensions["settings"]
    setup.app.extensions["seats_for_waiting"] = BoundedSemaphore(settings.web_threads // 2)


@bp.get("/jobs/<uuid>")
def page(uuid: str) -> str:
    """Show one job; the page loads itself again until the job has ended."""
    job = _job(uuid)
    return render_template(
        "job.html", job=job, has_ended=job["state"] in ENDED, result=_as_text(job["result"])
    )


@bp.get("/api/jobs/<uuid>")
def job_as_json(uuid: str) -> flask.Response:
    """Answer with the job's state; with ?wait=SECONDS once it has ended or the time is up."""
    seconds = number_in_query("wait", 0.0, LONGEST_WAIT_S, float)
    job = _job(uuid)
    if not seconds or job["state"] in ENDED:
        return flask.jsonify(job)
    seats = current_app.extensions["seats_for_waiting"]
    if not seats.acquire(blocking=False):
        response = flask.jsonify(job)
        response.headers["Retry-After"] = "1"
        return response
    try:
        tasks.huey.wait_for_end(uuid, seconds)
    finally:
        seats.release()
    return flask.jsonify(_job(uuid))


def _job(uuid: str) -> dict[str, Any]:
    job = tasks.huey.job(uuid)
    if job is None:
        raise NotFoundError("There is no such job; jobs that ended are forgotten after a while.")
    return {key: moment(job[key]) if key.endswith("_at") else job[key] for key in SHOWN}


def _as_text(result: Any) -> str:
    if result is None or isinstance(result, str):
        return printable(result or "")
    return printable(json.dumps(json.loads(current_app.json.dumps(result)), indent=2, ensure_ascii=False))
