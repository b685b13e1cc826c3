"""The measures of whole stacks: what they cost at rest, how they start, serve beside jobs, and come back."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping

from tests.kit.benchmarks import machine
from tests.kit.benchmarks.marks import read_marks
from tests.kit.benchmarks.measures import Measure, Run
from tests.kit.benchmarks.page_load import take_web
from tests.kit.benchmarks.stack import MAIN, Stack, stack
from tests.kit.benchmarks.table import Row, Value
from tests.kit.benchmarks.workers import PROBE

LOOK_S = 0.01
SETTLED_AFTER_S = 2.0
AT_ONCE = 4
"""Bodies that run when the workers are killed."""
JOBS = 24
"""These and those that wait behind them."""
BACK_WITHIN_S = 30.0
ALONE_FOR_S = 5.0
"""A stack has the machine for itself so long as it comes back; what takes longer than that mostly waits."""

_the_machine = threading.Lock()


def _take_idle(run: Run) -> Mapping[str, Value]:
    settled_after_s, measured_s = (0.5, 1) if run.is_quick else (15, 60)
    with stack(run) as made:
        made.start()
        time.sleep(settled_after_s)
        before_s, started = machine.cpu_s(made.pids()), time.monotonic()
        time.sleep(measured_s)
        used_s = machine.cpu_s(made.pids()) - before_s
        taken_s = time.monotonic() - started
        made.ask("GET", "/up")
        made.enqueue(0)
        made.wait_for_marks(2)  # it was idle, not dead
    return {"cpu_s_a_minute": used_s / taken_s * 60}


def _take_memory(run: Run) -> Mapping[str, Value]:
    pages, jobs, settled_after_s = (2, 5, 0.5) if run.is_quick else (20, 100, SETTLED_AFTER_S)
    with stack(run) as made:
        made.start()
        for _ in range(pages):
            made.ask("GET", "/" if made.is_postroom else "/up")  # the rivals' site has no other page
        for n in range(jobs):
            made.enqueue(n)
        made.wait_for_marks(jobs + 1)
        time.sleep(settled_after_s)
        return {"pss_mb": machine.pss_mb(made.pids())}


def _take_cold_start(run: Run) -> Mapping[str, Value]:
    with stack(run, MAIN) as made:
        made.launch()
        made.wait_until_up()  # the disk is warm now, the database made
        made.stop()
        started = time.monotonic()
        made.launch()
        made.wait_until_up()
        return {"s": time.monotonic() - started}


def _take_recovery(run: Run) -> Mapping[str, Value]:
    within_s = 3.0 if run.is_quick else BACK_WITHIN_S
    hold = run.folder / "hold"
    with stack(run, BENCHMARK_HOLD=str(hold)) as made:
        with _the_machine:
            made.start()
            hold.touch()
            for n in range(JOBS):
                made.enqueue(n)
            made.wait_for_marks(1 + AT_ONCE)
            time.sleep(0.3)
            killed = {n for n, _ in read_marks(made.marks)} - {PROBE}
            assert len(killed) == AT_ONCE, f"{len(killed)} jobs ran when they were to be killed"
            made.kill_workers()
            hold.unlink()
            restarted_ns = time.monotonic_ns()
            made.launch_workers()
            _wait_until_back(made, killed, restarted_ns, 1, min(ALONE_FOR_S, within_s))
        _wait_until_back(made, set(range(JOBS)), restarted_ns, JOBS, within_s)
        return came_back(read_marks(made.marks), killed, restarted_ns)


def came_back(marks: list[tuple[int, int]], killed: set[int], restarted_ns: int) -> dict[str, float]:
    """Say when the first of the killed jobs ran again, and how many of all jobs did not run since the restart."""
    back = {n: at_ns for n, at_ns in reversed(marks) if at_ns > restarted_ns}
    first_ns = min((back[n] for n in killed if n in back), default=math.inf)
    return {"first_s": (first_ns - restarted_ns) / 1e9, "lost": float(len(set(range(JOBS)) - set(back)))}


def _wait_until_back(made: Stack, jobs: set[int], since_ns: int, count: int, within_s: float) -> None:
    """Return when so many of the jobs have begun since then, or when the time is up."""
    while time.monotonic_ns() < since_ns + within_s * 1e9:
        began = {n for n, at_ns in read_marks(made.marks) if at_ns > since_ns}
        if len(began & jobs) >= count:
            return
        time.sleep(LOOK_S)


SITE_MEASURES = [
    Measure("idle", (Row("idle stack, CPU s a minute", "cpu_s_a_minute"),), _take_idle, together=True),
    # Not together: what is shared with others counts in part, and all of them share Python.
    Measure("memory", (Row("idle stack, memory, MB PSS", "pss_mb"),), _take_memory),
    Measure(
        "cold_start",
        (Row("cold start, s until /up is 200 (workers start beside it)", "s"),),
        _take_cold_start,
    ),
    Measure(
        "web",
        (
            Row("page, idle, p50 ms", "idle_ms", 50),
            Row("page, idle, p99 ms", "idle_ms", 99),
            Row("page p99 beside no-op tasks, times idle", "no_op"),
            Row("page p99 beside I/O tasks, times idle", "io"),
            Row("page p99 beside CPU tasks in threads, times idle", "cpu"),
            Row("page p99 beside CPU tasks in processes, times idle", "cpu_process"),
        ),
        take_web,
        lambda contestant: contestant.is_postroom,
    ),
    Measure(
        "recovery",
        (
            Row(f"kill -9, s until a killed job runs again (never: not in {BACK_WITHIN_S:g} s)", "first_s"),
            Row(f"kill -9, of {JOBS} jobs lost for {BACK_WITHIN_S:g} s or ever", "lost"),
        ),
        _take_recovery,
        together=True,
    ),
]
