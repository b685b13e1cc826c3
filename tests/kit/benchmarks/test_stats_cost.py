"""What the numbers cost with a hundred thousand jobs of each kind in the table, and a day of minutes (P4)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kit.engine_rig import Rig, rig_in
from tests.kit.queue_rig import count_anew

pytestmark = pytest.mark.slow

EACH = 100_000
TASKS = 10
ROUNDS = 20

JOBS = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO postroom_jobs (uuid, task, payload, state, enqueued_at, ready_at, finished_at, run_at, error)
SELECT :state || ' ' || i, 'task ' || (i % :tasks), zeroblob(300), :state, :now - 60, :now - 60,
    CASE WHEN :state IN ('done', 'failed') THEN :now - 30 END, CASE WHEN :state = 'scheduled' THEN :now + 60 END,
    CASE WHEN :state = 'failed' THEN 'ValueError: no such thing' END FROM n
"""
MINUTES = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500),
    t (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM t WHERE i < :tasks - 1)
INSERT INTO postroom_past_minutes SELECT :minute - n.i, 'task ' || t.i, 9, 8, 1, 0, 5000, 9000, 3000 FROM n, t
"""


def fill(rig: Rig) -> None:
    """Add jobs of each kind, an instance, and the numbers of 25 hours."""
    now = rig.clock()
    for state in ("done", "failed", "ready", "scheduled"):
        values = {"state": state, "count": EACH, "tasks": TASKS, "now": now}
        rig.database.write(lambda connection, values=values: connection.execute(JOBS, values))
    rig.database.write(count_anew)
    values = {"minute": int(now // 60), "tasks": TASKS}
    rig.database.write(lambda connection: connection.execute(MINUTES, values))
    instance = ("i1", 1, 4, "running", 1, now)
    rig.database.write(
        lambda c: c.execute("INSERT INTO postroom_instances VALUES (?, ?, ?, ?, ?, ?)", instance)
    )


def median_ms(look: Callable[[], object]) -> float:
    """Return the median time of some looks."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        look()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


def test_the_numbers_of_a_full_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with rig_in(tmp_path, max_pending_jobs=10**9) as rig:
        fill(rig)
        huey = rig.huey
        looks: dict[str, Callable[[], object]] = {
            "stats": huey.stats,
            "stats of a day": lambda: huey.stats(24 * 60),
            "overview": huey.overview,
            "health": huey.health,
            "a page of the shelf": lambda: huey.list_jobs("failed"),
            "a page of a task's": lambda: huey.list_jobs("failed", "task 3"),
            "a search in vain": lambda: huey.list_jobs("failed", q="nowhere"),
        }
        took = {name: median_ms(look) for name, look in looks.items()}
        (last,) = huey.stats(1)["minutes"]
        waiting = sum(task["ready"] for task in huey.stats()["tasks"])
    with capsys.disabled():
        print(f"\n{EACH} jobs each done, failed, ready and scheduled:")
        print("\n".join(f"{name:>20}: {ms:6.2f} ms" for name, ms in took.items()))
    assert (waiting, last["done"]) == (EACH, 0)
