"""What the operator does on the desk: each is a form that leads back to the desk, with a word about it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any

from flask import Blueprint, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from app.kit.database.file import database
from app.kit.desk.words import count_of
from app.kit.engine.wiring import huey
from app.kit.errors import ConflictError, InvalidInputError, NotFoundError
from app.kit.mail import by_hand, sending as emails, suppressions
from app.kit.web.front_door import operator_only
from app.kit.web.json_in import MAX_ID

REASON = "paused on the desk"
AT_ONCE = 500
"""Failed jobs that one press runs again when they are chosen by a text: they are found first, then moved."""

MOST_WORDS = 500
"""Of a refusal: the words wait for the next page in a cookie, which has room for little."""

EMAIL = f"/desk/emails/<int(max={MAX_ID}):email_id>"

bp = Blueprint("desk_actions", __name__)


def action(path: str) -> Callable[[Callable[..., str]], Callable[..., Response]]:
    """Make a function that returns a sentence an action of the desk; what cannot be done is said there too."""

    def decorate(act: Callable[..., str]) -> Callable[..., Response]:
        @bp.post(path)
        @operator_only
        @wraps(act)
        def post(**parts: Any) -> Response:
            try:
                flash(act(**parts), "done")
            except (ConflictError, InvalidInputError) as error:
                flash(str(error)[:MOST_WORDS], "refused")
            return redirect(_way_back(**parts), HTTPStatus.SEE_OTHER)

        return post

    return decorate


def _way_back(email_id: int | None = None, **_parts: Any) -> str:
    """Lead back to where the form was: a mail's page, a place of the desk, the shelf as it was filtered."""
    back = request.form.get("back")
    if back == "email" and email_id is not None:
        return url_for("desk_mail.mail", email_id=email_id)
    if back == "emails":
        return url_for("desk_mail.mails", state=request.form.get("state") or None)
    if back == "shelf":
        task, text = (request.form.get(name) or None for name in ("task", "q"))
        return url_for("desk.desk", task=task, q=text, _anchor="shelf")
    return url_for("desk.desk", _anchor=back if back in ("tasks", "mail") else None)


# The queue


@action("/desk/pause")
def pause() -> str:
    """Let no job start any more: of one task, or none at all."""
    task = _task()
    huey.pause(task, reason=REASON)
    return f"{task or 'The whole queue'} is paused: what runs goes on to its end, nothing else starts."


@action("/desk/resume")
def resume() -> str:
    """Lift a pause."""
    task = _task()
    if not huey.resume(task):
        raise ConflictError(f"{task or 'The queue'} is not paused (any more).")
    return f"{task or 'The whole queue'} goes on."


def _task() -> str:
    name = request.form.get("task", "")
    if name and name not in huey.task_names():
        raise NotFoundError(f"There is no task {name}.")
    return name


# The shelf


@action("/desk/shelf/redrive-one")
def redrive_one() -> str:
    """Run one failed job again."""
    uuid = _failed_job()
    return _redriven(huey.redrive(uuid))


@action("/desk/shelf/delete")
def delete_one() -> str:
    """Take a failed job off the shelf for good."""
    uuid = _failed_job()
    if not huey.delete_failed(uuid):
        raise ConflictError("Somebody else was faster: the job is not on the shelf any more.")
    return f"Job {uuid} is deleted."


@action("/desk/shelf/redrive")
def redrive_all() -> str:
    """Run all failed jobs again, or all that the filter shows."""
    task, text = request.form.get("task") or None, request.form.get("q", "").strip()
    if not text:
        return _redriven(huey.redrive(task=task))
    found = huey.list_jobs("failed", task, AT_ONCE, q=text)
    with database.transaction():
        count = sum(huey.redrive(job["uuid"]) for job in found)
    sentence = _redriven(count)
    if len(found) == AT_ONCE:
        sentence += " There may be more of them: press again."
    return sentence


def _failed_job() -> str:
    uuid = request.form.get("job", "")
    job = huey.job(uuid)
    if job is None:
        raise NotFoundError("There is no such job; jobs that ended are forgotten after a while.")
    if job["state"] != "failed":
        raise ConflictError(f"Job {uuid} is {job['state']}; this can only be done to one that failed.")
    return uuid


def _redriven(count: int) -> str:
    if not count:
        raise ConflictError("No failed job fits, so none runs again.")
    return f"{count_of(count, 'job')} {'runs' if count == 1 else 'run'} again as soon as a worker is free."


# Mail


@action("/desk/lanes/open")
def open_lanes() -> str:
    """Try the mail server now, whatever its pause."""
    emails.open_lanes()
    return "The next mail is tried at once."


@action(f"{EMAIL}/send-again")
def send_again(email_id: int) -> str:
    """Send a mail again that was not sent, or of which nobody knows."""
    emails.send_again(email_id)
    return f"Mail {email_id} is queued again."


@action(f"{EMAIL}/mark-sent")
def mark_sent(email_id: int) -> str:
    """Say of a mail whose outcome is unknown that it arrived."""
    by_hand.mark_sent(email_id)
    return f"Mail {email_id} counts as sent."


@action(f"{EMAIL}/cancel")
def cancel(email_id: int) -> str:
    """Take a mail back that waits."""
    emails.cancel(email_id)
    if by_hand.details(email_id)["state"] == "unknown":
        return f"Mail {email_id} is not tried again, but an earlier try may have sent it: it is unknown."
    return f"Mail {email_id} is cancelled."


@action("/desk/suppressions/lift")
def lift() -> str:
    """Let mail go to an address again."""
    address, list_name = request.form.get("address", ""), request.form.get("list_name", "")
    if not suppressions.lift(address, list_name):
        raise ConflictError(f"Nothing holds mail to {address} back (any more).")
    return f"Mail may go to {address} again."
