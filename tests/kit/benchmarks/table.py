"""The figures and their table: percentiles, medians with their spread, Markdown. Standard library only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "-"
NEVER = "never"
Value = float | list[float]
"""What a measure found in one round: a figure, or samples that are pooled over the rounds."""


@dataclass(frozen=True)
class Row:
    """A row of the table: `key` names the value in what a measure returns.

    Where the value is a list of samples, `percent` says which percentile is shown (100: the largest).
    """

    title: str
    key: str
    percent: float = 50


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of the values do not exceed (the nearest rank)."""
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def figure(value: float) -> str:
    """Write a number with about three digits that mean something; infinitely long is `never`."""
    if value == math.inf:
        return NEVER
    digits = 0 if abs(value) >= 100 or value == 0 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def cell(found: Sequence[Value], percent: float) -> str:
    """Write the median of the rounds and, if there were several, the lowest and the highest of them.

    Samples are pooled: the figure is their percentile, the spread that of the rounds' own percentiles.
    """
    if not found:
        return NOTHING
    rounds = [percentile(value, percent) if isinstance(value, list) else value for value in found]
    pool = [sample for value in found if isinstance(value, list) for sample in value]
    middle = percentile(pool, percent) if pool else statistics.median(rounds)
    if len(rounds) == 1:
        return figure(middle)
    return f"{figure(middle)} ({figure(min(rounds))} to {figure(max(rounds))})"


def markdown(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Write a table whose columns are aligned, so that it can be read as it is, too."""
    widths = [max(len(line[column]) for line in [titles, *lines]) for column in range(len(titles))]
    first, *others = widths
    rule = "|".join(["", "-" * (first + 2), *("-" * (width + 1) + ":" for width in others), ""])

    def written(line: Sequence[str]) -> str:
        cells = [
            line[0].ljust(first),
            *(text.rjust(width) for text, width in zip(line[1:], others, strict=True)),
        ]
        return f"| {' | '.join(cells)} |"

    return "\n".join([written(titles), rule, *map(written, lines)])
