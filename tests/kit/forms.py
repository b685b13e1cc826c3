"""A client that sends forms as a browser does: it loads their page, and sends back the hidden fields it finds."""

from __future__ import annotations

import html
import re
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

FORM = re.compile(r'<form\b[^>]*\bmethod="post"[^>]*>.*?</form>', re.DOTALL)
HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)"')


class Browser(FlaskClient):
    """The fixture `client`: its post() sends just what it is told, its submit() what the form holds too."""

    def submit(self, action: str, fields: dict[str, Any] | None = None, page: str = "/") -> TestResponse:
        """Fill in the form of a page that posts to `action`, and send it."""
        found = hidden_fields(self.get(page).get_data(as_text=True), action)
        return self.post(action, data=found | (fields or {}))

    def sign_in(self) -> None:
        """Become the operator, by the form."""
        token = self.application.extensions["settings"].admin_token
        assert self.submit("/sign-in", {"token": token}, page="/sign-in").status_code == 303


def hidden_fields(page: str, action: str) -> dict[str, str]:
    """Return the hidden fields of the first form of a page that posts to `action`."""
    for form in FORM.findall(page):
        if f'action="{action}"' in html.unescape(form):
            return {html.unescape(name): html.unescape(value) for name, value in HIDDEN.findall(form)}
    raise AssertionError(f"no form posts to {action}: {page}")
