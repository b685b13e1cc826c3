"""Moments as Huey has them, naive in UTC, and as the tables have them, in unix seconds; Huey's now is the kit's."""

from __future__ import annotations

import datetime as dt

import huey.utils

from app.kit.host.clock import clock


def unix_time(naive_utc: dt.datetime) -> float:
    """Turn Huey's naive UTC into unix seconds."""
    return naive_utc.replace(tzinfo=dt.UTC).timestamp()


def naive_utc(unix_s: float) -> dt.datetime:
    """Turn unix seconds into Huey's naive UTC."""
    return dt.datetime.fromtimestamp(unix_s, dt.UTC).replace(tzinfo=None)


# Huey counts delays and expiries from it.
huey.utils.utcnow = lambda: naive_utc(clock())


def _local_to_utc(naive_local: dt.datetime) -> dt.datetime:
    return naive_local.astimezone(dt.UTC).replace(tzinfo=None)


# Huey's own takes the second of two hours of one name (fold=1) for the first, and drops the microseconds.
huey.utils.local_to_utc = _local_to_utc
