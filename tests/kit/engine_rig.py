"""A queue of a test's own: a database in its folder, a Huey, a clock that can be set, the real consumer."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from app.kit.database.file import Database
from app.kit.engine.api.durable import DurableHuey
from app.kit.engine.consumer.consumer import EmbeddedConsumer
from app.kit.engine.consumer.run import Ended
from app.kit.engine.jobs import job as jobs
from app.kit.engine.jobs.job import ClaimedJob
from app.settings import Settings

PATIENCE_S = 20.0
"""How long a test waits for what is sure to come, before it says that it did not."""


class SettableClock:
    """The time of day, moved by as much as a test likes."""

    def __init__(self) -> None:
        self.offset_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset_s

    def set(self, seconds: float) -> None:
        """Set the clock to a moment (unix seconds)."""
        self.offset_s = seconds - time.time()

    def advance(self, seconds: float) -> None:
        """Move the clock; whoever sleeps by it has to be woken."""
        self.offset_s += seconds


class Rig:
    """A queue and all it needs, in a folder."""

    def __init__(self, folder: Path, wait_s: float = 10.0, **settings: Any) -> None:
        self.folder = folder
        self.clock = SettableClock()
        self.settings = Settings(data_dir=folder, **settings)
        self.huey = DurableHuey("rig", clock=self.clock, store_intermediate_errors=False)
        self.database = Database(
            self.settings.database_path,
            synchronous="NORMAL",
            migrations=[self.huey.migrations],
            wait_s=wait_s,
        )
        self.huey.attach(self.database, self.settings, nullcontext)
        self._numbers = iter(range(1, 1_000_000))

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    @contextmanager
    def consuming(self, workers: int = 2, **options: Any) -> Iterator[EmbeddedConsumer]:
        """Run the real consumer while the block runs."""
        consumer = self.huey.create_consumer(workers=workers, **options)
        consumer.start(always=True)
        try:
            yield consumer
        finally:
            consumer.stop()

    def run_all(self, workers: int = 2) -> None:
        """Run the real consumer until nothing is due, ready or running."""
        self.promote()
        with self.consuming(workers):
            assert self.huey.wait_until_idle(PATIENCE_S), self.states()

    def claim(self, instance: str = "by-hand") -> list[ClaimedJob]:
        """Claim as a worker would."""
        return self.huey.claim(instance, "Worker-1", self.huey.rules())

    def finish(self, ended: list[Ended], claim_for: tuple[str, str] | None = None) -> list[ClaimedJob]:
        """Finish as a worker would, claiming the next for (instance, worker)."""
        return self.huey.finish(ended, claim_for, self.huey.rules())

    def run_next(self) -> None:
        """Claim, run and finish one job (or batch) on this thread."""
        claimed = self.claim()
        assert claimed, f"nothing is ready: {self.states()}"
        self.finish(self.huey.run(claimed))

    def promote(self) -> None:
        """Make what is due ready, as the clock would."""
        self.database.write(lambda connection: jobs.promote(connection, self.clock()))

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query as tuples."""
        return [tuple(row) for row in self.database.read(sql, parameters)]

    def row(self, uuid: str) -> sqlite3.Row:
        """Return a job's row."""
        row = self.database.read_one("SELECT * FROM postroom_jobs WHERE uuid = ?", (uuid,))
        assert row is not None, uuid
        return row

    def states(self) -> dict[str, int]:
        """Count the jobs by state, from the rows themselves."""
        return dict(Counter(row[0] for row in self.rows("SELECT state FROM postroom_jobs")))

    @contextmanager
    def commits(self) -> Iterator[Callable[[], int]]:
        """Give a function that says how many commits there were since the block began."""
        before = self.database.writer.commits
        yield lambda: self.database.writer.commits - before


@contextmanager
def rig_in(folder: Path, **options: Any) -> Iterator[Rig]:
    """Make a rig and close it."""
    rig = Rig(folder, **options)
    try:
        yield rig
    finally:
        rig.close()


def put(database: Database, number: int) -> None:
    """Write a number into a table of numbers."""
    database.write(lambda connection: connection.execute("INSERT INTO numbers VALUES (?)", (number,)))


def numbers(database: Database) -> list[int]:
    """Return a table's numbers, in the order they came."""
    return [row["n"] for row in database.read("SELECT n FROM numbers ORDER BY rowid")]


def until(is_so: Callable[[], object], what: str = "it") -> None:
    """Return once something is so; for what no event tells."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, f"{what} did not come about in {PATIENCE_S:g} s"
        time.sleep(0.001)


def sleeps_for(rig: Rig, uuid: str) -> bool:
    """Say whether a thread sleeps until it is called at this job's end."""
    events = rig.huey.end_calls._waiting.get(uuid, ())
    return any(event._cond._waiters for event in events)  # type: ignore[attr-defined]


class Threads:
    """Threads that are joined at the end, and whose errors are kept."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *raised: object) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads), "a thread never came back"

    def start(self, work: Callable[[], object]) -> threading.Thread:
        """Run `work` in a thread; what it raises goes to `errors`."""

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread
