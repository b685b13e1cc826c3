"""A job's life as its page tells it: when it was enqueued, each attempt with its outcome, how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.kit.web.json_out import moment

OUTCOMES = {
    "error": ("failed", "bad"),
    "wait": ("asked to run later", "past"),
    "death": ("its process died", "bad"),
    "stopped": ("its process was stopped, so it runs again", "past"),
}
ENDINGS = {"done": ("Done", "good"), "failed": ("Failed", "bad"), "cancelled": ("Cancelled", "bad")}


@dataclass(frozen=True)
class Step:
    """One entry of the timeline.

    `mood` is past, now, later, good or bad; `after_s` counts from the enqueue; `error` is the
    operator's.
    """

    title: str
    says: str
    mood: str
    at: datetime | None
    after_s: float | None = None
    took_s: float | None = None
    error: str | None = None


def timeline(job: dict[str, Any], *, for_operator: bool) -> list[Step]:
    """Return the steps of a job (as `huey.details` describes it), oldest first.

    What is still to come has its entries too, so that the page does not grow when it happens.
    """
    enqueued_at = job["enqueued_at"]

    def step(
        title: str, says: str, mood: str, at: float | None, until: float | None = None, **more: Any
    ) -> Step:
        took_s = None if at is None or until is None else max(0.0, until - at)
        after_s = None if at is None else max(0.0, at - enqueued_at)
        return Step(title, says, mood, moment(at), after_s, took_s, **more)

    steps = [step("Enqueued", "", "past", enqueued_at)]
    for tried in job["attempts"]:
        says, mood = OUTCOMES[tried["outcome"]]
        trouble = {"error": tried["error"]} if for_operator else {}
        began_at = tried["started_at"] or tried["ended_at"]
        title = f"Attempt {tried['number']}"
        steps.append(step(title, says, mood, began_at, tried["ended_at"], **trouble))

    state, started_at = job["state"], job["started_at"]
    attempt, next_attempt = f"Attempt {job['attempt']}", f"Attempt {job['attempt'] + 1}"
    if state == "running":
        steps.append(step(attempt, "a worker is on it", "now", started_at))
    elif state == "scheduled":
        steps.append(step(next_attempt, "waits for its time", "now", job["run_at"]))
    elif state == "ready":
        steps.append(step(next_attempt, "waits for a worker", "now", None))
    elif state == "done" and started_at is not None:
        steps.append(step(attempt, "succeeded", "past", started_at, job["finished_at"]))
    title, mood = ENDINGS.get(state, ("End", "later"))
    steps.append(step(title, "", mood, job["finished_at"]))
    return steps
