"""The real server killed again and again at random moments: no job lost, twice only what ran at a kill (P1, P2).

RANDOM_KILL_JOBS and RANDOM_KILLS make it longer (20000 and 200, say), RANDOM_KILL_SEED repeats a run.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections import Counter
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.kit.crash_rig import CrashSite, Remains, until

pytestmark = pytest.mark.slow

JOBS = int(os.environ.get("RANDOM_KILL_JOBS", "2000"))
KILLS = int(os.environ.get("RANDOM_KILLS", "20"))
SEED = int(os.environ.get("RANDOM_KILL_SEED", str(int(time.time()))))
BODY_S = 0.01
LIVES_S = (0.1, 0.9)
"""A start takes about 0.4 s: some kills come before the site serves, some while it works."""


class Batches:
    """Jobs of one commit each: surely accepted, or sent when the site died, which means all of them or none."""

    def __init__(self) -> None:
        self.batches = [[f"{batch}-{number}" for number in range(JOBS // KILLS)] for batch in range(KILLS)]
        self.accepted: set[str] = set()
        self.unknown: list[list[str]] = []

    def send_one(self, site: CrashSite) -> None:
        """Enqueue the next batch; the site may die meanwhile."""
        batch = self.batches.pop()
        try:
            site.start_steps(batch, BODY_S)
        except ConnectionRefusedError:
            self.batches.append(batch)
        except (OSError, HTTPException):
            self.unknown.append(batch)
        else:
            self.accepted.update(batch)

    def settle(self, remains: Remains) -> None:
        """Find out from what is left which of the unknown were accepted."""
        for batch in self.unknown:
            found = set(batch) & set(remains.jobs)
            assert found in (set(), set(batch)), "half a commit"
            self.accepted.update(found)
            if not found:
                self.batches.append(batch)
        self.unknown = []


def live_and_die(site: CrashSite, batches: Batches, seconds: float) -> Remains:
    """Start the site, give it work, kill all of it after a while, wherever it is."""
    killer = threading.Timer(seconds, site.kill)
    killer.start()
    with contextlib.suppress(AssertionError, OSError, HTTPException):
        site.start(within_s=seconds + 0.5)
        if batches.batches:
            batches.send_one(site)
    killer.join()
    remains = site.wait_for_death()
    assert remains.integrity == "ok"
    batches.settle(remains)
    return remains


def test_random_kills_lose_no_job_and_repeat_only_what_ran(tmp_path: Path) -> None:
    print(f"{JOBS} jobs, {KILLS} kills, seed {SEED}")
    chance, batches, site = random.Random(SEED), Batches(), CrashSite(tmp_path, RESULT_TTL_S="86400")
    interrupted: Counter[str] = Counter()
    for _ in range(KILLS):
        interrupted.update(live_and_die(site, batches, chance.uniform(*LIVES_S)).ids("running"))
    with site:
        while batches.batches:
            batches.send_one(site)
        until(site.is_idle, "the end of every job", within_s=30 + JOBS / 50)
        states = dict(site.rows("SELECT uuid, state FROM postroom_jobs"))
        numbers = site.rows("SELECT SUM(enqueued), SUM(done + failed) FROM postroom_job_minutes")
        assert site.rows("PRAGMA integrity_check") == [("ok",)]
    starts, ends = site.notes.count("start"), site.notes.count("end")
    shelved = {uuid for uuid, state in states.items() if state == "failed"}
    twice = {uuid: count for uuid, count in starts.items() if count > 1}
    print(f"interrupted {len(interrupted)}, ran more than once {len(twice)}, shelved {len(shelved)}")
    assert len(batches.accepted) == JOBS // KILLS * KILLS
    assert set(states) == batches.accepted
    assert numbers == [(len(states), len(states))]  # nothing is counted that was not kept, or twice
    assert set(states.values()) <= {"done", "failed"}
    assert batches.accepted - shelved <= set(ends)
    assert all(interrupted[uuid] >= 3 for uuid in shelved)  # three deaths, and its reason in view
    assert all(count <= 1 + interrupted[uuid] for uuid, count in starts.items())
