"""What an enqueue and a claim cost when very many jobs wait, against a thousand (P7)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from app.kit.database.file import Database
from app.kit.engine.api.durable import DurableHuey
from app.kit.engine.jobs import enqueue as arrivals
from app.settings import Settings
from tests.kit.benchmarks.measures import FailedError, Measure, Run
from tests.kit.benchmarks.table import Row, Value

DEPTHS = {"few": 1_000, "many": 100_000, "most": 1_000_000}
QUICK_DEPTHS = {"few": 100, "many": 1_000, "most": 10_000}
MAX_PENDING = 10_000_000
"""More than its 100 000: for this measure only."""
PRAGMA_SYNCHRONOUS = {"FULL": 2, "NORMAL": 1}

# As many copies of a job as there are to be; each has an id of its own, of a millisecond of its own before now.
FILL = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count),
ids (id) AS (
    SELECT substr(digits, 1, 8) || '-' || substr(digits, 9) || substr(:uuid, 14)
    FROM (SELECT printf('%012x', :ms - :count + n - 1) AS digits FROM numbers)
)
INSERT INTO postroom_jobs (uuid, task, payload, priority, timeout_s, state, run_at, enqueued_at, ready_at)
SELECT id, :task, CAST(replace(:payload, :uuid, id) AS BLOB), :priority, :timeout_s, 'ready', NULL, :at, :at
FROM ids
"""


class Crowd:
    """A queue in a file of its own in which so many jobs wait."""

    def __init__(self, folder: Path, synchronous: str, depth: int) -> None:
        settings = Settings(data_dir=folder, sqlite_synchronous=synchronous, max_pending_jobs=MAX_PENDING)
        self.huey = DurableHuey("crowd", store_intermediate_errors=False)
        self.database = Database(
            settings.database_path, synchronous=synchronous, migrations=[self.huey.migrations]
        )
        self.huey.attach(self.database, settings, nullcontext)
        self.enqueue: Callable[[int], Any] = self.huey.task()(note)
        self.depth = depth
        self._fill()

    def claim_and_end(self) -> float:
        """Take a job as a worker does, run it and end it; return what that took without the body.

        Units: seconds.
        Raises: FailedError.
        """
        rules = self.huey.rules()
        started = time.perf_counter()
        claimed = self.huey.claim("by-hand", "Worker-1", rules)
        taken_s = time.perf_counter() - started
        if len(claimed) != 1:
            raise FailedError(f"{self.depth} jobs wait, {len(claimed)} were claimed")
        ended = self.huey.run(claimed)
        started = time.perf_counter()
        self.huey.finish(ended, None, rules)
        return taken_s + time.perf_counter() - started

    def check(self, synchronous: str, ended: int) -> None:
        """See that all jobs wait that should, that so many were done, and that nothing was switched off.

        Raises: FailedError.
        """
        with self.database.transaction() as connection:
            found = (
                connection.execute("PRAGMA synchronous").fetchone()[0],
                connection.execute("PRAGMA journal_mode").fetchone()[0],
                connection.execute("SELECT COUNT(*) FROM postroom_jobs WHERE state = 'ready'").fetchone()[0],
                connection.execute("SELECT COUNT(*) FROM postroom_jobs WHERE state = 'done'").fetchone()[0],
                connection.execute("SELECT SUM(ready) FROM postroom_task_counts").fetchone()[0],
            )
        expected = (PRAGMA_SYNCHRONOUS[synchronous], "wal", self.depth, ended, self.depth)
        if found != expected:
            raise FailedError(
                f"expected synchronous, journal, waiting, done, counted {expected}, found {found}"
            )

    def _fill(self) -> None:
        """Enqueue one job, and write the others beside it just as it is."""
        self.enqueue(0)
        job = dict(self.database.read("SELECT * FROM postroom_jobs")[0])
        values = {name: job[name] for name in ("uuid", "task", "payload", "priority", "timeout_s")}
        values |= {"at": job["enqueued_at"], "ms": int(job["uuid"].replace("-", "")[:12], 16)}
        values["count"] = self.depth - 1
        with self.database.transaction() as connection:
            connection.execute(FILL, values)
            connection.execute(
                arrivals.COUNT, (job["task"], 0, values["count"], int(job["enqueued_at"] // 60))
            )
        self.database.writer.checkpoint()  # all of it is in the file, and on the disk, before anything is timed


def note(n: int) -> int:
    """Do nothing, and return n."""
    return n


def _take_growth(run: Run) -> Mapping[str, Value]:
    depths, rounds, in_advance = (QUICK_DEPTHS, 10, 1) if run.is_quick else (DEPTHS, 500, 50)
    synchronous = run.contestant.environ["BENCHMARK_SYNCHRONOUS"]
    with ExitStack() as end:
        crowds = {}
        for name, depth in depths.items():
            crowds[name] = crowd = Crowd(run.folder / name, synchronous, depth)
            end.callback(crowd.database.close)
            crowd.check(synchronous, ended=0)
        _time(crowds, in_advance)  # caches fill
        taken_us = _time(crowds, rounds)
        for crowd in crowds.values():
            crowd.check(synchronous, ended=in_advance + rounds)
    return {f"{verb}_few_us": taken_us[verb, "few"] for verb in ("enqueue", "claim")} | {
        f"{verb}_{name}": taken_us[verb, name] / taken_us[verb, "few"]
        for verb in ("enqueue", "claim")
        for name in ("many", "most")
    }


def _time(crowds: Mapping[str, Crowd], rounds: int) -> dict[tuple[str, str], float]:
    """Return the median time of each verb with each crowd; they take turns, so that noise hits all alike.

    Units: microseconds.
    """
    taken_s: dict[tuple[str, str], list[float]] = {}
    for n in range(rounds):
        for name, crowd in crowds.items():
            started = time.perf_counter()
            crowd.enqueue(n)
            taken_s.setdefault(("enqueue", name), []).append(time.perf_counter() - started)
            taken_s.setdefault(("claim", name), []).append(crowd.claim_and_end())
    return {key: statistics.median(taken) * 1e6 for key, taken in taken_s.items()}


GROWTH_MEASURES = [
    Measure(
        "growth",
        (
            Row("enqueue, 1 000 waiting, p50 us", "enqueue_few_us"),
            Row("enqueue, 100 000 waiting, times that", "enqueue_many"),
            Row("enqueue, 1 000 000 waiting, times that", "enqueue_most"),
            Row("claim and end, 1 000 waiting, p50 us", "claim_few_us"),
            Row("claim and end, 100 000 waiting, times that", "claim_many"),
            Row("claim and end, 1 000 000 waiting, times that", "claim_most"),
        ),
        _take_growth,
        lambda contestant: contestant.is_postroom,
    )
]
