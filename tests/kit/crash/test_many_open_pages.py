"""200 open pages wait for one job: they take half of the web threads, and everybody else is served."""

from __future__ import annotations

import html
import re
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.kit.site_process import SITE_UNDER_TEST, Site

pytestmark = pytest.mark.slow

PAGES = 200
PATIENCE_S = 120.0
WEB_THREADS = 8
LIVE_URL = re.compile(r'data-live="([^"]+)"')
TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')


class OpenPage(threading.Thread):
    """A page that asks for news as live.js does: again and again, later when it is told so."""

    def __init__(self, site: Site, live_url: str, answered: threading.Semaphore) -> None:
        super().__init__(daemon=True)
        self.site, self.live_url, self.answered = site, live_url, answered
        self.told_to_wait_s: list[int] = []
        self.last = ""
        self.statuses: list[int] = []

    def run(self) -> None:
        """Ask until the answer says that it is the last."""
        while self.live_url:
            connection = HTTPConnection("127.0.0.1", self.site.port, timeout=PATIENCE_S)
            connection.request("GET", self.live_url)
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            if not self.statuses:
                self.answered.release()
            self.statuses.append(answer.status)
            if answer.status == 200:
                found, self.last = LIVE_URL.search(text), text
                self.live_url = html.unescape(found[1]) if found else ""
            elif retry_after := answer.headers["Retry-After"]:
                self.told_to_wait_s.append(int(retry_after))
                time.sleep(int(retry_after))


@pytest.fixture
def site(tmp_path: Path, notes: Path) -> Iterator[Site]:
    """The site under test with so many web threads, which limits nobody's number of requests."""
    with Site(
        tmp_path / "data",
        SITE_UNDER_TEST,
        NOTES=str(notes),
        WEB_THREADS=str(WEB_THREADS),
        RATELIMIT_ENABLED="0",
    ) as site:
        yield site


def test_200_open_pages_do_not_stop_the_site(site: Site) -> None:
    job = site.post("/api/test/pick-up", {"delay_s": 3600})[1]["id"]
    (live_url,) = LIVE_URL.findall(site.get(f"/jobs/{job}")[1])
    answered = threading.Semaphore(0)
    pages = [OpenPage(site, html.unescape(live_url), answered) for _ in range(PAGES)]
    for page in pages:
        page.start()

    # All but those who found a seat are answered at once, though nothing has happened to the job.
    for _ in range(PAGES - WEB_THREADS // 2):
        assert answered.acquire(timeout=PATIENCE_S), "more than half of the web threads wait"

    latencies_ms: dict[str, list[float]] = {"/up": [], "/": [], "a job": []}
    while sum(len(page.statuses) for page in pages) < 2 * PAGES:
        for path in ("/up", "/"):
            started = time.monotonic()
            assert site.get(path)[0] == 200
            latencies_ms[path].append(1000 * (time.monotonic() - started))
        started = time.monotonic()
        other = site.post("/api/test/pick-up", {})[1]["id"]
        while site.get(f"/api/jobs/{other}")[1]["state"] != "done":
            pass
        latencies_ms["a job"].append(1000 * (time.monotonic() - started))
    assert [page.last for page in pages] == [""] * PAGES, "a page had news though nothing has happened"

    cancel(site, job)
    for page in pages:
        page.join(PATIENCE_S)
    assert [page for page in pages if page.is_alive()] == []
    assert all('data-state="cancelled"' in page.last for page in pages)
    assert {status for page in pages for status in page.statuses} <= {200, 204}
    told = [seconds for page in pages for seconds in page.told_to_wait_s]
    assert min(told) >= 1
    assert max(told) >= 5, "they all come again at the same time"

    print()
    for what, times_ms in latencies_ms.items():
        times_ms.sort()
        middle_ms, worst_ms = times_ms[len(times_ms) // 2], times_ms[-1]
        print(f"{what} with {PAGES} open pages: median {middle_ms:.1f} ms, worst {worst_ms:.0f} ms")
    print(f"{len(told)} times a page was told to ask later, by {min(told)} to {max(told)} s")


def cancel(site: Site, job: str) -> None:
    """Cancel a job as its operator."""
    token = TOKEN.findall(site.get(f"/jobs/{job}", as_operator=True)[1])[0]
    connection = HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE_S)
    headers = {
        "Authorization": f"Bearer {site.environ['ADMIN_TOKEN']}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    connection.request("POST", f"/jobs/{job}/cancel", f"csrf_token={token}", headers)
    assert connection.getresponse().status == 303
    connection.close()
