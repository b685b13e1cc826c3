"""What `@task` makes of a function: a body that may be async, and what its errors mean for retries."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from huey.api import TaskWrapper
from huey.exceptions import RETRYING_EXCEPTIONS, CancelExecution

from app.kit.engine.api import results
from app.kit.engine.api.options import check_parameters
from app.kit.engine.api.signatures import make_id
from app.kit.engine.error_words import message_of

DEFAULT_TIMEOUT_S = 15 * 60
DEFAULT_MAX_DELAY_S = 3600.0


class BodyExitError(Exception):
    """A body tried to end its process or thread (sys.exit, say); its job fails, the worker goes on."""

    def __init__(self, raised: BaseException) -> None:
        kind = type(raised).__name__
        super().__init__(
            f"the body raised {kind}({message_of(raised)}); a task must return, or raise an error"
        )


class DurableTask(TaskWrapper):
    """Huey's task wrapper; its body may be `async def`, and knows that it runs in a job."""

    def create_task(
        self, func: Callable[..., Any], context: bool = False, name: str | None = None, **settings: Any
    ) -> Any:
        """Make the Task class whose execute() runs the body."""
        check_parameters(func, context, is_periodic="validate_datetime" in settings)

        @wraps(func)
        def in_a_loop(*args: Any, **kwargs: Any) -> Any:
            return asyncio.run(func(*args, **kwargs))

        body = in_a_loop if inspect.iscoroutinefunction(func) else func
        task_class = super().create_task(body, context, name, **settings)
        run_body = task_class.execute

        def execute(task: Any) -> Any:
            with self.huey.running_body(task):
                return self.huey.call_body(task, run_body)

        task_class.execute = execute
        task_class.create_id = make_id
        return task_class

    def map(self, it: Any) -> Any:
        """Enqueue one job per item, all in one transaction."""
        with self.huey.bulk():
            return results.named(super().map(it))


def may_retry(task: Any, error: Exception) -> bool:
    """Say whether a body that raised `error` may be tried again, by its task's retry_on and give_up_on."""
    kind = type(error)  # and not isinstance(), which asks the error itself
    if issubclass(kind, (*RETRYING_EXCEPTIONS, CancelExecution)):
        return True  # the body says itself what is to happen
    if issubclass(kind, getattr(task, "give_up_on", ())):
        return False
    return issubclass(kind, getattr(task, "retry_on", Exception))


def let_go(raised: BaseException) -> None:
    """Drop what the frames of a body that failed hold, which its error would keep for as long as it is kept.

    A connection of the body's own with a transaction open, for one, would stop all writing.
    """
    seen: list[BaseException] = []
    found: list[BaseException | None] = [raised]
    while found:
        error = found.pop()
        if error is not None and not any(error is one for one in seen):
            seen.append(error)
            with suppress(Exception):  # an error may have attributes that misbehave
                traceback.clear_frames(error.__traceback__)
                found += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]
