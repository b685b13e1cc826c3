"""One measure of one contestant, in a process and a folder of its own; prints one JSON object.

`python -m tests.kit.benchmarks.driver MODULE MEASURE key=value...`, in the contestant's environment. It runs where
only the standard library and the contestant's packages are. A measure asserts that everything it enqueued was
accepted, and (but for very many jobs of a slow contestant) that it all ran.
"""

from __future__ import annotations

import importlib
import json
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from tests.kit.benchmarks.marks import read_marks
from tests.kit.benchmarks.table import percentile
from tests.kit.benchmarks.workers import PROBE, Workers, working

RESULT_WITHIN_S = 60.0


def describe(contestant: Any) -> dict[str, Any]:
    """Say what the contestant is and what it can."""
    return {
        "name": contestant.NAME,
        "versions": {package: version(package) for package in contestant.PACKAGES},
        "needs_redis": contestant.NEEDS_REDIS,
        "in_bulk": contestant.IN_BULK,
        "durable": contestant.DURABLE,
        "can_delay": contestant.enqueue_in is not None,
        "can_wait": contestant.wait is not None,
        "sqlite": sqlite3.sqlite_version,
    }


def commands(contestant: Any) -> dict[str, Any]:
    """Name the module of its site, and the commands of its workers."""
    return {"web": contestant.WEB, "workers": contestant.WORKERS}


def enqueue(contestant: Any, *, jobs: int = 2000, warm_up: int = 100) -> dict[str, float]:
    """Time each enqueue of one thread, while nothing runs jobs."""
    for n in range(warm_up):
        contestant.enqueue(n)
    taken_us = []
    for n in range(warm_up, warm_up + jobs):
        started_ns = time.perf_counter_ns()
        contestant.enqueue(n)
        taken_us.append((time.perf_counter_ns() - started_ns) / 1e3)
    check_accepted(contestant, warm_up + jobs)
    return {
        "p50_us": percentile(taken_us, 50),
        "p99_us": percentile(taken_us, 99),
        "per_s": jobs / sum(taken_us) * 1e6,
    }


def enqueue_8(contestant: Any, *, jobs: int = 300, threads: int = 8) -> dict[str, float]:
    """Time enqueues of eight threads at once, while nothing runs jobs."""
    all_there = threading.Barrier(threads + 1)
    contestant.enqueue(threads * jobs)  # opens what the process needs

    def enqueue_some(thread: int) -> None:
        all_there.wait()
        for n in range(thread * jobs, (thread + 1) * jobs):
            contestant.enqueue(n)

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(enqueue_some, thread) for thread in range(threads)]
        all_there.wait()
        started = time.perf_counter()
        for one in running:
            one.result()
        taken_s = time.perf_counter() - started
    check_accepted(contestant, threads * jobs + 1)
    return {"per_s": threads * jobs / taken_s}


def bulk(contestant: Any, *, jobs: int = 10_000) -> dict[str, float]:
    """Time the contestant's own way to enqueue many, while nothing runs jobs."""
    contestant.enqueue(jobs)  # opens what the process needs
    started = time.perf_counter()
    contestant.enqueue_many(range(jobs))
    taken_s = time.perf_counter() - started
    check_accepted(contestant, jobs + 1)
    return {"per_s": jobs / taken_s}


def drain(contestant: Any, *, jobs: int = 0) -> dict[str, float]:
    """Enqueue many, then start the workers; the time is that from the first mark to the last."""
    jobs = jobs or contestant.DRAIN_JOBS
    contestant.enqueue_many(range(jobs))
    marks = [at_ns for _, at_ns in run_waiting(contestant, jobs)]
    return {"per_s": (jobs - 1) / (max(marks) - min(marks)) * 1e9}


def round_trip(contestant: Any, *, jobs: int = 200) -> dict[str, float]:
    """Time an enqueue and the wait for its result, one job at a time."""
    taken_ms = []
    with working(contestant) as workers:
        for n in range(jobs):
            started = time.perf_counter()
            value = contestant.wait(contestant.enqueue(n), RESULT_WITHIN_S)
            taken_ms.append((time.perf_counter() - started) * 1e3)
            assert value == n, f"job {n} returned {value!r}"
        check_ran(contestant, workers, jobs)
    return {"p50_ms": percentile(taken_ms, 50), "p99_ms": percentile(taken_ms, 99)}


def eta(contestant: Any, *, jobs: int = 30) -> dict[str, float]:
    """See how late jobs start that are to start half a second to one and a half from now; some start early."""
    dice, due_ns = random.Random(5), {}
    with working(contestant) as workers:
        for n in range(jobs):
            delay_s = dice.uniform(0.5, 1.5)
            due_ns[n] = time.monotonic_ns() + int(delay_s * 1e9)
            contestant.enqueue_in(n, delay_s)
        marks = check_ran(contestant, workers, jobs)
    late_ms = [(at_ns - due_ns[n]) / 1e6 for n, at_ns in marks if n != PROBE]
    if not contestant.MAY_START_EARLY:
        assert min(late_ms) >= 0, f"a job started {-min(late_ms):.0f} ms before its time"
    return {"p50_ms": percentile(late_ms, 50), "p99_ms": percentile(late_ms, 99), "max_ms": max(late_ms)}


def pick_up(
    contestant: Any, *, samples: int = 34, least_quiet_s: float = 5, most_quiet_s: float = 8, seed: str = ""
) -> dict[str, list[float]]:
    """Time the way from an enqueue's call to the body's first line, after some seconds of quiet."""
    dice, called_ns = random.Random(seed), []
    with working(contestant) as workers:
        for n in range(samples):
            time.sleep(dice.uniform(least_quiet_s, most_quiet_s))
            called_ns.append(time.monotonic_ns())
            contestant.enqueue(n)
            workers.wait_for_marks(n + 2)
        marks = check_ran(contestant, workers, samples)
    return {"ms": [(at_ns - called_ns[n]) / 1e6 for n, at_ns in marks if n != PROBE]}


def mail(contestant: Any, *, mails: int = 200) -> dict[str, float]:
    """Enqueue mails, then start the workers; timed from the first mail that the server took to the last."""
    contestant.enqueue_mails(range(mails))
    with working(contestant, is_probed=False) as workers:
        marks = [at_ns for _, at_ns in check_ran(contestant, workers, mails)]
    return {"per_s": (mails - 1) / (max(marks) - min(marks)) * 1e9}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (describe, commands, enqueue, enqueue_8, bulk, drain, round_trip, eta, pick_up, mail)
}


def check_accepted(contestant: Any, count: int) -> None:
    """See that jobs 0 to `count` were accepted, and have them run where that takes some ten seconds at most."""
    if count <= 5 * contestant.DRAIN_JOBS:
        run_waiting(contestant, count)
        return
    waiting = contestant.waiting()
    assert waiting == count, f"{count} jobs were enqueued, {waiting} wait"


def run_waiting(contestant: Any, count: int) -> list[tuple[int, int]]:
    """See that jobs 0 to `count` wait, have them run, and return their marks."""
    waiting = contestant.waiting()
    assert waiting == count, f"{count} jobs were enqueued, {waiting} wait"
    with working(contestant, is_probed=False) as workers:
        return check_ran(contestant, workers, count)


def check_ran(contestant: Any, workers: Workers, count: int) -> list[tuple[int, int]]:
    """Wait until jobs 0 to `count` have run, see that each did so once, and return the marks."""
    workers.wait_for_marks(count + workers.probes)
    marks = read_marks(workers.marks)
    ran = sorted(n for n, _ in marks)
    assert ran == list(range(-workers.probes, count)), (
        f"of {count} jobs {len(set(ran))} ran, in {len(ran)} runs"
    )
    if hasattr(contestant, "check_ran"):
        contestant.check_ran(len(ran))
    return marks


def _option(text: str) -> tuple[str, int | float | str]:
    key, _, value = text.partition("=")
    for kind in (int, float):
        with suppress(ValueError):
            return key, kind(value)
    return key, value


def main(module: str, measure: str, *options: str) -> None:
    """Measure, and print what came out."""
    contestant = importlib.import_module(f"tests.kit.benchmarks.contestants.{module}")
    print(json.dumps(MEASURES[measure](contestant, **dict(map(_option, options)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
