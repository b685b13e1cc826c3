"""The codec: what travels comes back as it went in, or is refused with its name and place."""

from __future__ import annotations

import datetime as dt
import enum
import math
import pathlib
import uuid
from collections import OrderedDict, namedtuple
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from huey.utils import SKIPPED, Error
from hypothesis import HealthCheck, given, settings, strategies as st

from app.kit.engine.api.durable import DurableHuey
from app.kit.engine.codec import MAX_INT_BITS, JsonSerializer, RemoteError
from app.kit.errors import PayloadError

codec = JsonSerializer()
huey = DurableHuey("codec")


@huey.task(name="add")
def add(*numbers: Any, **named: Any) -> None:
    """Take anything."""


def travelled(value: Any) -> Any:
    return codec.deserialize(codec.serialize(value))


def same(one: Any, other: Any) -> bool:
    """Compare types too, and tell 0.0 from -0.0, and the same moment in two zones apart."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, dt.datetime | dt.time | Decimal):
        return (str(one), getattr(one, "fold", 0)) == (str(other), getattr(other, "fold", 0))
    return bool(one == other)


BERLIN = dt.timezone(dt.timedelta(hours=2))
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    -(2 ** (MAX_INT_BITS - 1)),
    0.0,
    -0.0,
    1e308,
    5e-324,
    0.1,
    "",
    "plain",
    "line\nand\x00nul",
    "é日本🙂",
    "\ud800 alone",
    "\ud83d\ude42 apart",
    b"",
    bytes(range(256)),
    [],
    (),
    {},
    [[], (), {}],
    ((), ((),), [((1,),)]),
    {"": {"": ""}},
    {"$tuple": [1]},
    {"$dict": {"$dict": []}},
    {"$": 1, "a": (2,)},
    {"$message": {"$uuid": "x"}},
    Decimal("1.10"),
    Decimal("-0"),
    Decimal("NaN"),
    Decimal("1E+5000"),
    uuid.UUID(int=5),
    dt.date(1, 1, 1),
    dt.datetime(2024, 2, 29, 12, 30, 15, 123456),  # noqa: DTZ001
    dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC),
    dt.datetime(2024, 2, 29, 12, 30, tzinfo=BERLIN),
    dt.datetime(2027, 10, 31, 2, 30, fold=1),  # noqa: DTZ001
    dt.time(2, 30, fold=1),
    {"$fold": {"$datetime": "2027-10-31"}},
    dt.time(23, 59, 59, 1),
    dt.time(12, tzinfo=BERLIN),
    dt.timedelta(days=-1, microseconds=1),
    dt.timedelta.max,
    dt.timedelta.min,
]


@pytest.mark.parametrize("value", VALUES, ids=ascii)
def test_a_value_comes_back_as_it_went_in(value: Any) -> None:
    assert same(travelled(value), value)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters()),
    st.binary(),
    st.uuids(),
    st.decimals(),
    st.dates(),
    st.datetimes(timezones=st.none() | st.sampled_from([dt.UTC, BERLIN])),
    st.times(),
    st.timedeltas(),
)
KEYS = st.text(st.characters()) | st.sampled_from(["$tuple", "$dict", "$bytes", "$", "$message", "$error"])


@given(
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner),
        max_leaves=20,
    )
)
@settings(deadline=None, database=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_built_of_these_comes_back_as_it_went_in(value: Any) -> None:
    assert same(travelled(value), value)


class Colour(enum.Enum):
    """An enumeration."""

    RED = 1


class Level(enum.IntEnum):
    """An enumeration that is an int."""

    HIGH = 1


class Name(str):
    """A str of its own kind."""


class Number(int):
    """An int of its own kind."""


Point = namedtuple("Point", "x y")
circle: list[Any] = []
circle.append({"again": (circle,)})

REFUSED = [
    (math.nan, "argument 1 of add is nan, which JSON has no number for"),
    (math.inf, "argument 1 of add is inf"),
    (-math.inf, "argument 1 of add is -inf"),
    ({1, 2}, "argument 1 of add is of type builtins.set"),
    (bytearray(b"x"), "of type builtins.bytearray"),
    (1j, "of type builtins.complex"),
    (range(3), "of type builtins.range"),
    (object(), "of type builtins.object"),
    (print, "of type builtins.builtin_function_or_method"),
    (pathlib.PurePosixPath("books/cover.png"), r"PurePosixPath; .*Pass an id, or a path as str"),
    (Colour.RED, "Colour"),
    (Level.HIGH, "Level"),
    (Name("x"), "Name"),
    (Number(1), "Number"),
    (Point(1, 2), "Point"),
    (OrderedDict(a=1), "of type collections.OrderedDict"),
    ({1: 2}, r"argument 1 of add has the key 1; keys must be str"),
    ({None: 2}, r"has the key None"),
    ({Name("x"): 2}, r"has the key 'x'"),
    (2**MAX_INT_BITS, "argument 1 of add is an int of 10001 bits"),
    (circle, "argument 1 of add contains itself"),
    (dt.time(12, tzinfo=ZoneInfo("Europe/Berlin")), "is a time whose offset depends on the day"),
    ([{"a": (1, {2})}], r"argument 1 of add\[0\]\['a'\]\[1\] is of type builtins.set"),
    ({"deep": [0, {"er": math.nan}]}, r"argument 1 of add\['deep'\]\[1\]\['er'\] is nan"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=lambda value: None)
def test_what_would_not_come_back_is_refused_by_name_and_place(value: Any, message: str) -> None:
    name = message if message.startswith("argument") else f"argument 1 of .*{message}"
    with pytest.raises(PayloadError, match=name.replace("of add", r"of \S*add")):
        huey.serialize_task(add.s(value))


LONG = "x" * 1_000_000


@pytest.mark.parametrize("value", [{(LONG,): 1}, {LONG: {1}}, [[{LONG: [{1}]}]]], ids=lambda value: None)
def test_the_error_stays_short_however_long_the_place(value: Any) -> None:
    for _ in range(100):
        value = {"a key of some length": value}
    with pytest.raises(PayloadError) as caught:
        huey.serialize_task(add.s(value))
    assert len(str(caught.value)) < 1000


def test_the_error_names_a_keyword_argument_and_the_second_position() -> None:
    with pytest.raises(PayloadError, match=r"argument 'colour' of \S*add\[0\] is of type"):
        huey.serialize_task(add.s(1, colour=[Colour.RED]))
    with pytest.raises(PayloadError, match=r"argument 2 of \S*add is nan"):
        huey.serialize_task(add.s(1, math.nan))


@pytest.mark.parametrize("names", [{"$uuid": 5}, {"$tuple": [1]}, {"$dict": 1, "other": 2}, {"": 0}])
def test_any_name_of_a_keyword_argument_travels(names: dict[str, Any]) -> None:
    assert huey.deserialize_task(huey.serialize_task(add.s(**names))).kwargs == names


def test_a_keyword_argument_whose_name_is_no_str_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"an argument of \S*add has the name 1; names must be str"):
        huey.serialize_task(add.task_class((), {1: 2}))


def test_a_whole_pipeline_with_its_error_handler_and_chord_travels() -> None:
    sent = add.s(1, when=dt.timedelta(1)).then(add, 2).error(add, (3,))
    came = huey.deserialize_task(huey.serialize_task(sent))
    assert (came.id, came.data) == (sent.id, ((1,), {"when": dt.timedelta(1)}))
    assert (came.on_complete.args, came.on_error.args) == ((2,), ((3,),))
    assert came.on_complete.id == sent.on_complete.id


def test_an_exception_comes_back_as_its_type_and_message() -> None:
    for _ in range(2):  # a RemoteError may travel on
        came = travelled([ValueError("no such book")])[0]
        assert (type(came), came.type, came.message) == (RemoteError, "ValueError", "no such book")
        assert str(came) == "ValueError: no such book"
        assert travelled(came).type == "ValueError"


def test_an_exception_whose_message_cannot_be_had_travels_all_the_same() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no word")

    class ExitError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    for error in (MuteError(), ExitError()):
        came = travelled(error)
        assert (came.type, bool(came.message)) == (type(error).__name__, True)


def test_a_moment_in_a_named_zone_comes_back_as_that_moment() -> None:
    moment = dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))
    assert travelled(moment).timestamp() == moment.timestamp()


class NoZone(dt.tzinfo):
    def utcoffset(self, _moment: dt.datetime | None) -> None:
        return None


def test_a_moment_in_a_zone_that_knows_no_offset_is_refused() -> None:
    with pytest.raises(PayloadError, match="time zone"):
        travelled(dt.datetime(2024, 1, 1, tzinfo=NoZone()))


def test_what_huey_itself_keeps_as_results_comes_back() -> None:
    assert travelled(Error({"error": "E", "retries": 0})) == Error({"error": "E", "retries": 0})
    assert travelled([SKIPPED])[0] is SKIPPED


def test_what_is_written_is_json_of_few_bytes() -> None:
    assert codec.serialize({"name": "Zoë", "n": [1, 2]}) == '{"name":"Zoë","n":[1,2]}'.encode()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\x80\x04K\x01.", b"\xff\xfe", b'{"$uuid":"x"}', b'{"$bytes":1}']
)
def test_damaged_bytes_raise_and_never_run_anything(data: bytes) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        codec.deserialize(data)
