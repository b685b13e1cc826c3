"""How the site writes values: moments as ISO 8601 with Z, and something readable for what JSON lacks."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from flask.json.provider import DefaultJSONProvider


def moment_text(moment: datetime) -> str:
    """Write a moment as ISO 8601 in UTC, such as 2031-05-04T09:30:00.250Z."""
    with suppress(OverflowError):  # on the first or the last day there is, which UTC does not have
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(unix_s: float | None) -> datetime | None:
    """Turn seconds since 1970 into an aware moment; None stays None."""
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC)


def with_moments(value: Any) -> Any:
    """Copy a tree of dicts and lists; seconds under a key that ends in _at become moments."""
    if isinstance(value, dict):
        return {
            key: moment(inner) if key.endswith("_at") else with_moments(inner) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [with_moments(inner) for inner in value]
    return value


def readable(value: object) -> object:
    """Stand in for a value that JSON cannot say."""
    if isinstance(value, datetime):
        return moment_text(value) if value.tzinfo else value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return str(value)


class SiteJSON(DefaultJSONProvider):
    """Flask's JSON, with the site's way of writing moments; keys keep their order."""

    default = staticmethod(readable)
    sort_keys = False
