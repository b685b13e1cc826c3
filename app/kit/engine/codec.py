"""Jobs and results as JSON that comes back as it went in, or is refused with the argument's name."""

from __future__ import annotations

import base64
import datetime as dt
import json
import math
import uuid
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from huey.registry import Message
from huey.utils import SKIPPED, Error

from app.kit.engine.error_words import MAX_ERROR_CHARS, message_of
from app.kit.errors import PayloadError

PLAIN = (str, bool, type(None))
MAX_SPELLED_CHARS = 300
SMALL = 2**63
MAX_INT_BITS = 10_000
"""Python reads and writes decimal numbers of up to 4 300 digits, which is 14 284 bits."""


class RemoteError(Exception):
    """An exception that travelled: the name of its type and its message, no code."""

    def __init__(self, type: str, message: str) -> None:
        self.type, self.message = type, message
        super().__init__(type, message)

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class _RefusedError(Exception):
    """A value that JSON cannot bring back as it was, and where in the structure it lies."""


Path = tuple[Any, ...]
"""Where a value lies: (the path of what holds it, its key or index); only an error spells it out."""


def _spell(path: Path) -> str:
    steps = []
    while len(path) == 2:
        steps.append(f"[{_short(repr(path[1]))}]")
        path = path[0]
    return str(path[0]) + _short("".join(reversed(steps)))


def _short(text: str) -> str:
    """Leave the middle out of what is too long for a message."""
    return text if len(text) <= MAX_SPELLED_CHARS else f"{text[:100]}...{text[-100:]}"


def _encode_dict(value: dict[Any, Any], path: Path) -> Any:
    for key in value:
        if type(key) is not str:
            raise _RefusedError(f"{_spell(path)} has the key {_short(repr(key))}; keys must be str")
    return _escaped({key: encode(item, (path, key)) for key, item in value.items()})


def _escaped(encoded: dict[str, Any]) -> dict[str, Any]:
    """Keep a key that looks like one of our tags apart from them."""
    if any(key.startswith("$") for key in encoded):
        return {"$dict": list(encoded.items())}
    return encoded


def _encode_float(value: float, path: Path) -> Any:
    if not math.isfinite(value):
        raise _RefusedError(f"{_spell(path)} is {value}, which JSON has no number for; pass None or a str")
    return value


def _encode_int(value: int, path: Path) -> int:
    if value.bit_length() > MAX_INT_BITS:
        raise _RefusedError(f"{_spell(path)} is an int of {value.bit_length()} bits; at most {MAX_INT_BITS}")
    return value


def _encode_datetime(value: dt.datetime, path: Path) -> Any:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise _RefusedError(f"{_spell(path)} has a time zone that knows no offset; pass another, or none")
    return _folded(value, {"$datetime": value.isoformat()})


def _encode_time(value: dt.time, path: Path) -> Any:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise _RefusedError(f"{_spell(path)} is a time whose offset depends on the day; pass a datetime")
    return _folded(value, {"$time": value.isoformat()})


def _folded(value: dt.datetime | dt.time, encoded: dict[str, str]) -> dict[str, Any]:
    """Keep that it is the second of two hours of one name, as clocks are set back; ISO 8601 has no word for it."""
    return {"$fold": encoded} if value.fold else encoded


def _encode_list(value: Iterable[Any], path: Path) -> Any:
    return [encode(item, (path, index)) for index, item in enumerate(value)]


def _encode_message(message: Message, path: Path) -> Any:
    fields = {
        name: value if type(value) is str else encode(value, path)
        for name, value in zip(message._fields, message, strict=True)
        if value is not None and name not in ("args", "kwargs")
    }
    fields["args"] = {
        "$tuple": [
            _encode_argument(argument, f"argument {index} of {message.name}")
            for index, argument in enumerate(message.args, 1)
        ]
    }
    for name in message.kwargs:
        if type(name) is not str:
            raise _RefusedError(
                f"an argument of {message.name} has the name {_short(repr(name))}; names must be str"
            )
    fields["kwargs"] = _escaped(
        {
            name: _encode_argument(argument, f"argument {_short(repr(name))} of {message.name}")
            for name, argument in message.kwargs.items()
        }
    )
    return {"$message": fields}


def _encode_argument(argument: Any, name: str) -> Any:
    try:
        return encode(argument, (name,))
    except RecursionError:
        raise _RefusedError(f"{name} contains itself, or is nested too deeply") from None


# type -> how it is written. Exact types only: a subclass would come back as its base.
ENCODERS: dict[type, Callable[[Any, Path], Any]] = {
    int: _encode_int,
    float: _encode_float,
    list: _encode_list,
    dict: _encode_dict,
    tuple: lambda value, path: {"$tuple": _encode_list(value, path)},
    bytes: lambda value, path: {"$bytes": base64.b64encode(value).decode("ascii")},
    Decimal: lambda value, path: {"$decimal": str(value)},
    uuid.UUID: lambda value, path: {"$uuid": str(value)},
    dt.datetime: _encode_datetime,
    dt.date: lambda value, path: {"$date": value.isoformat()},
    dt.time: _encode_time,
    dt.timedelta: lambda value, path: {"$timedelta": [value.days, value.seconds, value.microseconds]},
    Message: _encode_message,
    Error: lambda value, path: {"$failure": encode(value.metadata, path)},
    type(SKIPPED): lambda value, path: {"$skipped": True},
}

# tag -> how it is read back.
DECODERS: dict[str, Callable[[Any], Any]] = {
    "$dict": dict,
    "$tuple": tuple,
    "$bytes": base64.b64decode,
    "$decimal": Decimal,
    "$uuid": uuid.UUID,
    "$datetime": dt.datetime.fromisoformat,
    "$date": dt.date.fromisoformat,
    "$time": dt.time.fromisoformat,
    "$fold": lambda value: value.replace(fold=1),
    "$timedelta": lambda value: dt.timedelta(*value),
    "$message": lambda value: Message(**value),
    "$failure": Error,
    "$skipped": lambda value: SKIPPED,
    "$error": lambda value: RemoteError(*value),
}


def encode(value: Any, path: Path) -> Any:
    """Turn a value into what JSON can hold; `path` says where it lies, for the error."""
    kind = type(value)
    if kind in PLAIN or (kind is int and -SMALL < value < SMALL):
        return value
    encoder = ENCODERS.get(kind)
    if encoder is not None:
        return encoder(value, path)
    if isinstance(value, RemoteError):
        return {"$error": [str(value.type), str(value.message)]}
    if isinstance(value, BaseException):
        return {"$error": [kind.__name__, message_of(value)[:MAX_ERROR_CHARS]]}
    raise _RefusedError(
        f"{_spell(path)} is of type {kind.__module__}.{kind.__qualname__}; jobs carry JSON: str, int, float, "
        "bool, None, list, tuple, dict, bytes, datetime, UUID, Decimal. Pass an id, or a path as str, and look "
        "it up in the task"
    )


class JsonSerializer:
    """Huey's serializer interface over the codec."""

    def serialize(self, data: Any) -> bytes:
        """Write `data` as JSON bytes.

        Raises: PayloadError naming the argument that cannot travel.
        """
        try:
            text = TO_JSON.encode(encode(data, ("the value",)))
        except _RefusedError as refused:
            raise PayloadError(str(refused)) from None
        except RecursionError:
            raise PayloadError("the value contains itself, or is nested too deeply") from None
        return text.encode("utf-8", "surrogatepass")

    def deserialize(self, data: bytes) -> Any:
        """Read back what `serialize` wrote."""
        return FROM_JSON.decode(bytes(data).decode("utf-8", "surrogatepass"))


def _decode(value: dict[str, Any]) -> Any:
    if len(value) == 1:
        (tag,) = value
        decoder = DECODERS.get(tag)
        if decoder is not None:
            return decoder(value[tag])
    return value


# Made once: json.dumps() and json.loads() would make them anew for each job.
TO_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
FROM_JSON = json.JSONDecoder(object_hook=_decode)
