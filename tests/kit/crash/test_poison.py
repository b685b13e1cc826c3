"""A job whose body kills its process: it ends on the shelf, and every job beside it gets done (P2)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.crash.patience import ask_until, finished
from tests.kit.site_process import SITE_UNDER_TEST, Site

pytestmark = pytest.mark.slow

NEIGHBOURS = 12
MEMORY_BYTES = 1_500_000_000
LIMITED = (
    f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}));"
    " os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.fixture
def small_site(tmp_path: Path, notes: Path) -> Iterator[Site]:
    """The site under test with little memory."""
    command = [sys.executable, "-c", LIMITED, *SITE_UNDER_TEST]
    with Site(tmp_path / "data", command, NOTES=str(notes), APP_ENV="production") as site:
        yield site


def poison(site: Site, how: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Run a poison among its neighbours; return how it ended, and how they did."""
    ids = site.post("/api/test/poison", {"how": how, "neighbours": NEIGHBOURS})[1]["ids"]
    ask_until(site, "/api/queue", finished, within_s=60)
    jobs = [site.get(f"/api/jobs/{uuid}", as_operator=True)[1] for uuid in ids]
    (poisonous,) = [job for job in jobs if job["task"].endswith("poison")]
    return poisonous, [job for job in jobs if job is not poisonous]


@pytest.mark.parametrize("how", ["os._exit", "SIGKILL"])
def test_a_job_that_kills_its_process_ends_on_the_shelf_and_takes_nobody_with_it(
    site: Site, notes: Path, how: str
) -> None:
    job, neighbours = poison(site, how)
    assert (job["state"], job["deaths"], job["error"]["type"]) == ("failed", 3, "ProcessDiedError")
    assert [neighbour["state"] for neighbour in neighbours] == ["done"] * NEIGHBOURS
    assert max(neighbour["deaths"] for neighbour in neighbours) <= 2
    ends = Counter(line.split()[1] for line in notes.read_text().splitlines() if line.startswith("end "))
    assert set(ends) == {str(n) for n in range(NEIGHBOURS)}
    assert site.get("/ready") == (200, {"ready": True, "reasons": []})


def test_a_job_that_eats_all_memory_fails_and_takes_nobody_with_it(small_site: Site) -> None:
    job, neighbours = poison(small_site, "memory")
    assert job["state"] == "failed"
    assert job["error"]["type"] in ("MemoryError", "ProcessDiedError")
    assert [neighbour["state"] for neighbour in neighbours] == ["done"] * NEIGHBOURS
    assert small_site.get("/ready") == (200, {"ready": True, "reasons": []})


def test_a_poison_that_is_redriven_is_shelved_again(site: Site) -> None:
    for _ in range(2):
        job, _ = poison(site, "SIGKILL")
        assert (job["state"], job["deaths"]) == ("failed", 3)
    assert site.counts()["failed"] == 2
