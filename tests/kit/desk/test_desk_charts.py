"""The desk's pictures and words: scales, empty hours, one spike; pure functions."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pytest

from app.kit.desk import charts as desk_charts, words as desk_words
from app.kit.desk.charts import HEIGHT, LEAST_BAR, SPARK_HEIGHT, SPARK_WIDTH, WIDTH

NOON = 1_800_014_400.0 - 1_800_014_400.0 % 86_400 + 12 * 3600


def hour(**by_place: dict[str, Any]) -> list[dict[str, Any]]:
    """Make an hour from 12:00 on; `m3={"done": 5}` says what the fourth minute held."""
    nothing = {"enqueued": 0, "done": 0, "failed": 0, "wait_ms": None, "run_ms": None}
    return [
        {"minute_at": NOON + 60 * place, **nothing, **by_place.get(f"m{place}", {})} for place in range(60)
    ]


# Scales


@pytest.mark.parametrize(
    ("value", "top"),
    [
        (0, 2),
        (1, 2),
        (2, 2),
        (3, 4),
        (5, 6),
        (6, 6),
        (7, 10),
        (11, 20),
        (41, 60),
        (60, 60),
        (61, 100),
        (1001, 2000),
    ],
)
def test_a_count_fits_below_the_top_of_its_scale(value: int, top: int) -> None:
    assert desk_charts.whole_top(value) == top


def test_the_top_of_a_scale_is_never_far_away_and_its_half_is_whole() -> None:
    for value in range(1, 20_000):
        top = desk_charts.whole_top(value)
        assert value <= top
        assert value > top * 0.45 or top == 2
        assert top % 2 == 0


@pytest.mark.parametrize(
    ("values_ms", "powers"),
    [
        ([], (0, 3)),
        ([0], (0, 2)),
        ([0.2, 0.4], (0, 2)),
        ([50], (1, 3)),
        ([2, 3_000], (0, 4)),
        ([1000], (3, 5)),
    ],
)
def test_durations_lie_between_decades(values_ms: list[float], powers: tuple[int, int]) -> None:
    assert desk_charts.decades(values_ms) == powers


# Throughput


def test_an_empty_hour_has_no_bars_and_says_so() -> None:
    chart = desk_charts.throughput(hour())
    assert (chart.bars, chart.labels) == ([], ["2", "1", "0"])
    assert chart.words == "0 jobs done and 0 failed in the last hour."
    assert chart.times == ["12:00", "12:30", "12:59 UTC"]
    assert len(chart.hints) == 60


def test_no_minutes_at_all_draw_nothing() -> None:
    assert desk_charts.throughput([]).bars == []
    assert desk_charts.latency([]).lines[0].path == ""


def test_one_spike_reaches_the_top_and_the_rest_stays_visible() -> None:
    chart = desk_charts.throughput(hour(m3={"done": 1}, m30={"done": 1000}, m31={"failed": 1}))
    small, spike, failure = chart.bars
    assert (spike.height, spike.y) == (HEIGHT, 0)
    assert (small.height, failure.height, failure.kind) == (LEAST_BAR, LEAST_BAR, "failed")
    assert chart.words == (
        "1\u202f001 jobs done and 1 failed in the last hour. At most 1\u202f000 in a minute, at 12:30 UTC."
    )


def test_failures_stand_on_what_was_done() -> None:
    done, failed = desk_charts.throughput(hour(m0={"done": 6, "failed": 4})).bars
    assert (done.kind, failed.kind) == ("done", "failed")
    assert failed.y + failed.height == pytest.approx(done.y)
    assert failed.y == pytest.approx(0)


def test_every_bar_is_inside_its_picture_and_its_minute() -> None:
    full = {f"m{place}": {"done": place, "failed": 60 - place} for place in range(60)}
    for bar in desk_charts.throughput(hour(**full)).bars:
        assert 0 <= bar.y <= bar.y + bar.height <= HEIGHT + 0.01
        assert bar.x // 10 == (bar.x + bar.width) // 10
        assert bar.x + bar.width <= WIDTH


def test_a_minute_tells_its_numbers_to_a_pointer() -> None:
    x, width, words = desk_charts.throughput(hour(m1={"done": 2, "failed": 1})).hints[1]
    assert (x, width, words) == (10, 10, "12:01 UTC: 2 done, 1 failed")


# Latency


def test_durations_are_drawn_by_their_logarithm() -> None:
    ended = {"done": 1, "wait_ms": 10}
    chart = desk_charts.latency(hour(m0=ended | {"run_ms": 1}, m1=ended | {"run_ms": 100_000}))
    assert chart.labels == ["100 s", "10 s", "1 s", "100 ms", "10 ms", "1 ms"]
    wait, run = chart.lines
    assert (wait.kind, run.kind) == ("wait", "run")
    assert wait.path == "M0 120 H10 V120 H20"
    assert run.path == "M0 150 H10 V0 H20"


def test_a_minute_without_jobs_is_a_gap() -> None:
    path = desk_charts.steps([None, 10, None, 10, 100], 0, 2)
    assert path == "M120 75 H240 M360 75 H480 V0 H600"


def test_what_is_faster_than_the_scale_lies_at_its_foot() -> None:
    assert desk_charts.steps([0, 0.01], 0, 2) == "M0 150 H300 V150 H600"


def test_no_path_says_nan_or_infinity() -> None:
    values: list[float | None] = [None, 0, 1e-9, 1, 1e12]
    low, high = desk_charts.decades([value for value in values if value is not None])
    for four in itertools.product(values, repeat=4):
        numbers = re.findall(r"[-\d.e+]+", desk_charts.steps(four, low, high))
        assert all(math.isfinite(float(number)) for number in numbers)


def test_the_words_of_latency_weigh_minutes_by_their_jobs() -> None:
    chart = desk_charts.latency(
        hour(m0={"done": 9, "wait_ms": 10, "run_ms": 100}, m9={"failed": 1, "wait_ms": 20, "run_ms": 1100})
    )
    assert chart.words == (
        "On average jobs waited 11 ms and ran 200 ms. The slowest minute was 12:09 UTC: 20 ms waiting, "
        "1.1 s running."
    )
    assert desk_charts.latency(hour()).words == "No job ended in the last hour."


# Sparklines


def test_a_sparkline_of_nothing_is_empty() -> None:
    assert desk_charts.sparkline([]) == []


def test_the_longest_run_is_as_high_as_there_is_room_and_none_vanishes() -> None:
    short, long = desk_charts.sparkline([1, 5000])
    assert (short.height, long.height, long.y) == (LEAST_BAR, SPARK_HEIGHT, 0)
    assert long.x + long.width < SPARK_WIDTH / 4  # few bars stay slim
    assert desk_charts.sparkline([0, 0])[0].height == LEAST_BAR


def test_twenty_runs_fill_a_sparkline() -> None:
    last = desk_charts.sparkline([1.0] * 20)[-1]
    assert SPARK_WIDTH * 0.95 < last.x + last.width <= SPARK_WIDTH


# Words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"), (-3, "0 ms"), (0, "0 ms"), (0.0002, "<1 ms"), (0.0404, "40 ms"), (0.9994, "999 ms"),
        (0.9999, "1 s"), (2.54, "2.5 s"), (9.96, "10 s"), (59, "59 s"), (60, "1 min"), (90, "1.5 min"),
        (3600, "1 h"), (86_400, "1 d"), (200 * 86_400, "200 d"),
    ],
)  # fmt: skip
def test_a_duration_has_its_fitting_unit(seconds: float | None, words: str) -> None:
    assert desk_words.duration(seconds) == words


@pytest.mark.parametrize(
    ("per_s", "words"),
    [(0, "none"), (3.14, "3.1/s"), (1, "1/s"), (1200, "1\u202f200/s"), (0.2, "12/min"), (0.01, "0.6/min"),
     (0.0001, "under 0.1/min")],
)  # fmt: skip
def test_a_rate_is_told_in_the_unit_that_fits(per_s: float, words: str) -> None:
    assert desk_words.rate(per_s) == words


@pytest.mark.parametrize(
    ("waiting", "arrival", "service", "drain_s", "is_paused", "words"),
    [
        (0, 0, 0, None, False, "Nothing waits; none arrive, none are served."),
        (12, 3.1, 8.2, 2.35, False, "12 jobs wait; 3.1/s arrive, 8.2/s are served: empty in about 2.4 s."),
        (1, 0, 8, 0.125, False, "1 job waits; none arrive, 8/s are served: empty in about 1 s."),
        (1200, 9, 2, None, False, "1\u202f200 jobs wait; 9/s arrive, 2/s are served: it grows."),
        (5, 2, 2, None, False, "5 jobs wait; 2/s arrive, 2/s are served: it does not get shorter."),
        (5, 0, 0, None, False, "5 jobs wait; none arrive, none are served: nothing was served lately."),
        (5, 1, 2, 5.0, True, "5 jobs wait; 1/s arrive, and the queue is paused: nothing is started."),
    ],
)  # fmt: skip
def test_the_queue_is_told_in_a_sentence(
    waiting: int, arrival: float, service: float, drain_s: float | None, is_paused: bool, words: str
) -> None:
    stats = {"arrival_per_s": arrival, "service_per_s": service, "drain_s": drain_s}
    assert desk_words.flow(waiting, stats, is_paused) == words
