"""The measure `web`: how long a page takes while nothing runs, and while the queue is never empty."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection

from tests.kit.benchmarks.measures import Run
from tests.kit.benchmarks.stack import HOST, Stack, stack
from tests.kit.benchmarks.table import Value, percentile

BOOKS = 50
AT_ONCE = 4
LEAST_WAITING = 100
LEAST_PER_S = 5
PATIENCE_S = 30.0
LOOK_S = 0.05


@dataclass(frozen=True)
class Kind:
    """A kind of task: how many of it cannot be done in a second, and how long the page is asked for beside it.

    Where the page is slow that is longer, so that its slowest hundredth are several answers.
    """

    name: str
    most_per_s: int
    for_s: float


KINDS = (
    Kind("no_op", 10_000, 1.0),
    Kind("io", 250, 0.5),
    Kind("cpu", 250, 3.0),
    Kind("cpu_process", 250, 1.0),
)
TURNS = 4
IDLE_S = 0.4
SHORT_S = 0.5


def take_web(run: Run) -> Mapping[str, Value]:
    """Ask for the page again and again, in turns idle and beside each kind of task."""
    idle_ms: list[float] = []
    busy_ms: dict[str, list[float]] = {kind.name: [] for kind in KINDS}
    with stack(run) as made:
        made.start()
        made.ask("POST", f"/api/benchmark/books/{BOOKS}")
        site = len(made.pids())
        for kind in KINDS:  # the first bodies of a kind pay for its imports and its processes
            ask_beside(made, kind, SHORT_S)
        processes = len(made.pids()) - site
        assert processes == AT_ONCE, f"of {AT_ONCE} bodies {processes} ran in processes of their own"
        for _ in range(1 if run.is_quick else TURNS):
            for kind in KINDS:
                idle_ms += ask_for(made, IDLE_S)
                busy_ms[kind.name] += ask_beside(made, kind, SHORT_S if run.is_quick else kind.for_s)
    idle_p99 = percentile(idle_ms, 99)
    ratios = {name: percentile(taken, 99) / idle_p99 for name, taken in busy_ms.items()}
    return {"idle_ms": idle_ms, **ratios}


def ask_beside(made: Stack, kind: Kind, for_s: float) -> list[float]:
    """Ask while jobs of a kind run; see that some were waiting to the end, and that they were done meanwhile."""
    done = _counts(made)["done"]
    made.ask("POST", f"/api/benchmark/fill/{kind.name}/{int(kind.most_per_s * (for_s + 1)) + LEAST_WAITING}")
    _wait_until(made, lambda counts: counts["done"] >= done + AT_ONCE)
    before = _counts(made)
    taken_ms = ask_for(made, for_s)
    after = _counts(made)
    # Nothing was enqueued meanwhile, so that as many were waiting all the time.
    assert after["ready"] >= LEAST_WAITING, f"only {after['ready']} {kind.name} jobs were waiting at the end"
    ran = after["done"] - before["done"]
    assert ran >= LEAST_PER_S * for_s, f"only {ran} {kind.name} jobs ran in {for_s:g} s"
    assert after["failed"] == 0, f"{after['failed']} jobs failed"
    made.ask("POST", "/api/benchmark/empty")
    _wait_until(made, lambda counts: counts["ready"] == counts["running"] == 0)
    return taken_ms


def ask_for(made: Stack, for_s: float) -> list[float]:
    """Ask for the page over one connection, one time after the other, and see what comes."""
    taken_ms = []
    with closing(HTTPConnection(HOST, made.port, timeout=30)) as connection:
        ends_at = time.perf_counter() + for_s
        while (started := time.perf_counter()) < ends_at:
            connection.request("GET", "/")
            answer = connection.getresponse()
            page = answer.read()
            taken_ms.append((time.perf_counter() - started) * 1e3)
            assert answer.status == 200, f"the page was answered with {answer.status}"
            assert page.count(b"Ada Quill") >= BOOKS, "the page does not show the books"
    return taken_ms


def _wait_until(made: Stack, is_so: Callable[[dict[str, int]], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so(counts := _counts(made)):
        assert time.monotonic() < deadline, f"the queue stands still: {counts}"
        time.sleep(LOOK_S)


def _counts(made: Stack) -> dict[str, int]:
    """Return how many jobs are in each state."""
    return dict(made.get("/api/queue")["counts"])
