"""The desk's pictures as geometry: a template draws them as SVG, the style sheet colours them.

A picture is WIDTH by HEIGHT units and is stretched to its box, so no text is in it: labels stand beside it, at
even distances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.kit.desk.words import count_of, duration_ms, grouped

WIDTH = 600.0
HEIGHT = 150.0
LEAST_BAR = 2.0
"""A single failure is seen beside a thousand successes."""

WHOLE_STEPS = (2, 4, 6, 10)
"""Tops of scales, times a power of ten: half of each is whole too."""

SPARK_WIDTH = 100.0
SPARK_HEIGHT = 20.0

Minute = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """A bar of a chart; `kind` is its class in the style sheet."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Line:
    """A line of a chart as an SVG path; `kind` is its class in the style sheet."""

    kind: str
    path: str


@dataclass(frozen=True)
class Chart:
    """One picture. `labels` stand beside it from top to bottom, `times` below it from left to right."""

    title: str
    words: str
    kinds: Sequence[str]
    labels: Sequence[str]
    times: Sequence[str]
    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()
    hints: Sequence[tuple[float, float, str]] = ()
    """What a pointer over a minute is told: x, width, words."""

    @property
    def grid(self) -> list[float]:
        """Return the heights at which the labels stand."""
        return [HEIGHT * place / (len(self.labels) - 1) for place in range(len(self.labels))]


# The pictures


def throughput(minutes: Sequence[Minute]) -> Chart:
    """Draw the jobs that were done and that failed, minute by minute, failed ones on top."""
    top = whole_top(max((one["done"] + one["failed"] for one in minutes), default=0))
    done, failed = (sum(one[kind] for one in minutes) for kind in ("done", "failed"))
    words = f"{count_of(done, 'job')} done and {grouped(failed)} failed in {_span(minutes)}."
    if done + failed:
        busiest = max(minutes, key=lambda one: one["done"] + one["failed"])
        words += (
            f" At most {grouped(busiest['done'] + busiest['failed'])} in a minute, at {clock(busiest)} UTC."
        )
    return Chart(
        "Jobs per minute",
        words,
        ("done", "failed"),
        [grouped(top), grouped(top // 2), "0"],
        _times(minutes),
        bars=[bar for place, one in enumerate(minutes) for bar in _pile(one, place, len(minutes), top)],
        hints=_hints(minutes, lambda one: f"{one['done']} done, {one['failed']} failed"),
    )


def latency(minutes: Sequence[Minute]) -> Chart:
    """Draw how long jobs waited and ran, on a scale of decades: a wait may be a millisecond or an hour."""
    seen = [one[kind] for one in minutes for kind in ("wait_ms", "run_ms") if one[kind] is not None]
    low, high = decades(seen)
    words = f"No job ended in {_span(minutes)}."
    if seen:
        slowest = max(minutes, key=lambda one: max(one["wait_ms"] or 0, one["run_ms"] or 0))
        words = (
            f"On average jobs waited {duration_ms(_mean(minutes, 'wait_ms'))}"
            f" and ran {duration_ms(_mean(minutes, 'run_ms'))}."
            f" The slowest minute was {clock(slowest)} UTC: {duration_ms(slowest['wait_ms'])} waiting,"
            f" {duration_ms(slowest['run_ms'])} running."
        )
    return Chart(
        "Waiting and running time",
        words,
        ("wait", "run"),
        [_power_of_ten(power) for power in range(high, low - 1, -1)],
        _times(minutes),
        lines=[
            Line(kind, steps([one[f"{kind}_ms"] for one in minutes], low, high)) for kind in ("wait", "run")
        ],
        hints=_hints(
            minutes, lambda one: f"waited {duration_ms(one['wait_ms'])}, ran {duration_ms(one['run_ms'])}"
        ),
    )


def sparkline(values: Sequence[float]) -> list[Bar]:
    """Draw a few numbers as tiny bars, the largest as high as there is room."""
    top = max(values, default=0) or 1
    step = SPARK_WIDTH / max(len(values), 10)  # two bars are not two walls
    bars = []
    for place, value in enumerate(values):
        height = max(LEAST_BAR, SPARK_HEIGHT * value / top)
        bars.append(Bar("run", _r(place * step), _r(SPARK_HEIGHT - height), _r(step * 0.8), _r(height)))
    return bars


# Scales


def whole_top(value: float) -> int:
    """Return the top of a scale that has room for a count."""
    power = 1
    while True:
        for step in WHOLE_STEPS:
            if step * power >= value:
                return step * power
        power *= 10


def decades(values_ms: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten between which all durations lie, at least two apart, none below a millisecond."""
    if not values_ms:
        return 0, 3
    low = max(0, math.floor(math.log10(max(min(values_ms), 1.0))))
    high = max(low + 2, math.ceil(math.log10(max(*values_ms, 1.0))))
    return low, high


def steps(values_ms: Sequence[float | None], low: int, high: int) -> str:
    """Draw durations as a staircase, a step each, with gaps where there is none."""
    width, path, drawn = WIDTH / max(len(values_ms), 1), [], False
    for place, value in enumerate(values_ms):
        if value is not None:
            part = (math.log10(max(value, 10.0**low)) - low) / (high - low)
            y = _r(HEIGHT * (1 - min(part, 1.0)))
            path.append(f"V{y:g}" if drawn else f"M{_r(place * width):g} {y:g}")
            path.append(f"H{_r((place + 1) * width):g}")
        drawn = value is not None
    return " ".join(path)


def clock(minute: Minute) -> str:
    """Write the time of a minute, UTC."""
    return f"{datetime.fromtimestamp(minute['minute_at'], UTC):%H:%M}"


# Pieces


def _pile(one: Minute, place: int, count: int, top: int) -> list[Bar]:
    width, y, bars = WIDTH / count, HEIGHT, []
    for kind in ("done", "failed"):
        if one[kind]:
            height = max(LEAST_BAR, HEIGHT * one[kind] / top)
            y = max(0.0, y - height)
            bars.append(Bar(kind, _r(place * width + width * 0.1), _r(y), _r(width * 0.8), _r(height)))
    return bars


def _hints(minutes: Sequence[Minute], say: Any) -> list[tuple[float, float, str]]:
    width = WIDTH / max(len(minutes), 1)
    return [
        (_r(place * width), _r(width), f"{clock(one)} UTC: {say(one)}") for place, one in enumerate(minutes)
    ]


def _times(minutes: Sequence[Minute]) -> list[str]:
    if not minutes:
        return []
    return [clock(minutes[0]), clock(minutes[len(minutes) // 2]), f"{clock(minutes[-1])} UTC"]


def _span(minutes: Sequence[Minute]) -> str:
    return "the last hour" if len(minutes) == 60 else f"the last {count_of(len(minutes), 'minute')}"


def _mean(minutes: Sequence[Minute], kind: str) -> float:
    found = [(one[kind], one["done"] + one["failed"] or 1) for one in minutes if one[kind] is not None]
    return float(sum(value * jobs for value, jobs in found) / sum(jobs for _, jobs in found))


def _power_of_ten(power: int) -> str:
    return f"{10**power} ms" if power < 3 else f"{grouped(10 ** (power - 3))} s"


def _r(value: float) -> float:
    return round(value, 2)
