"""The desk: what the queue does now and did in the last hour, who works, what failed, how mail fares."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, current_app, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from app.kit.desk import charts as desk_charts, mail as desk_mail, words as desk_words
from app.kit.desk.status import what_holds_jobs_up
from app.kit.doctor import doctor
from app.kit.doctor.disk import Check, check_database, check_space, check_wal_size
from app.kit.engine.wiring import huey
from app.kit.host.clock import clock
from app.kit.web.front_door import operator_only
from app.kit.web.json_in import MAX_ID, number_in_query
from app.kit.web.json_out import with_moments

MINUTES = 60
SHELF_LENGTH = 10

CHECKS_KEPT_S = 600.0
"""How long the desk believes what was found about this host: looking writes small files."""

MAIL_PROBE_S = 5.0
"""How long the full look may hold a web thread while the mail server says nothing."""

NO_STATS: dict[str, Any] = {
    **dict.fromkeys(("enqueued", "done", "failed", "cancelled", "ready", "scheduled", "running"), 0),
    "run_ms_p50": None,
    "run_ms_max": None,
    "recent_run_ms": [],
}

bp = Blueprint("desk", __name__)
for template_filter in (
    desk_words.breakable,
    desk_words.duration,
    desk_words.duration_ms,
    desk_words.grouped,
    desk_words.near,
):
    bp.add_app_template_filter(template_filter)
_looking = threading.Lock()


# Pages


@bp.get("/desk")
@operator_only
def desk() -> str:
    """Show the whole desk."""
    return render_template("kit/desk.html", **live(), **shelf(), **desk_mail.lists())


@bp.get("/desk/live")
@operator_only
def live_parts() -> Response:
    """Answer with the parts of the desk that change by themselves, for desk.js."""
    response = current_app.make_response(render_template("kit/desk_live.html", **live()))
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.get("/desk/doctor")
@operator_only
def full_look() -> str | Response:
    """Look at everything that can be known of this host, the database and the mail server; one at a time."""
    if not _looking.acquire(blocking=False):
        flash("Somebody looks at this host already: try again in some seconds.", "refused")
        return redirect(url_for("desk.desk", _anchor="host"), 303)
    try:
        settings = current_app.extensions["settings"]
        found = list(doctor.look(settings, os.environ, at_once=True))
        found.append(check_database(settings))
        found.append(doctor.check_mail(settings, os.environ, MAIL_PROBE_S))
    finally:
        _looking.release()
    return render_template("kit/desk_doctor.html", checks=found)


# What is shown


def live() -> dict[str, Any]:
    """Return what changes by itself."""
    now = huey.now()
    overview = with_moments(huey.overview())
    stats, pauses = huey.stats(MINUTES), {pause["task"]: pause for pause in overview["pauses"]}
    minutes = [_minute(one) for one in stats["minutes"]]
    return {
        "now": datetime.fromtimestamp(now, UTC),
        "counts": overview["counts"],
        "oldest_ready_age_s": overview["oldest_ready_age_s"],
        "flow": desk_words.flow(overview["counts"]["ready"], stats, "" in pauses),
        "queue_pause": pauses.get(""),
        "minutes": minutes,
        "charts": [desk_charts.throughput(minutes), desk_charts.latency(minutes)],
        "clock": desk_charts.clock,
        "tasks": _tasks(stats["tasks"], pauses),
        "instances": overview["instances"],
        "workers": overview["workers"],
        "cron": with_moments(huey.cron()),
        "checks": checks(),
        "health": [*what_holds_jobs_up(), *([doubt] if (doubt := clock.doubt()) else [])],
        "count_up_to": desk_mail.COUNT_UP_TO,
        **desk_mail.live(),
    }


def shelf() -> dict[str, Any]:
    """Return the failed jobs that fit the filter, newest first."""
    task, text = request.args.get("task") or None, request.args.get("q", "").strip()
    before = number_in_query("before", 1, MAX_ID, int)
    page = huey.page_of_jobs("failed", task, SHELF_LENGTH, before, text or None)
    found = with_moments(page["jobs"])
    return {
        "shelf": found,
        "next_before_id": page["next_before_id"],
        "chosen_task": task,
        "chosen_text": text,
        "task_names": sorted(huey.task_names() | ({task} if task else set())),
    }


def checks() -> list[Check]:
    """Return what is known of this host at once: the disk and the log as they are, the rest as it lately was."""
    settings = current_app.extensions["settings"]
    kept: tuple[float, list[Check]] | None = current_app.extensions.get("desk_checks")
    if kept is None or time.monotonic() - kept[0] > CHECKS_KEPT_S:
        kept = time.monotonic(), list(doctor.look(settings, os.environ, at_once=True))
        current_app.extensions["desk_checks"] = kept
    looked = (check_space(settings.data_dir), check_wal_size(settings.database_path))
    fresh = {check.name: check for check in looked}
    return [fresh.get(check.name, check) for check in kept[1]]


def _minute(one: dict[str, Any]) -> dict[str, Any]:
    """Say None, not zero, for the times of a minute in which no job ended."""
    ended = one["done"] + one["failed"]
    return one | {kind: one[kind] if ended else None for kind in ("wait_ms", "run_ms")}


def _tasks(stats: list[dict[str, Any]], pauses: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Describe every task that ran, waits, is paused or could run, by name: rows that stay in their places."""
    seen = {one["task"]: one for one in stats}
    return [
        {"task": name, **NO_STATS, **seen.get(name, {}), "pause": pauses.get(name)}
        | {"spark": desk_charts.sparkline(seen.get(name, NO_STATS)["recent_run_ms"])}
        for name in sorted(huey.task_names())
    ]
