"""How soon an idle site starts a job, and what it costs while nothing happens (P7)."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import pytest

from tests.kit.benchmarks import machine
from tests.kit.site_process import SITE_UNDER_TEST, Site

pytestmark = pytest.mark.slow

JOBS = 100
QUIET_S = 0.05
IDLE_S = 15


@pytest.mark.parametrize("delay_s", [0, 0.1], ids=["at-once", "scheduled"])
def test_pick_up_of_an_idle_site_over_http(
    delay_s: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Site(tmp_path, SITE_UNDER_TEST, APP_ENV="production") as site:
        late_ms = []
        for _ in range(JOBS):
            time.sleep(QUIET_S)  # the quiet is what is measured
            job = site.post("/api/test/pick-up", {"delay_s": delay_s})[1]["id"]
            late_ms.append(site.get(f"/api/jobs/{job}?wait=10")[1]["result"] * 1000)
    assert len(late_ms) == JOBS
    assert min(late_ms) >= 0
    quantiles = statistics.quantiles(late_ms, n=100)
    what = "a scheduled job starts late by" if delay_s else "idle pick-up over HTTP:"
    with capsys.disabled():
        print(f"\n{what} p50 {quantiles[49]:.2f} ms, p99 {quantiles[98]:.2f} ms of {JOBS}")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: reads /proc")
@pytest.mark.parametrize("environment", ["production", "development"])
def test_cpu_of_an_idle_site(tmp_path: Path, environment: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Site(tmp_path, APP_ENV=environment) as site:
        time.sleep(2)  # let the start settle
        assert site.process is not None
        processes = machine.process_tree(site.process.pid)
        before_s = machine.cpu_s(processes)
        time.sleep(IDLE_S)
        used_s = machine.cpu_s(processes) - before_s
        assert site.get("/up")[0] == 200
    with capsys.disabled():
        print(
            f"\nidle {environment} site: {used_s:.3f} CPU seconds in {IDLE_S} s, server and consumer together"
        )
