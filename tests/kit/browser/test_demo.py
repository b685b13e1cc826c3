"""The demonstration as a visitor sees it: subscribe, confirm by mail, add a book, watch its job, find the mail."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.browser.conftest import NewVisitor, held_alerts
from tests.kit.browser.watched_pages import Visitor
from tests.kit.site_process import Site


@pytest.mark.parametrize("java_script", [True, False], ids=["with JavaScript", "without"])
def test_a_visitor_gets_from_the_first_page_to_the_mail_about_a_book(
    site: Site, new_visitor: NewVisitor, java_script: bool
) -> None:
    visitor = new_visitor(java_script_enabled=java_script)
    reader, title = f"cleo-{java_script}@example.com".lower(), f"The Last Letter {java_script}"
    page = visitor.visit("/")
    subscribe(page, reader, "Mystery")
    page.get_by_role("link", name="Open the inbox").first.click()
    find_mail(visitor, "Please confirm", reader).click()
    confirm_by_link_in_the_frame(page)

    page.get_by_role("link", name="Books", exact=True).click()
    with held_alerts(site, at=1):
        add_book(page, title, "Mystery")
        page.locator("a[href^='/jobs/']").first.click()
        page.locator("#progress").wait_for()
        if java_script:
            visitor.mark()
    page.locator("#job-state[data-state=done]").wait_for()
    assert not java_script or visitor.has_mark(), "the page was loaded anew"
    assert int(page.locator("#job-result").inner_text()) >= 1

    page.get_by_role("link", name="Open the inbox").first.click()
    find_mail(visitor, title, reader).click()
    assert page.get_by_role("heading", level=1).inner_text() == f"New in Mystery: {title}"


def test_the_first_page_explains_itself_in_three_sentences(visitor: Visitor) -> None:
    page = visitor.visit("/")
    said = " ".join(page.locator("#explained li").all_inner_texts())
    assert said.count(". ") + said.endswith(".") == 3, said


def subscribe(page: Any, email: str, genre: str) -> None:
    form = page.get_by_role("form", name="Subscribe")
    form.get_by_label("Email address").fill(email)
    form.get_by_label("Genre").select_option(genre)
    form.get_by_role("button").click()


def add_book(page: Any, title: str, genre: str) -> None:
    form = page.get_by_role("form", name="Add a book")
    form.get_by_label("Title").fill(title)
    form.get_by_label("Author").fill("Ines Marlow")
    form.get_by_label("Genre").select_option(genre)
    form.get_by_role("button").click()


def find_mail(visitor: Visitor, subject: str, reader: str) -> Any:
    """Wait for a mail in the inbox; return its link."""
    row = visitor.page.get_by_role("listitem").filter(has_text=subject).filter(has_text=reader)
    visitor.reload_until(lambda: row.count() > 0)
    return row.get_by_role("link")


def confirm_by_link_in_the_frame(page: Any) -> None:
    """Follow the link of the mail that is open, which leads out of its frame, and press the button there."""
    with page.expect_popup() as opened:
        page.frame_locator("iframe.mail").get_by_role("link", name="Confirm my subscription").click()
    confirm = opened.value
    confirm.get_by_role("button", name="Yes, send me these mails").click()
    confirm.get_by_role("heading", name="You are subscribed").wait_for()
    confirm.close()
