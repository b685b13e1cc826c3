"""`python3 main.py benchmark`: Postroom and its rivals on this machine, in interleaved rounds, as one table.

The rivals are installed into .venv-benchmark at the first run. TMPDIR chooses the disk that is measured.
Ctrl-C ends it early: what was found until then is printed.
`--quick` takes sizes so small that the figures mean nothing: it shows within minutes whether everything works.
"""

from __future__ import annotations

import argparse
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from app.kit.errors import InvalidInputError
from tests.kit.benchmarks import machine, rivals
from tests.kit.benchmarks.growth_measures import GROWTH_MEASURES
from tests.kit.benchmarks.mail_measures import MAIL_MEASURES
from tests.kit.benchmarks.measures import (
    QUEUE_MEASURES,
    Contestant,
    FailedError,
    Measure,
    Run,
    contestants,
    introduce,
)
from tests.kit.benchmarks.site_measures import SITE_MEASURES
from tests.kit.benchmarks.table import Value, cell, markdown

T = TypeVar("T")

MEASURES: list[Measure] = [*QUEUE_MEASURES, *SITE_MEASURES, *MAIL_MEASURES, *GROWTH_MEASURES]
"""In the order of the table's rows."""


def run(arguments: Sequence[str]) -> int:
    """Measure, print the table; the exit status is 1 when a measure failed."""
    asked = _parser().parse_args(arguments)
    if sys.platform != "linux":
        print("The benchmark needs Linux: it reads /proc.", file=sys.stderr)
        return 1
    measures = [measure for measure in MEASURES if not asked.measures or measure.name in asked.measures]
    chosen = [one for one in contestants() if not asked.only or one.key in asked.only]
    _try_to_write(asked.out)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # an end like any other: we clean up
    if not all(one.is_postroom for one in chosen):
        rivals.ensure_environment()
    with tempfile.TemporaryDirectory(prefix="postroom-benchmark-") as folder:
        benchmark = Benchmark(Path(folder).resolve(), measures, chosen, asked.quick)
        benchmark.introduce()
        benchmark.measure(asked.rounds)
        report = benchmark.report(asked.rounds)
    print(report)
    if asked.out is not None:
        asked.out.write_text(report + "\n", "utf-8")
    return 1 if benchmark.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 main.py benchmark", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    names = [measure.name for measure in MEASURES]
    keys = [contestant.key for contestant in contestants()]
    parser.add_argument(
        "measures",
        nargs="*",
        type=_one_of(names),
        metavar="measure",
        help=f"all, or some of: {', '.join(names)}",
    )
    parser.add_argument("--rounds", type=_rounds, default=3, help="how often each is measured (default: 3)")
    parser.add_argument(
        "--only", type=_some_of(keys), metavar="NAME,...", help=f"all, or some of: {', '.join(keys)}"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--quick", action="store_true", help="see whether it works; the figures mean nothing")
    return parser


def _rounds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds, expected 1 or more")
    return int(text)


def _one_of(names: list[str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")
        return text

    return check


def _some_of(names: list[str]) -> Callable[[str], list[str]]:
    check = _one_of(names)
    return lambda text: [check(name.strip()) for name in text.split(",")]


def _try_to_write(out: Path | None) -> None:
    """See that the table can be written, before hours are spent on it."""
    if out is None:
        return
    try:
        out.touch()
    except OSError as error:
        raise InvalidInputError(f"{out} cannot be written: {error.strerror}. Name another file.") from error


def rotated(items: list[T], by: int) -> list[T]:
    """Return the items in a circle, from another beginning: nobody is always first, or always after the same."""
    by %= len(items) or 1
    return items[by:] + items[:by]


class Benchmark:
    """What is measured, what was found so far, and what went wrong."""

    def __init__(
        self, folder: Path, measures: list[Measure], chosen: list[Contestant], is_quick: bool
    ) -> None:
        self.folder, self.measures, self.is_quick = folder, measures, is_quick
        self.chosen = chosen
        self.taking_part: list[Contestant] = []
        self.found: dict[tuple[str, str], list[Mapping[str, Value]]] = {}
        self.skipped: list[str] = []
        self.failures: list[str] = []

    def introduce(self) -> None:
        """Find out who can take part, and say why the others cannot."""
        for contestant in self.chosen:
            try:
                introduce(contestant, self.folder / contestant.key)
                self.taking_part.append(contestant)
            except FailedError as error:
                self._note(self.skipped, f"{contestant.name or contestant.key} is skipped: {error}")

    def measure(self, rounds: int) -> None:
        """Measure round by round, each time in another order of the contestants; Ctrl-C ends it."""
        try:
            self._measure(rounds)
        except KeyboardInterrupt:
            self._note(self.failures, "It was stopped by hand: some figures are of fewer rounds, or missing.")

    def _measure(self, rounds: int) -> None:
        for number in range(1, rounds + 1):
            for measure in self.measures:
                able = [one for one in self.taking_part if measure.applies_to(one)]
                runs = [
                    Run(one, self.folder / f"{number}-{measure.name}-{one.key}", number, self.is_quick)
                    for one in rotated(able, number - 1)
                ]
                self._take_together(measure, runs) if measure.together else self._take_in_turn(measure, runs)

    def _take_in_turn(self, measure: Measure, runs: list[Run]) -> None:
        for run in runs:
            self._take(measure, run)

    def _take_together(self, measure: Measure, runs: list[Run]) -> None:
        with ThreadPoolExecutor(len(runs) or 1) as pool:
            try:
                list(pool.map(lambda run: self._take(measure, run), runs))
            except BaseException:
                machine.kill_all_of(self.folder)  # else the pool would wait for them
                raise

    def _take(self, measure: Measure, run: Run) -> None:
        try:
            values = measure.take(run)
        except FailedError as error:
            self._note(
                self.failures, f"round {run.round}, {run.contestant.name}: {measure.name} failed: {error}"
            )
            return
        self.found.setdefault((measure.name, run.contestant.key), []).append(values)
        shown = ", ".join(f"{row.title} {cell([values[row.key]], row.percent)}" for row in measure.rows)
        print(f"round {run.round}, {run.contestant.name}: {shown}", file=sys.stderr, flush=True)

    def _note(self, where: list[str], text: str) -> None:
        where.append(text)
        print(text, file=sys.stderr, flush=True)

    # The report

    def report(self, rounds: int) -> str:
        """Write what was found: the machine and the versions, the table, the notes below it."""
        titles = ["", *(one.name or one.key for one in self.chosen)]
        lines = []
        for measure in self.measures:
            for row in measure.rows:
                found = [
                    [values[row.key] for values in self.found.get((measure.name, one.key), [])]
                    for one in self.chosen
                ]
                lines.append([row.title, *(cell(values, row.percent) for values in found)])
        return "\n".join([*self._head(rounds), "", markdown(titles, lines), "", *self._notes()])

    def _head(self, rounds: int) -> list[str]:
        versions = {name: number for one in self.taking_part for name, number in one.versions.items()}
        packages = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
        sqlite = " and ".join(sorted({one.sqlite for one in self.taking_part}))
        spread = "" if rounds == 1 else f"; medians of {rounds} rounds (lowest to highest)"
        return [
            f"{datetime.now(UTC):%Y-%m-%d}{spread}  ",
            f"{machine.description(self.folder)}  ",
            f"Python {platform.python_version()}, SQLite {sqlite}, "
            f"redis-server {rivals.redis_version() or 'none'}, {packages}",
        ]

    def _notes(self) -> list[str]:
        notes = [
            f"{one.name}: an accepted job survives {one.durable}; in bulk: {one.in_bulk}."
            for one in self.taking_part
        ]
        if self.is_quick:
            notes.insert(0, "This was a quick run: its figures mean nothing.")
        if machine.file_system(self.folder) in ("tmpfs", "ramfs"):
            notes.insert(0, "The files were in memory: set TMPDIR to a folder on a disk.")
        return [f"- {note}" for note in [*notes, *self.skipped, *self.failures]]
