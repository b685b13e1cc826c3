"""The desk's numbers as people say them: durations, counts, rates, how a queue fares."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

NARROW_SPACE = "\u202f"
UNITS_S = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float | None) -> str:
    """Write a duration with its fitting unit, such as 40 ms, 2.5 s, 12 min; a dash for none."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 0.001:
        return "0 ms" if seconds == 0 else "<1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    size_s, unit = next((size_s, unit) for size_s, unit in UNITS_S if seconds >= size_s or unit == "s")
    return f"{short(seconds / size_s)} {unit}"


def duration_ms(ms: float | None) -> str:
    """Write a duration that is given in milliseconds."""
    return duration(None if ms is None else ms / 1000)


def short(number: float) -> str:
    """Write a number with one decimal while it is small: 3.1, 12; and no decimal that is zero."""
    text = f"{number:.1f}" if number < 9.95 else grouped(round(number))
    return text.removesuffix(".0")


def grouped(number: int) -> str:
    """Write a whole number in groups of three: 12 345."""
    return f"{number:,}".replace(",", NARROW_SPACE)


def count_of(number: int, noun: str) -> str:
    """Write a number of things: 1 job, 12 jobs."""
    return f"{grouped(number)} {noun}{'' if number == 1 else 's'}"


def rate(per_s: float) -> str:
    """Write a rate in the unit in which it is not mostly zeros: 3.1/s, 12/min, none."""
    if per_s <= 0:
        return "none"
    if per_s >= 1:
        return f"{short(per_s)}/s"
    return f"{short(per_s * 60)}/min" if per_s * 60 >= 0.1 else "under 0.1/min"


def near(moment: datetime, now: datetime | None = None) -> str:
    """Write a moment of today by its time, another one by its date too; UTC."""
    today = (now or datetime.now(UTC)).date()
    return f"{moment.astimezone(UTC):{'%H:%M:%S' if moment.date() == today else '%Y-%m-%d %H:%M'}}"


def breakable(name: str) -> Markup:
    """Let a long name break after its dots and underscores, not anywhere."""
    return Markup(str(escape(name)).replace(".", ".<wbr>").replace("_", "_<wbr>"))


def flow(waiting: int, stats: dict[str, Any], is_paused: bool) -> str:
    """Say how arrival and service stand, and when the queue will be empty."""
    arrival, service, drain_s = stats["arrival_per_s"], stats["service_per_s"], stats["drain_s"]
    if not waiting:
        return f"Nothing waits; {rate(arrival)} arrive, {rate(service)} are served."
    start = f"{count_of(waiting, 'job')} {'waits' if waiting == 1 else 'wait'}"
    if is_paused:
        return f"{start}; {rate(arrival)} arrive, and the queue is paused: nothing is started."
    start = f"{start}; {rate(arrival)} arrive, {rate(service)} are served"
    if drain_s is not None:
        return f"{start}: empty in about {duration(max(1.0, drain_s))}."
    if arrival > service and rate(arrival) != rate(service):  # more, and it can be read above that it is more
        return f"{start}: it grows."
    return f"{start}: it does not get shorter." if service else f"{start}: nothing was served lately."
