"""What a claim costs behind a paused crowd, and what a million jobs leave behind (P4, P7)."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.kit.engine.jobs import enqueue as arrivals, job as jobs
from app.kit.engine.jobs.claim import Rules
from app.kit.engine.jobs.enqueue import NewJob
from app.kit.engine.jobs.job import Ending
from tests.kit.engine_rig import Rig, rig_in, until

pytestmark = pytest.mark.slow

ROUNDS = 500
CHUNK = 10_000
PAUSED = 100_000
THROUGH = int(os.environ.get("BENCHMARK_JOBS", "100000"))
"""The figures of a million are had with BENCHMARK_JOBS=1000000; it takes some minutes."""
MOST_BYTES = 20_000_000
MOST_GROWTH_BYTES = 64_000_000


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A queue that takes many jobs and forgets them soon."""
    with rig_in(tmp_path, max_pending_jobs=10**9, done_ttl_s=1, result_ttl_s=1) as rig:
        yield rig


def fill(rig: Rig, count: int, task: str = "plain") -> None:
    """Insert jobs in chunks, as many enqueues would."""
    for first in range(0, count, CHUNK):
        many = range(first, min(first + CHUNK, count))
        new = [NewJob(f"{task} {count} {n}", task, b'{"$message": {}}') for n in many]
        rig.database.write(lambda connection, new=new: arrivals.insert(connection, new, 1.0))


def median_us(work: Callable[[], object], after: Callable[[], object] = lambda: None) -> float:
    """Return the median time of some hundred calls; what is done after each is not counted."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
        after()
    return statistics.median(taken) * 1e6


def claim_us(rig: Rig, rules: Rules | None = None) -> float:
    """Return what a claim costs; each claimed job ends before the next is claimed."""
    claimed: list[Any] = []
    rules = rules or Rules()

    def finish() -> None:
        job = claimed.pop()
        assert rig.database.write(
            lambda connection: jobs.finish(connection, [(job, Ending("done"))], 1.0)
        ) == [True]

    return median_us(lambda: claimed.extend(rig.huey.claim("i1", "Worker-1", rules)), finish)


def test_a_claim_behind_a_paused_crowd(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    fill(rig, 5 * ROUNDS)
    claim_us(rig)  # once in advance: caches fill
    plain = claim_us(rig)
    limited = claim_us(rig, Rules(limits={"other": 2}))
    fill(rig, PAUSED, "paused")
    rig.database.write(lambda c: c.execute("UPDATE postroom_jobs SET priority = 9 WHERE task = 'paused'"))
    rig.huey.pause("paused")
    paused = claim_us(rig)
    with capsys.disabled():
        print(
            f"\nclaim: plain {plain:.1f} us, with a limit somewhere {limited / plain:.2f}x, "
            f"with {PAUSED} paused jobs at the head {paused / plain:.2f}x"
        )


def rss_bytes() -> int:
    """Return the memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def file_bytes(rig: Rig) -> int:
    """Return the size of the database; the WAL beside it has a limit of its own."""
    return rig.settings.database_path.stat().st_size


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux: reads /proc")
def test_a_million_jobs_leave_neither_memory_nor_file_behind(
    rig: Rig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kit.engine.consumer.clock.UPKEEP_S", 0.1)
    monkeypatch.setattr("logging.root.manager.disable", 50)  # pytest keeps what is logged
    nothing = rig.huey.batch_task(every_s=0, name="nothing")(lambda items: None)
    sizes, started = [], time.monotonic()
    with rig.consuming(workers=2):
        for chunk in range(THROUGH // CHUNK):
            nothing.map(range(CHUNK))
            until(lambda: rig.huey.overview()["counts"]["ready"] < CHUNK, "room")
            if chunk % 10 == 9:
                gc.collect()
                sizes.append((rss_bytes(), file_bytes(rig)))
        assert rig.huey.wait_until_idle(60)
        took_s = time.monotonic() - started
        until(lambda: not rig.states(), "an empty table")
        until(lambda: file_bytes(rig) < MOST_BYTES, "a small file")
        wal_bytes = rig.settings.database_path.with_name("postroom.db-wal").stat().st_size
    growth = sizes[-1][0] - sizes[0][0]
    with capsys.disabled():
        print(
            f"\n{THROUGH} jobs in {took_s:.0f} s: memory {sizes[0][0] / 1e6:.0f} MB after the first tenth, "
            f"{growth / 1e6:+.1f} MB at the end; file {max(size for _, size in sizes) / 1e6:.0f} MB at most, "
            f"{file_bytes(rig) / 1e6:.1f} MB when idle; most in the WAL {wal_bytes / 1e6:.0f} MB"
        )
    assert growth < MOST_GROWTH_BYTES
