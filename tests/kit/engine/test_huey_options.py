"""What a task or a call of it is told is checked where it is told, and the error names what would do."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pytest
from huey import crontab
from huey.exceptions import ConfigurationError

from app.kit.errors import InvalidInputError
from tests.kit.engine_rig import Rig

BAD_FOR_ALL: list[dict[str, Any]] = [
    {"retires": 9},
    {"cc": "x"},
    *({"retries": value} for value in (-1, 2.5, "3", True, None)),
    *({"retry_delay": value} for value in (-1, dt.timedelta(seconds=1), math.nan, math.inf, "5")),
    *({"retry_backoff": value} for value in (-2, "2")),
    *({"max_delay": value} for value in (None, 0, -1)),
    *({"timeout": value} for value in (0, -1, "60", dt.timedelta(seconds=1))),
    *({"priority": value} for value in ("high", math.nan)),
    *({"expires": value} for value in (0, "soon")),
    *({"limit": value} for value in (0, -1, 1.5)),
    *({name: value} for name in ("retry_on", "give_up_on") for value in ([OSError], OSError("x"), "OSError")),
    *({name: "yes"} for name in ("context", "process", "jitter")),
    *({"name": value} for value in ("", "a\nb", "\udc80", 5)),
    *({name: "f"} for name in ("if_not_done", "if_redriven")),
]
GOOD_FOR_ALL: list[dict[str, Any]] = [
    {"retries": 3, "retry_delay": 0.5, "retry_backoff": 2, "max_delay": 60, "jitter": True},
    {"timeout": None, "priority": -1.5, "limit": None, "expires": dt.timedelta(hours=1)},
    {"retry_on": OSError, "give_up_on": (KeyError, ValueError), "expires": 5, "limit": 1},
]


@pytest.mark.parametrize("options", BAD_FOR_ALL, ids=str)
@pytest.mark.parametrize("relative", ["task", "periodic_task", "batch_task", "context_task"])
def test_an_option_that_will_not_do_is_refused(rig: Rig, relative: str, options: dict[str, Any]) -> None:
    first: dict[str, Any] = {
        "periodic_task": {"validate_datetime": crontab()},
        "batch_task": {"every_s": 1},
        "context_task": {"obj": rig.huey.lock_task("x")},
    }.get(relative, {})
    ((name, _),) = options.items()
    with pytest.raises(ConfigurationError, match=name):
        getattr(rig.huey, relative)(**{**first, **options})(lambda: None)
    assert not rig.huey.task_names()


@pytest.mark.parametrize(
    ("relative", "options"),
    [
        ("task", {"pile_up": False}),
        ("task", {"every_s": 5}),
        ("periodic_task", {"validate_datetime": "*/5"}),
        ("periodic_task", {"validate_datetime": crontab(), "pile_up": 1}),
        *(("batch_task", {"every_s": value}) for value in (-1, None, math.inf)),
        *(("batch_task", {"every_s": 1, "max_jobs": value}) for value in (0, 2.5)),
        *(("batch_task", {"every_s": 1, name: True}) for name in ("context", "process", "pile_up")),
    ],
    ids=str,
)
def test_an_option_of_one_decorator_alone_is_checked_too(rig: Rig, relative: str, options: Any) -> None:
    with pytest.raises(ConfigurationError):
        getattr(rig.huey, relative)(**options)(lambda: None)


@pytest.mark.parametrize("options", GOOD_FOR_ALL, ids=str)
def test_options_that_will_do_are_taken(rig: Rig, options: dict[str, Any]) -> None:
    rig.huey.task(name="a", **options)(lambda: None)()
    rig.huey.batch_task(every_s=0.5, name="b", **options)(lambda items: None)
    rig.huey.periodic_task(crontab(), name="c", pile_up=False, **options)(lambda: None)
    assert len(rig.huey.task_names()) == 3


def test_a_near_miss_is_told_what_was_meant(rig: Rig) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean retries"):
        rig.huey.task(retires=9)


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        lambda url, timeout=5: None,
        lambda id: None,
        lambda *, priority: None,
        *(lambda eta: None, lambda delay: None, lambda expires: None, lambda retries: None),
        *(lambda retry_delay: None, lambda retry_backoff: None),
    ],
)
def test_a_parameter_whose_argument_the_queue_would_take_is_refused(rig: Rig, body: Any) -> None:
    with pytest.raises(ConfigurationError, match="parameter"):
        rig.huey.task(name="taker")(body)


def test_a_parameter_that_no_call_can_name_may_be_called_so(rig: Rig) -> None:
    result = rig.huey.task(name="taker")(lambda id, /: id)("abc")
    rig.run_next()
    assert result.get() == "abc"


def test_a_body_that_could_never_be_called_is_refused(rig: Rig) -> None:
    with pytest.raises(ConfigurationError, match="'task'"):
        rig.huey.task(name="no_task", context=True)(lambda: None)
    with pytest.raises(ConfigurationError, match="without arguments"):
        rig.huey.periodic_task(crontab(), name="wants")(lambda what: None)
    rig.huey.periodic_task(crontab(), name="has", context=True)(lambda task, more=1: None)
    rig.huey.task(name="any", context=True)(lambda **named: None)
    rig.huey.task(name="in_c")(dict)


# Calls


@pytest.mark.parametrize(
    "options",
    [{"retries": -1}, {"retry_delay": "5"}, {"priority": "high"}, {"timeout": 0}, {"expires": "soon"}],
    ids=str,
)
def test_a_call_that_tells_the_queue_nonsense_is_refused(
    rig: Rig, give: Any, options: dict[str, Any]
) -> None:
    (name,) = options
    for call in (
        lambda: give(1, **options),
        lambda: give.schedule((1,), delay=1, **options),
        lambda: rig.huey.enqueue(give.s(1).then(give.s(**options))),
        lambda: rig.huey.enqueue(give.s(1).error(give.s(**options))),
    ):
        with pytest.raises(InvalidInputError, match=name):
            call()
    assert rig.states() == {}


@pytest.mark.parametrize("given", ["hello", 3, {"a": 1}])
def test_arguments_that_are_no_tuple_are_refused(rig: Rig, give: Any, given: object) -> None:
    with pytest.raises(InvalidInputError, match="tuple"):
        give.schedule(given, delay=60)
    assert rig.states() == {}


def test_the_store_takes_keys_as_huey_gives_them_to_any_store(rig: Rig) -> None:
    for key in (b"k1", "k1", "r:k1", b"rt:k1"):
        rig.huey.storage.put_data(key, b"v1")
        assert rig.huey.storage.peek_data(key) == b"v1"


# crontab


@pytest.mark.parametrize("minutes", ["0,5/15", "0, 30", "5-", "x", "0,half"])
def test_minutes_that_huey_would_read_only_in_part_are_refused(minutes: str) -> None:
    with pytest.raises(ValueError, match="not a valid input"):
        crontab(minute=minutes)


def test_a_day_among_names_is_refused() -> None:
    with pytest.raises(ValueError, match="MON"):
        crontab(day_of_week="MON,3")
    with pytest.raises(ValueError, match="x"):
        crontab.hourly(hour="x,1")
