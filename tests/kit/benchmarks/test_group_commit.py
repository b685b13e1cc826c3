"""What sharing commits gains: eight threads that enqueue against one, on a fast disk and on a slow one (P7)."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

import pytest

from app.kit.database.writer import Writer
from tests.kit.engine_rig import Rig

pytestmark = pytest.mark.slow

THREADS = 8
SECONDS = 1.0
ROUNDS = 3


@pytest.mark.parametrize("sync_ms", [0.1, 5.0])
def test_eight_threads_enqueue_faster_than_one(
    sync_ms: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = Writer._commit

    def slow_commit(writer: Writer) -> None:
        commit(writer)
        time.sleep(sync_ms / 1000)  # as long as the disk of the test's choice takes

    monkeypatch.setattr(Writer, "_commit", slow_commit)
    rig = Rig(tmp_path, max_pending_jobs=10**9)

    @rig.huey.task()
    def nothing() -> None: ...

    nothing()  # opens the file
    rounds = [(jobs_per_s(nothing, 1), jobs_per_s(nothing, THREADS)) for _ in range(ROUNDS)]
    enqueued = rig.huey.overview()["counts"]["ready"]
    commits = rig.database.writer.commits
    rig.close()
    alone, together = (statistics.median(side) for side in zip(*rounds, strict=True))
    with capsys.disabled():
        print(
            f"\nsync {sync_ms} ms: 1 thread {alone:.0f}/s, {THREADS} threads {together:.0f}/s, "
            f"{together / alone:.1f}x, {enqueued / commits:.1f} jobs a commit"
        )
    assert enqueued > commits > 0  # some were shared


def jobs_per_s(task: object, threads: int) -> float:
    """Enqueue from several threads for a while; return how many jobs a second were accepted."""
    counts = [0] * threads
    until = time.monotonic() + SECONDS

    def enqueue(number: int) -> None:
        while time.monotonic() < until:
            task()  # type: ignore[operator]
            counts[number] += 1

    workers = [threading.Thread(target=enqueue, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts) / SECONDS
