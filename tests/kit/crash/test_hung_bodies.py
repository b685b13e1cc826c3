"""Bodies that never return: told, survived by a process that replaces itself, shelved in the end (P2, P6)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.crash.patience import ask_until, finished
from tests.kit.site_process import SITE_UNDER_TEST, Site

pytestmark = pytest.mark.slow

THREADS, OTHERS = 4, 20
SENTENCE = "All 4 workers are overdue: their bodies hang. The process replaces itself."


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """The file that keeps the process from replacing itself while it is there."""
    path = tmp_path / "hold"
    path.touch()
    return path


@pytest.fixture
def site(tmp_path: Path, notes: Path, hold: Path) -> Iterator[Site]:
    """The site under test, which can be held back from replacing its process."""
    environ = {"NOTES": str(notes), "HOLD": str(hold), "APP_ENV": "production"}
    with Site(tmp_path / "data", SITE_UNDER_TEST, **environ) as site:
        yield site


def pids(site: Site) -> set[int]:
    return {instance["pid"] for instance in site.get("/api/queue", as_operator=True)[1]["instances"]}


def test_hung_bodies_are_told_the_process_replaces_itself_and_the_others_go_on(
    site: Site, hold: Path
) -> None:
    before = pids(site)
    jobs = site.post("/api/test/hang", {"hanging": THREADS, "others": OTHERS})[1]
    not_ready = ask_until(site, "/ready", lambda status, _: status == 503, within_s=20)
    assert not_ready["reasons"] == [SENTENCE]
    queue = site.get("/api/queue", as_operator=True)[1]
    assert [worker["overdue"] for worker in queue["workers"]] == [True] * THREADS
    assert queue["counts"]["ready"] == OTHERS

    hold.unlink()
    ask_until(site, "/api/queue", lambda _, queue: queue["counts"]["done"] == OTHERS, within_s=30)
    seen = [site.get(f"/api/jobs/{uuid}", as_operator=True)[1] for uuid in jobs["hung"]]
    assert {(job["state"], job["deaths"]) for job in seen} <= {("scheduled", 1), ("ready", 1), ("running", 1)}
    assert not before & pids(site)

    ask_until(site, "/api/queue", finished, within_s=120)
    seen = [site.get(f"/api/jobs/{uuid}", as_operator=True)[1] for uuid in jobs["hung"]]
    assert [(job["state"], job["deaths"], job["error"]["type"]) for job in seen] == [
        ("failed", 3, "ProcessDiedError")
    ] * THREADS
    assert site.get("/ready") == (200, {"ready": True, "reasons": []})


def test_a_hung_body_leaves_the_other_threads_to_the_others(site: Site) -> None:
    before = pids(site)
    jobs = site.post("/api/test/hang", {"hanging": THREADS - 1, "others": OTHERS})[1]
    ask_until(site, "/api/queue", lambda _, queue: queue["counts"]["done"] == OTHERS, within_s=20)
    assert {site.get(f"/api/jobs/{uuid}")[1]["state"] for uuid in jobs["hung"]} == {"running"}
    assert (pids(site), site.get("/ready")[0]) == (before, 200)
