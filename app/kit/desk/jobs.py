"""A job as a page that moves live and as JSON; its buttons for the operator."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from uuid import UUID

import flask
from flask import Blueprint, current_app, redirect, render_template, request, url_for
from flask.blueprints import BlueprintSetupState
from werkzeug.wrappers import Response

from app.kit.desk.status import what_holds_jobs_up, without_folders
from app.kit.desk.timeline import timeline
from app.kit.desk.words import duration
from app.kit.engine.wiring import huey
from app.kit.errors import ConflictError, NotFoundError
from app.kit.plain_text import printable
from app.kit.web import front_door
from app.kit.web.json_in import number_in_query
from app.kit.web.json_out import moment
from app.kit.web.waiting import LONGEST_WAIT_S, Seats

SHOWN = (
    "id", "task", "state", "attempt", "deaths", "enqueued_at", "started_at", "finished_at",
    "progress", "result", "error",
)  # fmt: skip
"""What the holder of a job's id may see of it, in this order; the error is the operator's."""

UNGUESSABLE = (4, 7)
"""Versions of UUID that are made of chance; ours are of version 7."""

ENDED = ("done", "failed", "cancelled")
LIVE_PARTS = {"page": "kit/job_live.html", "summary": "kit/job_summary.html"}

bp = Blueprint("jobs", __name__)
bp.add_app_template_filter(duration)


@bp.record_once
def set_out_seats(setup: BlueprintSetupState) -> None:
    """Let at most half of the web threads wait, so that the other half serves."""
    settings = setup.app.extensions["settings"]
    setup.app.extensions["seats_for_waiting"] = Seats(settings.web_threads // 2)


@bp.get("/jobs/<path:uuid>")
def page(uuid: str) -> str:
    """Show one job; a script keeps the page up to date, without it the page loads itself again."""
    return render_template("kit/job.html", **facts(uuid))


@bp.get("/jobs/<path:uuid>/live")
def live(uuid: str) -> flask.Response:
    """Answer with the live part of the page once it differs from what was ?seen=, or 204 after a while."""
    view, seen = request.args.get("view", ""), request.args.get("seen")
    view = view if view in LIVE_PARTS else "page"
    return answer_with_news(
        uuid,
        lambda: _job(uuid)["version"] != seen,
        lambda: render_template(LIVE_PARTS[view], **facts(uuid, view)),
    )


def answer_with_news(uuid: str, is_news: Callable[[], bool], render: Callable[[], str]) -> flask.Response:
    """Answer live.js with HTML as soon as there is news of a job, or with 204 after a while."""
    retry_after_s = None
    if not is_news():
        deadline = time.monotonic() + LONGEST_WAIT_S
        retry_after_s = _seats().wait(lambda: huey.wait_until(uuid, is_news, deadline))
    answer = flask.Response(render()) if is_news() else flask.Response(status=HTTPStatus.NO_CONTENT)
    answer.headers["Cache-Control"] = "no-store"
    if retry_after_s is not None:
        answer.headers["Retry-After"] = str(retry_after_s)
    return answer


@bp.post("/jobs/<path:uuid>/retry")
@front_door.operator_only
def retry(uuid: str) -> Response:
    """Run a failed job again."""
    if not huey.redrive(_job(uuid)["id"]):
        raise ConflictError(f"This job is {_job(uuid)['state']}: only a failed one can be run again.")
    return redirect(url_for("jobs.page", uuid=uuid), HTTPStatus.SEE_OTHER)


@bp.post("/jobs/<path:uuid>/cancel")
@front_door.operator_only
def cancel(uuid: str) -> Response:
    """Cancel a job that waits."""
    if not huey.cancel(_job(uuid)["id"]):
        raise ConflictError(f"This job is {_job(uuid)['state']}: only one that waits can be cancelled.")
    return redirect(url_for("jobs.page", uuid=uuid), HTTPStatus.SEE_OTHER)


@bp.get("/api/jobs/<path:uuid>")
def job_as_json(uuid: str) -> flask.Response:
    """Answer with the job's state; with ?wait=SECONDS once it has ended or the time is up."""
    seconds = number_in_query("wait", 0.0, LONGEST_WAIT_S, float)
    retry_after_s = None
    if seconds and not has_ended(uuid):
        retry_after_s = _seats().wait(lambda: huey.wait_for_end(uuid, seconds))
    job = _job(uuid)
    shown = {key: moment(job[key]) if key.endswith("_at") else job[key] for key in SHOWN}
    if not front_door.is_operator():
        shown["error"] = None
    answer = flask.jsonify(shown)
    if retry_after_s is not None:
        answer.headers["Retry-After"] = str(retry_after_s)
    return answer


def facts(uuid: str, view: str = "page") -> dict[str, Any]:
    """Gather what the templates of a job show; nothing of it that is not for the eyes of who asks.

    Raises: NotFoundError.
    """
    _check_id(uuid)
    job, for_operator = huey.details(uuid), front_door.is_operator()
    if job is None:
        raise _gone()
    shown = {key: moment(job[key]) if key.endswith("_at") else job[key] for key in SHOWN}
    return {
        "job": shown | {"error": job["error"] if for_operator else None},
        "has_ended": job["state"] in ENDED,
        "run_at": moment(job["run_at"]),
        "steps": timeline(job, for_operator=for_operator),
        "result": _as_text(job["result"]),
        "held_up": [] if job["state"] in ENDED else without_folders(what_holds_jobs_up()),
        "call": _call_of(job) if for_operator else None,
        "live_url": None
        if job["state"] in ENDED
        else url_for("jobs.live", uuid=uuid, view=view, seen=job["version"]),
    }


def has_ended(uuid: str) -> bool:
    """Say whether a job is done, failed or cancelled.

    Raises: NotFoundError.
    """
    return _job(uuid)["state"] in ENDED


def _job(uuid: str) -> dict[str, Any]:
    _check_id(uuid)
    job = huey.job(uuid)
    if job is None:
        raise _gone()
    return job


def _check_id(uuid: str) -> None:
    """Know no job, for strangers, by an id that was chosen, such as order-42: whose it is, only chance can tell.

    Raises: NotFoundError.
    """
    try:
        is_chosen = UUID(uuid).version not in UNGUESSABLE
    except ValueError:
        is_chosen = True
    if is_chosen and not front_door.is_operator():
        raise _gone()


def _gone() -> NotFoundError:
    return NotFoundError(
        "There is no such job: jobs that ended are forgotten after a while, and one whose id was chosen is shown "
        "to the operator alone."
    )


def _seats() -> Seats:
    seats: Seats = current_app.extensions["seats_for_waiting"]
    return seats


def _call_of(job: dict[str, Any]) -> str:
    """Write the call that made the job, as Python does."""
    if job["args"] is None:
        return printable(f"It cannot be read: {job['undecodable']}")
    values = [repr(value) for value in job["args"]]
    values += [f"{name}={value!r}" for name, value in job["kwargs"].items()]
    return printable(f"{job['task'].rpartition('.')[2]}({', '.join(values)})")


def _as_text(result: Any) -> str:
    if result is None or isinstance(result, str):
        return printable(result or "")
    return printable(json.dumps(json.loads(current_app.json.dumps(result)), indent=2, ensure_ascii=False))
