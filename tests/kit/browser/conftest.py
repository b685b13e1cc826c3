"""Fixtures of the browser tests: Chromium, the site it looks at, and pages that report all that goes wrong."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.browser.watched_pages import Visitor
from tests.kit.site_process import GUNICORN, Site

SITE_FOR_BROWSERS = [*GUNICORN, "tests.kit.browser.site_for_browsers:app"]
"""The site with tasks that wait for the test's word, and a task that fails."""
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")

NewVisitor = Callable[..., Visitor]
"""What the fixture `new_visitor` gives."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder as slow."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """One Chromium, as the system has it: none is ever downloaded."""
    # It goes before the next folder's tests: while it runs, this thread counts as being in an event loop.
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found is None:
        pytest.skip("needs Chromium; on Debian: apt install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: test --all installs it")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site, started once for all tests that can share it."""
    with make_site(tmp_path_factory.mktemp("site")) as site:
        yield site


def make_site(folder: Path, **environ: str) -> Site:
    """Return a site, not started yet; its port is chosen here, for the links in its mails hold it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    return Site(folder / "data", SITE_FOR_BROWSERS, PORT=str(port), RATELIMIT_ENABLED="0", **environ)


@contextmanager
def held_alerts(site: Site, at: int) -> Iterator[None]:
    """Let jobs that tell the readers of a book wait when so many are told, until the end of the block."""
    assert site.post("/api/test/hold", {"at": at})[0] == 200
    try:
        yield
    finally:
        site.post("/api/test/go-on", {})


@pytest.fixture
def new_visitor(chromium: Any, site: Site) -> Iterator[NewVisitor]:
    """A function that opens a window of its own: `new_visitor(java_script_enabled=False)`.

    Whatever went wrong on any page of it fails the test at its end.
    """
    visitors: list[Visitor] = []

    def new_visitor(at: Site = site, **options: Any) -> Visitor:
        visitors.append(Visitor(chromium.new_context(**options), at))
        return visitors[-1]

    yield new_visitor
    troubles = [line for visitor in visitors for line in visitor.troubles]
    for visitor in visitors:
        visitor.close()
    assert not troubles, "\n".join(troubles)


@pytest.fixture
def visitor(new_visitor: NewVisitor) -> Visitor:
    """A window of a visitor who is nobody in particular."""
    return new_visitor()
