"""A job's page moves while one looks at it: no reload, no jump, and no more of the web threads than half."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.browser.conftest import NewVisitor, make_site
from tests.kit.browser.watched_pages import Visitor
from tests.kit.site_process import Site

WINDOWS, TABS = 4, 5
"""A browser opens six connections to a site; all tabs here count as looked at, so all of them ask."""
MOST_SHIFT = 0.02
"""What moved, times how far, as shares of the window; up to 0.1 is commonly called good. Source: web.dev/cls"""


@pytest.fixture
def small_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of its own with four web threads: two may wait."""
    with make_site(tmp_path_factory.mktemp("small"), WEB_THREADS="4") as site:
        yield site


def start_walk(site: Site, total: int, note: str = "") -> str:
    """Start a job that takes a step at each `allow_steps`; return the path of its page."""
    status, started = site.post("/api/test/walk", {"total": total, "note": note})
    assert status == 200, started
    return f"/jobs/{started['id']}"


def allow_steps(site: Site, steps: int) -> None:
    assert site.post("/api/test/step", {"steps": steps})[0] == 200


def wait_for_step(page: Any, done: int, total: int) -> None:
    page.locator("#progress-text", has_text=f"{done} of {total}").wait_for()
    assert page.locator("#progress").evaluate("bar => [bar.value, bar.max]") == [done, total]


def wait_for_end(page: Any, state: str = "done") -> None:
    page.locator(f"#job-state[data-state={state}]").wait_for()


def test_progress_moves_to_the_end_without_a_reload_or_a_jump(site: Site, visitor: Visitor) -> None:
    page = visitor.visit(start_walk(site, 4, "step by step"))
    visitor.mark()
    for done in range(1, 4):
        allow_steps(site, 1)
        wait_for_step(page, done, 4)
        assert "step by step" in page.locator("#progress-text").inner_text()
    allow_steps(site, 1)
    wait_for_end(page)
    wait_for_step(page, 4, 4)
    assert page.locator("#job-result").inner_text().strip() == "step by step"
    assert visitor.has_mark(), "the page was loaded anew"
    assert page.evaluate("layoutShift") <= MOST_SHIFT


def test_what_has_the_focus_keeps_it_while_the_page_moves(site: Site, visitor: Visitor) -> None:
    page = visitor.visit(start_walk(site, 2))
    link = page.get_by_role("link", name="The same as JSON")
    link.focus()
    allow_steps(site, 1)
    wait_for_step(page, 1, 2)
    assert link.evaluate("link => link === document.activeElement")
    allow_steps(site, 1)
    wait_for_end(page)
    assert link.evaluate("link => link === document.activeElement")


def test_without_javascript_the_page_loads_itself_again_until_the_job_has_ended(
    site: Site, new_visitor: NewVisitor
) -> None:
    page = new_visitor(java_script_enabled=False).visit(start_walk(site, 2))
    allow_steps(site, 1)
    wait_for_step(page, 1, 2)
    allow_steps(site, 1)
    wait_for_end(page)
    assert page.locator("meta[http-equiv=refresh]").count() == 0


def test_twenty_open_pages_see_the_end_and_leave_threads_for_everybody_else(
    small_site: Site, new_visitor: NewVisitor
) -> None:
    url = f"http://localhost:{small_site.port}{start_walk(small_site, 1)}"
    turned_away: list[str] = []
    pages: list[Any] = []
    for _ in range(WINDOWS):
        context = new_visitor(at=small_site).context
        pages += [*context.pages, *(context.new_page() for _ in range(TABS - 1))]
    for page in pages:
        page.on("response", lambda answer: note_retry_after(answer, turned_away))
        page.goto(url, wait_until="commit")  # they load side by side
    for page in pages:
        page.wait_for_load_state()
        page.evaluate("window.mark = true")
    assert small_site.get("/up", timeout_s=5)[0] == 200
    assert small_site.get("/", timeout_s=5)[0] == 200
    allow_steps(small_site, 1)
    for page in pages:
        wait_for_end(page)
        assert page.evaluate("window.mark"), "the page was loaded anew"
    assert turned_away, "nobody was told to ask later, though only two threads may wait"


def note_retry_after(answer: Any, turned_away: list[str]) -> None:
    if "/live" in answer.url and "retry-after" in answer.headers:
        turned_away.append(answer.headers["retry-after"])


def test_the_page_goes_on_after_the_site_was_away(small_site: Site, new_visitor: NewVisitor) -> None:
    visitor = new_visitor(at=small_site)
    page = visitor.visit(start_walk(small_site, 2))
    visitor.mark()
    allow_steps(small_site, 1)
    wait_for_step(page, 1, 2)
    small_site.kill()
    page.locator("#connection", has_text="does not answer").wait_for()
    small_site.start()  # the job's process died, so the job begins again
    allow_steps(small_site, 2)
    wait_for_end(page)
    assert visitor.has_mark()
    assert page.locator("#connection").inner_text() == ""
    visitor.forgive("net::ERR")
