"""The site under test with points at which it kills itself, a clock that can be set, and a disk that can fill.

All of it is hooked in from here, by exchanging functions of the engine; the product knows nothing of it.
DIE_AT names a point from the start on, `POST /api/test/die-at` names one later; at the one that FREEZE_AT names
a process stops, as by Ctrl-Z, until it is told to go on. CLOCK names a file with the
seconds by which the clock is wrong. TICKS=1 adds a task for every minute. UPKEEP_S makes upkeep come sooner.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from flask import request
from huey import crontab
from huey.api import chord, group
from sqlite_utils import Database as Tables

import tasks
from app.kit.database.file import database
from app.kit.engine.consumer import clock as clock_module, run as running
from app.kit.engine.jobs import cron, enqueue as arrivals, job as jobs, upkeep
from tests.kit.site_under_test import app, note

__all__ = ["app"]

armed = {os.environ.get("DIE_AT", "")} - {""}
freezing = {os.environ.get("FREEZE_AT", "")} - {""}


def at(point: str) -> None:
    """Kill every process of the site here, as a crash of the machine would, when the point is armed."""
    if point in armed:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    if point in freezing:
        freezing.discard(point)
        note(point.replace(" ", "-"), "freeze")
        # To this thread: one to the process may stop it by another thread, when this one has gone on.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def hook(
    owner: Any, name: str, before: str = "", after: str = "", when: Callable[[Any], object] = lambda _: True
) -> None:
    """Put points before and after a function; `when` looks at what it returned."""
    original = getattr(owner, name)

    @wraps(original)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        at(before)
        returned = original(*args, **kwargs)
        if when(returned):
            at(after)
        return returned

    setattr(owner, name, hooked)


hook(tasks.huey, "_insert", after="after the enqueue's commit")
hook(tasks.huey, "run", before="after the claim", after="after the body")
hook(tasks.huey, "finish", after="after the finish's commit")
hook(running.jobs, "finish", after="before the finish commits")
hook(arrivals, "_insert_fresh", after="inside a group's enqueue")
hook(jobs, "add_chord_part", after="at a chord's last member", when=lambda values: values is not None)
hook(cron, "add_cron_run", after="between cron's row and its job")
hook(upkeep, "prune", after="during upkeep", when=lambda gone: gone > 0)

if "UPKEEP_S" in os.environ:
    clock_module.UPKEEP_S = float(os.environ["UPKEEP_S"])


def now() -> float:
    """Return the time of day, wrong by what the test likes."""
    return time.time() + float(Path(os.environ["CLOCK"]).read_text())


if "CLOCK" in os.environ:
    tasks.huey.now = now

if "MIGRATE" in os.environ or "migration" in os.environ.get("DIE_AT", ""):

    @tasks.huey.migrations()
    def add_what_the_next_version_needs(tables: Tables) -> None:
        """Change the jobs' table and make another, dying in between if the test says so."""
        tables.execute("ALTER TABLE postroom_jobs ADD COLUMN colour TEXT")
        at("during a migration")
        tables.execute("CREATE TABLE colours (name TEXT)")


@tasks.task()
def step(seconds: float, marker: str) -> None:
    """Note the start, beat while it runs, note the end."""
    note(marker, "start")
    at("inside the body")
    ends_at = time.monotonic() + seconds
    while (left := ends_at - time.monotonic()) > 0:
        time.sleep(min(left, 0.02))
        note(marker, "beat")
    note(marker, "end")


brief = tasks.task(timeout=1, name="brief")(step.func)
"""The same; it is overdue after a second."""


@tasks.task()
def quick(marker: str) -> int:
    """Note that it ran."""
    note(marker, "start")
    note(marker, "end")
    return 1


@tasks.task()
def gather(values: list[int]) -> int:
    """Note that a chord fired."""
    note("chord", f"gathered-{sum(values)}")
    return sum(values)


def tick() -> None:
    """Note that cron fired."""
    note(str(int(tasks.huey.now() // 60)), "tick")


if "TICKS" in os.environ:
    tasks.periodic_task(crontab())(tick)


@app.post("/api/test/die-at")
def die_at() -> dict[str, str]:
    """Arm a point, in this process."""
    armed.add(request.get_json()["point"])
    return {}


@app.post("/api/test/steps")
def start_steps() -> dict[str, int]:
    """Enqueue jobs, known by the markers they note, in one commit."""
    body = request.get_json()
    eta = dt.datetime.fromtimestamp(tasks.huey.now() + body["delay_s"], dt.UTC) if "delay_s" in body else None
    task = brief if body.get("brief") else step
    with tasks.huey.bulk():
        for marker in body["markers"]:
            tasks.huey.enqueue(task.s(body["seconds"], marker, id=marker, eta=eta))
    return {"pid": os.getpid()}


@app.post("/api/test/group")
def start_group() -> dict[str, str]:
    """Enqueue a group, or a chord that gathers."""
    body = request.get_json()
    members = [quick.s(f"member-{number}") for number in range(body["size"])]
    tasks.huey.enqueue(chord(members, gather.s()) if body["chord"] else group(members))
    return {}


@app.post("/api/test/pragma")
def set_pragma() -> dict[str, list[int]]:
    """Run a PRAGMA on the connection that writes: a small disk, say, or one that cannot be written."""
    pragma = request.get_json()["pragma"]
    writer = database.writer
    writer.take_turn()
    try:
        return {"values": [row[0] for row in writer.connection.execute(f"PRAGMA {pragma}").fetchall()]}
    finally:
        writer.pass_turn()
