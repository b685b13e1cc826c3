"""Hostile text in every field that is ever shown: no script of it runs, no dialog opens, no policy is broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.kit.browser.conftest import NewVisitor
from tests.kit.browser.watched_pages import Visitor
from tests.kit.site_process import Site

SCRIPT = "heard('script')"
HOSTILE = (
    f"""'"><script>{SCRIPT}</script><img src=x onerror="{SCRIPT}"><svg onload={SCRIPT}>"""
    f"""{{{{7*7}}}}<a href="javascript:{SCRIPT}">read on</a></textarea></title>"""
    f"""<iframe srcdoc="<script>{SCRIPT}</script>"></iframe>"""
)
READER = "hostile@example.com"


@pytest.fixture
def heard(new_visitor: NewVisitor) -> Iterator[tuple[Visitor, list[str]]]:
    """A window whose every page and frame has a function heard(): what calls it has run as a script."""
    visitor, calls = new_visitor(), []  # type: tuple[Visitor, list[str]]
    visitor.context.expose_binding(
        "heard", lambda source, words: calls.append(f"{source['page'].url}: {words}")
    )
    yield visitor, calls
    assert calls == [], "a script of somebody else's text ran"


@pytest.fixture(scope="module")
def hostile_job(site: Site) -> str:
    """A job that failed with the text as its error."""
    return ended(site, site.post("/api/test/fail", {"word": HOSTILE}), "failed")


@pytest.fixture(scope="module")
def hostile_result(site: Site) -> str:
    """A job with the text as its argument, its progress note and its result."""
    job = site.post("/api/test/walk", {"total": 1, "note": HOSTILE})
    site.post("/api/test/step", {"steps": 1})
    return ended(site, job, "done")


@pytest.fixture(scope="module")
def hostile_mail(site: Site) -> int:
    """A mail with the text in its subject and its text; its HTML is hostile as it stands."""
    html = f"""<!doctype html><html><head><title>{HOSTILE}</title></head><body onload="{SCRIPT}">
        <h1>Dear reader</h1><script>{SCRIPT}</script><img src="/static/kit/favicon.svg" onload="{SCRIPT}">
        <form action="/books" method="post"><button>Send</button></form>
        <a href="/?q=from-a-mail">A link</a> <a href="/" target="_top">A link out of the frame</a></body></html>"""
    mail = {"to": READER, "subject": f"Hostile {HOSTILE}", "text": HOSTILE, "html": html}
    status, sent = site.post("/api/test/mail", mail)
    assert status == 200, sent
    while sent["id"] not in [mail["id"] for mail in site.get("/api/inbox", as_operator=True)[1]["emails"]]:
        pass
    return int(sent["id"])


def ended(site: Site, started: tuple[int, Any], state: str) -> str:
    uuid = str(started[1]["id"])
    assert site.get(f"/api/jobs/{uuid}?wait=20")[1]["state"] == state
    return uuid


def looks_hostile(page: Any) -> bool:
    """Say whether the page shows the text, as text."""
    return "<script>heard(" in page.locator("main").inner_text()


def test_a_page_that_let_the_text_through_would_be_noticed(new_visitor: NewVisitor) -> None:
    visitor, calls = new_visitor(), []  # type: tuple[Visitor, list[str]]
    visitor.context.expose_binding("heard", lambda source, words: calls.append(words))
    unsafe = f"<!doctype html><title>{HOSTILE}</title><p>{HOSTILE}<script>alert(1)</script>"
    visitor.context.route(
        "**/unsafe", lambda route: route.fulfill(content_type="text/html", body=unsafe.replace("'", '"', 1))
    )
    visitor.page.goto(f"http://localhost:{visitor.site.port}/unsafe")
    visitor.page.wait_for_load_state()
    assert calls
    assert any("a dialog opened" in trouble for trouble in visitor.troubles)
    visitor.troubles.clear()


def test_a_book_of_hostile_words_is_shown_as_words(
    site: Site, heard: tuple[Visitor, list[str]], hostile_job: str
) -> None:
    visitor, _ = heard
    words = HOSTILE[:200]
    for title, author in ((words, "Ines Marlow"), ("The Last Letter", words)):
        assert site.post("/api/books", {"title": title, "author": author, "genre": "Mystery"})[0] == 201
    assert looks_hostile(visitor.visit("/"))
    for path in (
        "/?q=" + quote(words),
        "/?genre=" + quote(words),
        f"/?subscribed={quote(words)}",
        "/?added=1&job=x",
    ):
        visitor.visit(path)


def test_a_refused_form_gives_hostile_words_back_as_words(heard: tuple[Visitor, list[str]]) -> None:
    visitor, _ = heard
    page = visitor.visit("/")
    page.evaluate("document.querySelectorAll('form').forEach(form => form.noValidate = true)")
    form = page.get_by_role("form", name="Subscribe")
    form.get_by_label("Email address").evaluate("field => field.type = 'text'")
    form.get_by_label("Email address").fill(f'{HOSTILE[:150]}"@example.com')
    form.get_by_label("Genre").select_option("Mystery")
    form.get_by_role("button").click()
    page.locator("#subscribe-email-error, #subscribe-error").first.wait_for()
    assert page.locator("#subscribe-email").input_value().startswith(HOSTILE[:150])
    visitor.forgive("the server responded with a status of 400")


def test_a_job_of_hostile_words_is_shown_as_words(
    heard: tuple[Visitor, list[str]], hostile_job: str, hostile_result: str
) -> None:
    visitor, _ = heard
    assert looks_hostile(visitor.visit(f"/jobs/{hostile_result}"))  # progress note, result
    assert not looks_hostile(visitor.visit(f"/jobs/{hostile_job}"))  # the error is the operator's
    visitor.sign_in()
    page = visitor.visit(f"/jobs/{hostile_job}")
    assert "heard(" in page.locator("#job-error").inner_text()
    assert "heard(" in page.locator("#job-call").inner_text()
    for details in page.locator("summary").all():
        details.click()


def test_the_desk_shows_hostile_words_as_words(
    heard: tuple[Visitor, list[str]], hostile_job: str, hostile_mail: int
) -> None:
    visitor, _ = heard
    visitor.sign_in()
    assert looks_hostile(visitor.visit("/desk"))
    for path in (
        "/desk?q=" + quote("'\"><script>"),
        "/desk?task=" + quote(HOSTILE),
        "/desk/emails",
        f"/desk/emails/{hostile_mail}",
        "/desk/emails?to=" + quote(READER),
    ):
        visitor.visit(path)
        assert looks_hostile(visitor.page) or "task=" in path, path


def test_error_pages_and_the_sign_in_say_hostile_words_as_words(heard: tuple[Visitor, list[str]]) -> None:
    visitor, _ = heard
    visitor.visit("/" + quote(HOSTILE, safe=""), status=404)
    visitor.visit("/jobs/" + quote(HOSTILE, safe=""), status=404)
    page = visitor.visit("/sign-in?next=" + quote(f"javascript:{SCRIPT}"))
    page.get_by_label("Token").fill(visitor.site.environ["ADMIN_TOKEN"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/desk")


@pytest.mark.parametrize("view", ["html", "text", "headers", "source"])
def test_a_mail_of_hostile_words_runs_no_script_in_any_view(
    heard: tuple[Visitor, list[str]], hostile_mail: int, view: str
) -> None:
    visitor, _ = heard
    page = visitor.visit("/inbox")
    assert looks_hostile(page)
    visitor.visit(f"/inbox/{hostile_mail}?view={view}")
    page.wait_for_load_state("networkidle")
    if view == "html":
        assert page.frame_locator("iframe").get_by_role("heading").inner_text() == "Dear reader"
    else:
        assert looks_hostile(page)
    forgive_what_the_frame_refused(visitor)


def test_a_link_in_a_mail_opens_beside_its_frame_and_the_frame_stays(
    heard: tuple[Visitor, list[str]], hostile_mail: int
) -> None:
    visitor, _ = heard
    page = visitor.visit(f"/inbox/{hostile_mail}?view=html")
    frame = page.frame_locator("iframe")
    with page.expect_popup() as opened:
        frame.get_by_role("link", name="A link", exact=True).click()
    opened.value.wait_for_url("**/?q=from-a-mail")
    assert opened.value.get_by_role("button", name="Search").is_visible()
    assert opened.value.evaluate("window.opener") is None
    frame.get_by_role("link", name="A link out of the frame").click()
    assert f"/inbox/{hostile_mail}" in page.url
    assert frame.get_by_role("heading").inner_text() == "Dear reader"
    forgive_what_the_frame_refused(visitor)


def test_the_frame_is_sandboxed_also_when_its_address_is_opened_by_itself(
    heard: tuple[Visitor, list[str]], hostile_mail: int
) -> None:
    visitor, _ = heard
    page = visitor.visit(f"/inbox/{hostile_mail}/html")
    page.wait_for_load_state("networkidle")
    assert page.get_by_role("heading").inner_text() == "Dear reader"
    forgive_what_the_frame_refused(visitor)


def forgive_what_the_frame_refused(visitor: Visitor) -> None:
    """Take out what the browser says of the mail's own HTML: that it may do nothing."""
    for words in ("sandboxed", "/html)", "Content Security Policy"):
        visitor.forgive(words)
