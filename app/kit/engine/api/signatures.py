"""One signature used several times: each use is a job of its own, as in Huey, unless the caller named its id."""

from __future__ import annotations

import copy
from typing import Any

from huey.api import chord, group

from app.kit.engine.api.ids import new_id
from app.kit.errors import ConflictError, InvalidInputError

FLOWS = (group, chord)


def make_id(task: Any) -> str:
    """Make the id of a task whose caller names none, and remember that it is none of his."""
    task.has_own_id = False
    return new_id()


def unshared(flow: Any, running_job: str | None = None) -> Any:
    """Return a task, group or chord that shares no job with what was enqueued before, or twice within itself.

    Raises: InvalidInputError for a pipeline that leads back into itself; ConflictError for the job that runs here.
    """
    if getattr(flow, "is_fresh", False):  # it comes from a group or chord that was made so
        flow.is_fresh = False
    else:
        flow = _unshared(flow, set(), (), in_flow=False)
    if running_job is not None and flow.id == running_job:
        raise ConflictError(
            f"job {flow.id} enqueues itself under its own id while it runs, which changes nothing: leave the id "
            "out, or raise RetryTask(delay=...) to run again"
        )
    return flow


def give_back(task: Any) -> None:
    """Let the steps that follow a task be enqueued once more as they are: it itself never will be."""
    for step in (task.on_complete, task.on_error):
        if step is not None:
            step.is_used = False
            give_back(step)


def _unshared(flow: Any, seen: set[str], path: tuple[Any, ...], in_flow: bool) -> Any:
    if isinstance(flow, FLOWS):
        made = copy.copy(flow)
        made.tasks = [_unshared(task, seen, (), in_flow=True) for task in flow.tasks]
        if isinstance(flow, chord):
            made.callback = _unshared(flow.callback, seen, (), in_flow=True)
        return made
    if any(flow is one for one in path):
        raise InvalidInputError(
            f"{flow.name} stands twice in one pipeline as the same signature, which would go round for ever: "
            f"make one with .s() for each step.",
            "then",
        )
    steps = {name: step for name in ("on_complete", "on_error") if (step := getattr(flow, name)) is not None}
    own = {name: _unshared(step, seen, (*path, flow), in_flow) for name, step in steps.items()}
    is_shared = not getattr(flow, "has_own_id", True) and (flow.id in seen or getattr(flow, "is_used", False))
    made = flow
    # A chord writes into its members: who uses the signature once more must not find that there.
    if is_shared or in_flow or any(own[name] is not steps[name] for name in steps):
        made = copy.copy(flow)
        vars(made).update(own)
    if is_shared:
        made.id = new_id()
        made.revoke_id = f"r:{made.id}"
    flow.is_used = made.is_used = True
    if in_flow:
        made.is_fresh = True
    seen.add(made.id)
    return made
