"""What `@task` and its relatives may be told, and a call of a task: each option is checked where it is given."""

from __future__ import annotations

import datetime as dt
import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any

from huey.api import Task
from huey.exceptions import ConfigurationError

from app.kit.errors import InvalidInputError

Check = tuple[Callable[[Any], bool], str]
"""Whether a value will do, and in words which will."""

MOST_RETRIES = 1_000_000
TAKEN_BY_CALLS = frozenset(
    {"id", "eta", "delay", "expires", "timeout", "priority", "retries", "retry_delay", "retry_backoff"}
)
"""Names that a call of a task keeps for the queue, so that a body never sees them."""


MOST_S = 100 * 366 * 24 * 3600
"""A hundred years. A moment much further off is none that Python knows."""
MOST_PRIORITY = 2**53
MAX_ID_CHARS = 1000


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_priority(value: Any) -> bool:
    return _is_number(value) and abs(value) <= MOST_PRIORITY


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_RETRIES


def _is_some(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_positive(value: Any) -> bool:
    return _is_number(value) and 0 < value <= MOST_S


def _is_span(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= MOST_S


def _are_exceptions(value: Any) -> bool:
    kinds = value if isinstance(value, tuple) else (value,)
    return all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value != "" and value.isprintable()


def _is_expiry(value: Any) -> bool:
    return isinstance(value, dt.datetime | dt.timedelta) or _is_positive(value)


def _is_callable(value: Any) -> bool:
    return callable(value)


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


YES_OR_NO: Check = (lambda value: isinstance(value, bool), "True or False")
SECONDS: Check = (_is_span, "a number of seconds, from 0 up to a hundred years")
EXCEPTIONS: Check = (_are_exceptions, "an exception class, or a tuple of such")
FUNCTION: Check = (_or_none(_is_callable), "a function")

OF_CALLS: dict[str, Check] = {
    "retries": (_is_count, f"a whole number from 0 to {MOST_RETRIES}"),
    "retry_delay": SECONDS,
    "retry_backoff": (_is_span, "a number from 0 up"),
    "priority": (_or_none(_is_priority), "a number of at most 2**53, or None"),
    "expires": (_or_none(_is_expiry), "a number of seconds above 0, a timedelta, a datetime, or None"),
    "timeout": (_or_none(_is_positive), "a number of seconds above 0, or None for no limit"),
}
OF_TASKS: dict[str, Check] = OF_CALLS | {
    "name": (_or_none(_is_name), "printable text"),
    "context": YES_OR_NO,
    "process": YES_OR_NO,
    "jitter": YES_OR_NO,
    "max_delay": (_is_positive, "a number of seconds above 0"),
    "max_waits": (
        lambda value: value == math.inf or _is_some(value),
        "a whole number from 1 up, or math.inf",
    ),
    "retry_on": EXCEPTIONS,
    "give_up_on": EXCEPTIONS,
    "limit": (_or_none(_is_some), "a whole number from 1 up, or None for no limit"),
    "if_not_done": FUNCTION,
    "if_redriven": FUNCTION,
}
OF_PERIODIC_TASKS: dict[str, Check] = OF_TASKS | {
    "validate_datetime": (
        _is_callable,
        "a function of a datetime, such as crontab() returns",
    ),
    "pile_up": YES_OR_NO,
}
OF_BATCH_TASKS: dict[str, Check] = OF_TASKS | {
    "every_s": SECONDS,
    "max_jobs": (_is_some, "a whole number from 1 up"),
    "context": (lambda value: value is False, "False: a batch is many jobs, and has no task of its own"),
    "process": (
        lambda value: value is False,
        "False: a batch runs on a thread. Have its body enqueue a task with process=True for what takes much "
        "computing",
    ),
}


def check(decorator: str, options: Mapping[str, Any], known: Mapping[str, Check]) -> None:
    """Check the options of a decorator.

    Raises: ConfigurationError that names the option and what it may be.
    """
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"Did you mean {near[0]}?" if near else f"There are {', '.join(sorted(known))}."
            raise ConfigurationError(
                f"{decorator}() found {name}={_short(value)}, which is no option. {meant}"
            )
        will_do, expected = known[name]
        if not will_do(value):
            raise ConfigurationError(f"{decorator}() found {name}={_short(value)}, expected {expected}.")


_told = attrgetter(*OF_CALLS)


@lru_cache(typed=True)  # most calls tell what others told before them
def _are_fine(*values: Any) -> bool:
    return all(will_do(value) for value, (will_do, _) in zip(values, OF_CALLS.values(), strict=True))


def check_call(task: Task) -> None:
    """Check what a call of a task tells the queue, its id among it.

    Raises: InvalidInputError that names the option and what it may be.
    """
    if not isinstance(task.args, tuple | list):
        raise InvalidInputError(
            f"a call of {task.name} found the arguments {_short(task.args)}, expected a tuple, as in "
            f"{task.name}.schedule((1,), delay=60)",
            "args",
        )
    told = _told(task)
    try:
        are_fine = _are_fine(*told)
    except TypeError:  # one that has no hash, such as a list
        are_fine = False
    for value, (name, (will_do, expected)) in () if are_fine else zip(told, OF_CALLS.items(), strict=True):
        if not will_do(value):
            raise InvalidInputError(
                f"a call of {task.name} found {name}={_short(value)}, expected {expected}", name
            )
    if isinstance(task.id, str) and not (task.id.isprintable() and len(task.id) <= MAX_ID_CHARS):
        raise InvalidInputError(
            f"a call of {task.name} found id={_short(task.id)}, expected printable text of at most {MAX_ID_CHARS} "
            "characters",
            "id",
        )
    for following in (task.on_complete, task.on_error, task.chord_config and task.chord_config.callback):
        if following is not None:
            check_call(following)


def check_parameters(func: Callable[..., Any], has_context: bool, is_periodic: bool) -> None:
    """Check that a body can be called, and has no parameter whose argument the queue would take for itself.

    Raises: ConfigurationError.
    """
    try:
        parameters = inspect.signature(func).parameters
    except ValueError:  # some functions of C do not tell
        return
    by_name = {name for name, one in parameters.items() if one.kind is not one.POSITIONAL_ONLY}
    taken = sorted(TAKEN_BY_CALLS & by_name)
    if taken:
        raise ConfigurationError(
            f"{func.__qualname__}() has a parameter {taken[0]!r}, which its body would never get: a call with "
            f"{taken[0]}=... tells the queue. Call it otherwise; {', '.join(sorted(TAKEN_BY_CALLS))} are taken."
        )
    if (
        has_context
        and "task" not in by_name
        and all(one.kind is not one.VAR_KEYWORD for one in parameters.values())
    ):
        raise ConfigurationError(
            f"{func.__qualname__}() is to get its task (context=True): give it a parameter 'task'."
        )
    if is_periodic:
        try:
            inspect.signature(func).bind(**({"task": None} if has_context else {}))
        except TypeError as error:
            raise ConfigurationError(
                f"{func.__qualname__}() fires by the clock, without arguments: {error}"
            ) from None


def _short(value: Any) -> str:
    return f"{value!r:.60}"
