"""The sign-in inside the frame of another site, as Replit's editor shows it, and where such a frame is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.kit.browser.conftest import make_site

Elsewhere = Callable[[str], str]
FRAME = '<!doctype html><iframe width="800" height="600" src="http://localhost:{port}/sign-in"></iframe>'


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """A function that puts a page on another site, and returns its address."""
    servers = []

    def serve(page: str) -> str:
        class OtherSite(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page.encode())

            def log_message(self, *_args: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), OtherSite))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"  # to a browser another site than localhost

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_inside_replits_frame_one_can_sign_in_and_send_forms(
    chromium: Any, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    with make_site(tmp_path, REPL_ID="1") as site, chromium.new_context() as context:
        page = context.new_page()
        page.goto(elsewhere(FRAME.format(port=site.port)))
        frame = page.frame_locator("iframe")
        frame.get_by_label("Token").fill(site.environ["ADMIN_TOKEN"])
        frame.get_by_role("button", name="Sign in").click()
        frame.get_by_role("link", name="Desk").click()
        frame.get_by_role("heading", name="Desk").wait_for()
        (cookie,) = context.cookies()
        assert (cookie["name"], cookie["sameSite"], cookie["secure"]) == ("__Host-postroom", "None", True)
        assert cookie["partitionKey"] == "http://127.0.0.1"
        frame.get_by_role("button", name="Sign out").click()
        frame.get_by_label("Email address").fill("cleo@example.com")
        frame.locator("#subscribe-genre").select_option("Mystery")
        frame.get_by_role("button", name="Subscribe", exact=True).click()
        frame.get_by_text("A mail is on its way").wait_for()


def test_elsewhere_no_other_site_can_show_ours_in_a_frame(
    chromium: Any, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    with make_site(tmp_path) as site, chromium.new_context() as context:
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        with page.expect_event("console"):
            page.goto(elsewhere(FRAME.format(port=site.port)))
        assert "frame-ancestors 'self'" in said[0]
        assert page.frame_locator("iframe").get_by_label("Token").count() == 0


def test_a_form_of_another_site_is_refused_by_what_the_browser_says_of_it(
    chromium: Any, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    with make_site(tmp_path) as site, chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"http://localhost:{site.port}/")
        form = page.locator('form[action="/subscriptions"]').evaluate("form => form.outerHTML")
        stolen = form.replace('action="', f'action="http://localhost:{site.port}')
        page.goto(elsewhere(stolen))
        page.locator("[name=email]").fill("cleo@example.com")
        page.locator("[name=genre]").select_option("Mystery")
        page.get_by_role("button").click()
        page.get_by_text("This came from a page of another site").wait_for()
        assert site.get("/api/emails", as_operator=True)[1]["emails"] == []
