"""`python3 main.py jobs`: the queue from the command line."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
from typing import Any

from app.kit.engine.api.durable import DurableHuey
from app.kit.engine.jobs.schema import STATES
from app.kit.errors import InvalidInputError, NotFoundError
from app.kit.plain_text import for_terminal, one_line

MOST_LISTED = 10_000
TIMES = ("enqueued_at", "run_at", "ready_at", "started_at", "finished_at", "ended_at")


def run(huey: DurableHuey, arguments: list[str]) -> int:
    """Carry out one command; return the exit status.

    Raises: NotFoundError, InvalidInputError.
    """
    options = _parser().parse_args(arguments)
    if options.command == "list":
        _list(huey, options)
    elif options.command == "show":
        described = _readable(_details(huey, options.uuid))
        print(
            for_terminal(json.dumps(described, indent=2, default=_as_text, ensure_ascii=False), _encoding())
        )
    elif options.command == "retry":
        _retry(huey, options)
    elif options.command == "resume":
        _resume(huey, options.task)
    else:
        _cancel(huey, options.uuid)
    return 0


def _encoding() -> str:
    return sys.stdout.encoding or "utf-8"


def _as_text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"(it cannot be shown: {type(error).__name__})"


def _text(argument: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in argument):
        raise argparse.ArgumentTypeError(f"{argument!r} is no text")
    return argument


def _limit(argument: str) -> int:
    if not argument.isdecimal() or not 1 <= int(argument) <= MOST_LISTED:
        raise argparse.ArgumentTypeError(f"found {argument!r}, expected a number from 1 to {MOST_LISTED}")
    return int(argument)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 main.py jobs", description="Look at jobs, run them again.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the newest jobs of a state, the failed ones if none is named")
    listing.add_argument("state", nargs="?", choices=STATES, default="failed")
    listing.add_argument(
        "--task", type=_text, help="only this task's, for example tasks.emails.deliver_email"
    )
    listing.add_argument("--limit", type=_limit, default=50)
    commands.add_parser("show", help="one job: arguments, result, each attempt").add_argument(
        "uuid", type=_text
    )
    retry = commands.add_parser("retry", help="run failed jobs again")
    which = retry.add_mutually_exclusive_group(required=True)
    which.add_argument("uuid", nargs="?", type=_text)
    which.add_argument("--task", type=_text, help="all failed jobs of this task")
    which.add_argument("--all", action="store_true", help="all failed jobs")
    commands.add_parser("cancel", help="cancel a job that waits").add_argument("uuid", type=_text)
    resume = commands.add_parser("resume", help="lift the pause of the whole queue, as after a restore")
    resume.add_argument("--task", type=_text, default="", help="the pause of this task instead")
    return parser


def _list(huey: DurableHuey, options: argparse.Namespace) -> None:
    counts = huey.overview()["counts"]
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
    for job in map(_readable, huey.list_jobs(options.state, options.task, options.limit)):
        moment = job["finished_at"] or job["started_at"] or job["enqueued_at"]
        line = f"{moment}  {job['uuid']}  {job['task']}  {job['error'] or ''}".rstrip()
        print(one_line(line, _encoding()))


def _details(huey: DurableHuey, uuid: str) -> dict[str, Any]:
    found = huey.details(uuid)
    if found is None:
        raise NotFoundError(f"There is no job {uuid}. `python3 main.py jobs list` shows which there are.")
    return found


def _retry(huey: DurableHuey, options: argparse.Namespace) -> None:
    if options.uuid and _details(huey, options.uuid)["state"] != "failed":
        state = _details(huey, options.uuid)["state"]
        raise InvalidInputError(f"Job {options.uuid} is {state}; only failed jobs can be run again.")
    count = huey.redrive(options.uuid, options.task)
    print(f"{count} {'job runs' if count == 1 else 'jobs run'} again as soon as a worker is free.")


def _cancel(huey: DurableHuey, uuid: str) -> None:
    if not huey.cancel(uuid):
        state = _details(huey, uuid)["state"]
        raise InvalidInputError(f"Job {uuid} is {state}; only ready and scheduled jobs can be cancelled.")
    print(f"Job {uuid} is cancelled.")


def _resume(huey: DurableHuey, task: str) -> None:
    reasons = {pause["task"]: pause["reason"] for pause in huey.pauses()}
    if not huey.resume(task):
        raise InvalidInputError(f"{task or 'The whole queue'} is not paused.")
    said = f"{task or 'The whole queue'} goes on; it was paused: {reasons.get(task, 'for a while')}."
    print(for_terminal(said, _encoding()))


def _readable(described: dict[str, Any]) -> dict[str, Any]:
    """Replace unix seconds by moments people can read."""
    shown = dict(described)
    for name in TIMES:
        if isinstance(shown.get(name), float):
            shown[name] = dt.datetime.fromtimestamp(shown[name], dt.UTC).isoformat(" ", "seconds")
    if "attempts" in shown:
        shown["attempts"] = [_readable(attempt) for attempt in shown["attempts"]]
    return shown
