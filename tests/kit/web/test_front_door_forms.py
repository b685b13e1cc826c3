"""No other site does anything here in a visitor's name: forms and calls with tokens, without, and with others'."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask import Flask

from app.bookshop import books as catalogue
from tests.kit.forms import Browser, hidden_fields

READER = {"email": "cleo@example.com", "genre": "Mystery"}
BOOK = {"title": "A Parrot at the Counter", "author": "Cleo Finch", "genre": "Mystery"}
ELSEWHERE = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://books.test"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": ""},
]
HERE: list[dict[str, str]] = [
    {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://whatever.proxy.example"},
    {"Origin": "http://localhost"},
    {"Origin": "http://books.test"},
]
"""The test client asks http://localhost, and PUBLIC_URL is http://books.test."""


def token_on(client: Browser, page: str = "/", action: str = "/subscriptions") -> dict[str, str]:
    return hidden_fields(client.get(page).text, action)


def books() -> int:
    return len(catalogue.find_books(q="parrot"))


# A visitor


@pytest.mark.parametrize(
    "token", [{}, {"csrf_token": ""}, {"csrf_token": "x"}, {"csrf_token": "InZpc2l0b3Ii.a.b"}]
)
def test_a_form_without_a_token_of_ours_does_nothing(client: Browser, token: dict[str, str]) -> None:
    for action, fields in (("/subscriptions", READER), ("/books", BOOK)):
        response = client.post(action, data=fields | token, headers={"Referer": "http://localhost/?q=parrot"})
        assert response.status_code == 400
        assert "Nothing was done" in response.text
        assert '<a href="/?q=parrot">Back to the form</a>' in response.text
    assert books() == 0


@pytest.mark.parametrize("referrer", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "x"])
def test_the_way_back_leads_to_no_other_site(client: Browser, referrer: str) -> None:
    page = client.post("/books", data=BOOK, headers={"Referer": referrer}).text
    assert "Back to the form" not in page
    assert "evil" not in page


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_a_form_of_another_site_does_nothing_even_with_a_token(
    client: Browser, headers: dict[str, str]
) -> None:
    response = client.post("/books", data=BOOK | token_on(client), headers=headers)
    assert response.status_code == 400
    assert "another site" in response.text
    assert books() == 0


@pytest.mark.parametrize("headers", HERE)
def test_a_form_of_this_site_needs_no_cookie(client: Browser, headers: dict[str, str]) -> None:
    response = client.post("/books", data=BOOK | token_on(client), headers=headers)
    assert response.status_code == 303
    assert books() == 1
    assert "Set-Cookie" not in response.headers


def test_a_form_that_was_open_for_a_day_is_to_be_sent_again(
    client: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_on(client)
    later = time.time() + 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert client.post("/books", data=BOOK | token).status_code == 400


# The operator


def test_the_operators_forms_need_the_token_of_his_session(
    app: Flask, client: Browser, operator: Browser
) -> None:
    visitors = token_on(client)
    other = app.test_client()
    other.sign_in()
    others = token_on(other)
    for wrong in ({}, visitors, others):
        assert operator.post("/books", data=BOOK | wrong).status_code == 400
        assert operator.post("/sign-out", data=wrong).status_code == 400
    assert books() == 0
    assert operator.post("/books", data=BOOK | token_on(operator)).status_code == 303


def test_a_form_from_before_signing_in_is_to_be_sent_again_and_so_is_one_from_before_signing_out(
    client: Browser,
) -> None:
    before = token_on(client)
    client.sign_in()
    assert client.post("/books", data=BOOK | before).status_code == 400
    during = token_on(client)
    client.submit("/sign-out", page="/sign-in")
    assert client.post("/books", data=BOOK | during).status_code == 400


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
def test_another_site_cannot_use_the_operators_session(operator: Browser, headers: dict[str, str]) -> None:
    assert operator.post("/books", data=BOOK | token_on(operator), headers=headers).status_code == 400


# The API


def calls(client: Browser, headers: dict[str, str]) -> list[tuple[int, Any]]:
    """Make a call that the operator alone may make, and one that anybody may."""
    answers = [
        client.post("/api/emails/1/cancel", headers=headers),
        client.post("/api/books", json=BOOK, headers=headers),
    ]
    return [(answer.status_code, (answer.json.get("error") or {}).get("code")) for answer in answers]


def test_a_form_without_the_field_is_told_of_it(operator: Browser, client: Browser) -> None:
    for one in (operator, client):
        answer = one.post("/books", data=BOOK)
        assert (answer.status_code, "csrf_field()" in answer.text) == (400, True)
        answer = one.post("/books", data=BOOK | {"csrf_token": "old"})
        assert (answer.status_code, "csrf_field()" in answer.text) == (400, False)


def test_a_call_with_the_sessions_cookie_needs_the_header(operator: Browser, client: Browser) -> None:
    refused = [(400, "form_refused"), (400, "form_refused")]
    assert calls(operator, {}) == refused
    assert calls(operator, {"X-CSRFToken": token_on(client)["csrf_token"]}) == refused
    assert calls(operator, {"X-CSRFToken": token_on(operator)["csrf_token"]}) == [
        (404, "not_found"),
        (201, None),
    ]


def test_a_call_with_the_bearer_token_needs_no_header(app: Flask, client: Browser, operator: Browser) -> None:
    bearer = {"Authorization": f"Bearer {app.extensions['settings'].admin_token}"}
    for one in (client, operator):
        assert calls(one, bearer) == [(404, "not_found"), (201, None)]
    wrong = {"Authorization": "Bearer wrong"}
    assert calls(operator, wrong) == [(400, "form_refused"), (400, "form_refused")]


def test_open_calls_need_nothing_but_json(client: Browser) -> None:
    assert client.post("/api/subscriptions", json=READER).status_code == 201
    assert client.post("/api/books", json=BOOK).status_code == 201
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        response = client.post("/api/books", data=b'{"title": "x"}', content_type=kind)
        assert response.status_code == 415, "what a form of another site can send is refused"


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_a_page_of_another_site_cannot_call_even_what_is_open(
    client: Browser, headers: dict[str, str]
) -> None:
    response = client.post("/api/books/1/sales", headers=headers)
    assert (response.status_code, response.json["error"]["code"]) == (400, "form_refused")


# What is exempt


def test_exactly_the_pages_of_mails_are_exempt(app: Flask) -> None:
    assert app.extensions["csrf"]._exempt_views == {
        "app.bookshop.subscription_pages.confirm",
        "app.bookshop.subscription_pages.unsubscribe",
    }
    assert app.extensions["csrf"]._exempt_blueprints == set()


def test_every_form_that_posts_holds_a_token(app: Flask) -> None:
    assert app.jinja_env.loader is not None
    forms = 0
    for name in app.jinja_env.list_templates(["html"]):
        source = app.jinja_env.loader.get_source(app.jinja_env, name)[0]
        for form in source.split("<form")[1:]:
            if 'method="post"' in form.partition(">")[0].lower():
                forms += 1
                assert "csrf_field()" in form.partition("</form>")[0], f"a form of {name} has no csrf_field()"
    assert forms >= 5
