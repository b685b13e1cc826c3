"""What the operator does with the mouse: sign in by the link, look at the desk, run again, pause, sign out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.kit.browser.conftest import NewVisitor, make_site
from tests.kit.browser.watched_pages import Visitor
from tests.kit.site_process import Site

SIGN_IN_LINK = re.compile(r"http://\S+/sign-in\?token=\S+")


def start_failing(site: Site, word: str) -> str:
    """Start a job that fails with a word until the word is expected; return its id."""
    uuid = str(site.post("/api/test/fail", {"word": word})[1]["id"])
    assert site.get(f"/api/jobs/{uuid}?wait=20")[1]["state"] == "failed"
    return uuid


def menu(page: Any) -> Any:
    return page.get_by_role("navigation", name="Main")


def test_the_link_that_is_printed_at_the_start_signs_in_and_leaves_no_token_in_the_address(
    tmp_path: Path, new_visitor: NewVisitor
) -> None:
    site = make_site(tmp_path)
    del site.environ["ADMIN_TOKEN"]
    with site:
        printed = SIGN_IN_LINK.search("".join(site.log))
        assert printed, "".join(site.log)
        visitor = new_visitor(at=site)
        page = visitor.visit("/")
        assert menu(page).get_by_role("link", name="Desk").count() == 0
        visitor.visit(printed[0])
        assert page.url.endswith("/desk")
        assert page.get_by_role("heading", level=1).is_visible()
        menu(page).get_by_role("link", name="Books").click()
        menu(page).get_by_role("link", name="Desk").click()
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_load_state()
        assert menu(page).get_by_role("link", name="Desk").count() == 0
        visitor.visit("/desk")
        assert visitor.path == "/sign-in"


def test_after_the_sign_in_the_operator_is_where_they_wanted_to_go(site: Site, visitor: Visitor) -> None:
    page = visitor.visit("/desk?q=dust")
    assert visitor.path == "/sign-in"
    page.get_by_label("Token").fill("a guess")
    page.get_by_role("button", name="Sign in").click()
    page.locator("#token-error").wait_for()
    page.get_by_label("Token").fill(site.environ["ADMIN_TOKEN"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/desk?q=dust")
    visitor.forgive("the server responded with a status of 401")


def test_a_failed_job_shows_its_error_to_the_operator_only_and_runs_again_at_a_press(
    site: Site, new_visitor: NewVisitor
) -> None:
    uuid = start_failing(site, "the ink has run out")
    stranger, operator = new_visitor(), new_visitor()
    page = stranger.visit(f"/jobs/{uuid}")
    page.locator("#job-state[data-state=failed]").wait_for()
    assert "run out" not in page.content()
    assert page.get_by_role("button", name="Run it again").count() == 0

    operator.sign_in()
    page = operator.visit(f"/jobs/{uuid}")
    assert "the ink has run out" in page.locator("#job-error").inner_text()
    site.post("/api/test/expect", {"word": "the ink has run out"})
    page.get_by_role("button", name="Run it again").click()
    page.locator("#job-state[data-state=done]").wait_for()
    assert page.locator("#job-result").inner_text().strip() == "the ink has run out"


def test_the_shelf_on_the_desk_runs_one_job_again_and_deletes_another(site: Site, visitor: Visitor) -> None:
    again, gone = start_failing(site, "dry nib"), start_failing(site, "torn page")
    visitor.sign_in()
    page = visitor.visit("/desk?q=dry+nib")
    assert page.locator(f"[data-job='{gone}']").count() == 0
    site.post("/api/test/expect", {"word": "dry nib"})
    page.locator(f"[data-job='{again}']").get_by_role("button", name="Run again").click()
    page.locator("main [role=status]", has_text="again").first.wait_for()
    assert site.get(f"/api/jobs/{again}?wait=20")[1]["state"] == "done"

    page = visitor.visit("/desk")
    row = page.locator(f"[data-job='{gone}']")
    row.get_by_text("Delete", exact=True).click()
    row.get_by_role("button", name="Delete for good").click()
    page.locator("main [role=status]", has_text="deleted").first.wait_for()
    assert page.locator(f"[data-job='{gone}']").count() == 0
    assert site.get(f"/api/jobs/{gone}")[0] == 404


def test_the_queue_is_paused_and_resumed_and_the_desk_shows_a_job_wait_and_end_by_itself(
    tmp_path: Path, new_visitor: NewVisitor
) -> None:
    with make_site(tmp_path) as site:
        visitor = new_visitor(at=site)
        visitor.sign_in()
        page = visitor.visit("/desk")
        page.get_by_role("button", name="Pause the queue").click()
        page.get_by_role("button", name="Resume the queue").wait_for()
        visitor.mark()
        site.post("/api/test/walk", {"total": 1})
        site.post("/api/test/step", {"steps": 1})
        page.locator("[data-count=ready]", has_text="1").wait_for()
        assert visitor.has_mark(), "the desk was loaded anew"
        page.get_by_role("button", name="Resume the queue").click()
        page.locator("[data-count=done]", has_text="1").wait_for()
        page.get_by_role("button", name="Pause the queue").wait_for()
        assert page.evaluate("layoutShift") <= 0.01


def test_one_task_is_paused_and_resumed(site: Site, visitor: Visitor) -> None:
    visitor.sign_in()
    page = visitor.visit("/desk")
    row = page.locator("[data-task$='.fail_unless']")
    row.get_by_role("button", name="Pause").click()
    row.get_by_text("paused until somebody resumes it").wait_for()
    row.get_by_role("button", name="Resume").click()
    row.get_by_role("button", name="Pause").wait_for()
    assert row.get_by_text("paused").count() == 0


def test_a_form_whose_token_is_not_ours_is_refused_on_a_page_that_says_what_to_do(visitor: Visitor) -> None:
    page = visitor.sign_in()
    page.wait_for_url("**/desk")
    token = page.locator("form[action='/desk/pause'] input[name=csrf_token]").first
    token.evaluate("field => field.value = 'made up'")
    page.get_by_role("button", name="Pause the queue").click()
    page.wait_for_load_state()
    assert "Nothing was done" in page.locator("main").inner_text()
    visitor.forgive("the server responded with a status of 400")
    visitor.visit("/desk")
    assert page.get_by_role("button", name="Pause the queue").is_visible()


def test_a_form_on_a_page_of_another_site_does_nothing_in_the_operators_name(
    site: Site, visitor: Visitor
) -> None:
    page = visitor.sign_in()
    page.wait_for_url("**/desk")
    elsewhere = f"http://elsewhere.localhost:{site.port}/"
    form = (
        f'<form method="post" action="http://localhost:{site.port}/desk/pause"><button>Win a prize</button>'
    )
    visitor.context.route(elsewhere, lambda route: route.fulfill(content_type="text/html", body=form))
    page.goto(elsewhere)
    page.get_by_role("button", name="Win a prize").click()
    page.wait_for_url("**/desk/pause")
    assert "Nothing was done" in page.content() or "nothing was done" in page.content()
    visitor.forgive("the server responded with a status of 400")
    visitor.visit("/desk")
    assert page.get_by_role("button", name="Pause the queue").is_visible()
