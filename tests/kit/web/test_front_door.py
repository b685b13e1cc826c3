"""Signing in and out: the link, the form, the session and its cookie, where one arrives, and who may come in."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask

from app import create_app
from app.kit.web import front_door, sign_in
from app.settings import Settings
from tests.kit.forms import Browser, hidden_fields

TOKEN = "correct horse battery"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, admin_token=TOKEN, secret_key="k" * 40)


@pytest.fixture
def other_app(settings: Settings) -> Callable[..., Browser]:
    """A function that builds a client of the same site, started anew with other settings."""

    def build(**changes: Any) -> Browser:
        app = create_app(replace(settings, **changes))
        app.test_client_class = Browser
        return app.test_client()

    return build


def cookie_of(response: Any) -> str:
    (cookie,) = response.headers.getlist("Set-Cookie")
    return str(cookie)


def is_in(client: Browser) -> bool:
    return client.get("/api/emails").status_code == 200


# The link


def test_the_link_signs_in_and_leads_to_an_address_without_the_token(client: Browser) -> None:
    response = client.get("/sign-in", query_string={"token": TOKEN, "next": "/inbox"})
    assert (response.status_code, response.location) == (303, "/inbox")
    assert is_in(client)


def test_the_links_answer_is_kept_nowhere_and_tells_no_other_site(client: Browser) -> None:
    for token in (TOKEN, "wrong"):
        response = client.get("/sign-in", query_string={"token": token})
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert token not in response.location
        assert token not in response.get_data(as_text=True)


def test_a_wrong_link_leads_to_the_form_and_keeps_where_one_wanted_to_go(client: Browser) -> None:
    response = client.get("/sign-in", query_string={"token": "wrong", "next": "/inbox"})
    assert (response.status_code, response.location) == (303, "/sign-in?failed=1&next=/inbox")
    assert "That is not the token" in client.get(response.location).text
    assert not is_in(client)


# The form


def test_the_form_signs_in_and_leads_to_the_page_that_was_wanted(client: Browser) -> None:
    asked = client.get("/api/emails")
    assert asked.status_code == 401
    response = client.submit("/sign-in", {"token": f" {TOKEN}\n"}, page="/sign-in?next=/inbox?before=7")
    assert (response.status_code, response.location) == (303, "/inbox?before=7")
    assert is_in(client)


def test_a_wrong_token_comes_back_to_the_form_and_is_not_shown(client: Browser) -> None:
    response = client.submit("/sign-in", {"token": "hunter2-hunter2"}, page="/sign-in")
    assert response.status_code == 401
    assert 'id="token-error"' in response.text
    assert "hunter2" not in response.text
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("token", ["", "x" * 100_000, "t\xf6ken", "\0", TOKEN[:-1], TOKEN + "x"])
def test_whatever_is_not_the_token_is_wrong(client: Browser, token: str) -> None:
    assert client.submit("/sign-in", {"token": token}, page="/sign-in").status_code == 401
    assert not is_in(client)


def test_signing_out_ends_the_session_of_this_browser(client: Browser) -> None:
    client.sign_in()
    response = client.submit("/sign-out", page="/sign-in")
    assert (response.status_code, response.location) == (303, "/")
    assert "Expires=Thu, 01 Jan 1970" in cookie_of(response)
    assert not is_in(client)


def test_signing_out_ends_the_session_everywhere_and_for_good(
    client: Browser, operator: Browser, other_app: Callable[..., Browser]
) -> None:
    client.sign_in()
    copied = client.get_cookie("postroom").value
    client.submit("/sign-out", page="/sign-in")
    for elsewhere in (client, client.application.test_client(), other_app()):
        elsewhere.set_cookie("postroom", copied)
        assert not is_in(elsewhere)
    assert not is_in(operator), "the session of the other browser"
    client.sign_in()
    assert is_in(client)


def test_while_the_database_cannot_be_read_the_site_still_says_so_to_the_operator(
    app: Flask, operator: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_options: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(app.extensions["database"], "read_one", broken)
    monkeypatch.setattr(app.extensions["database"], "write", broken)
    answer = operator.get("/ready")
    assert (answer.status_code, "disk I/O error" in answer.text) == (503, True)


def test_a_stranger_signs_nobody_out(client: Browser, operator: Browser) -> None:
    for cookie in (None, "x", "e30.x.y"):
        if cookie:
            client.set_cookie("postroom", cookie)
        fields = hidden_fields(client.get("/sign-in").text, "/sign-in")
        assert client.post("/sign-out", data=fields).status_code == 303
    assert is_in(operator)


# The session


def test_the_cookie_holds_neither_the_token_nor_anything_to_find_it_with(client: Browser, app: Flask) -> None:
    response = client.get("/sign-in", query_string={"token": TOKEN})
    with app.test_request_context(headers={"Cookie": cookie_of(response).partition(";")[0]}):
        from flask import session

        assert set(session) == {"_permanent", "operator", "signed_in_at"}
        assert TOKEN not in str(dict(session))
        seal = session["operator"]
    with create_app(replace(app.extensions["settings"], secret_key="l" * 40)).test_request_context():
        front_door.sign_in()
        assert session["operator"] != seal, "the seal is keyed: nobody can try tokens on it at home"


def test_signing_in_begins_a_new_session(client: Browser) -> None:
    client.sign_in()
    with client.session_transaction() as session:
        session["planted"] = "by somebody else"
    client.get("/sign-in", query_string={"token": TOKEN})
    with client.session_transaction() as session:
        assert "planted" not in session


def test_a_session_ends_when_the_token_changes(client: Browser, other_app: Callable[..., Browser]) -> None:
    client.sign_in()
    cookie = client.get_cookie("postroom")
    for changes, status in (
        ({}, 200),
        ({"admin_token": "another one"}, 401),
        ({"secret_key": "l" * 40}, 401),
    ):
        restarted = other_app(**changes)
        restarted.set_cookie("postroom", cookie.value)
        assert restarted.get("/api/emails").status_code == status, changes


def test_a_session_ends_twelve_hours_after_it_began_however_busy_it_is(
    client: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.sign_in()
    began_at = time.time()
    for hours, signed_in in ((11.9, True), (12.1, False)):
        monkeypatch.setattr(time, "time", lambda hours=hours: began_at + hours * 3600)
        assert is_in(client) == signed_in


@pytest.mark.parametrize(
    "planted", [{"operator": True}, {"operator": "x", "signed_in_at": 9e9}, {"operator": 1}]
)
def test_a_session_with_anything_else_in_it_is_a_strangers(client: Browser, planted: dict[str, Any]) -> None:
    with client.session_transaction() as session:
        session.update(planted)
    assert not is_in(client)


def test_a_forged_cookie_is_a_strangers(client: Browser) -> None:
    for value in ("x", "e30.x.y", "." * 4000):
        client.set_cookie("postroom", value)
        assert not is_in(client)


def test_what_the_operator_sees_is_not_kept_by_the_browser(operator: Browser, client: Browser) -> None:
    assert operator.get("/").headers["Cache-Control"] == "no-store"
    assert "Cookie" in client.get("/").headers["Vary"]


# The cookie, where the site runs

SECRETS = {"admin_token": TOKEN, "secret_key": "k" * 40}


@pytest.mark.parametrize(
    ("environ", "name", "attributes"),
    [
        ({}, "postroom", "HttpOnly; Path=/; SameSite=Lax"),
        (
            {"PUBLIC_URL": "https://books.example.com"},
            "__Host-postroom",
            "Secure; HttpOnly; Path=/; SameSite=Lax",
        ),
        (
            {"REPL_ID": "1", "REPLIT_DOMAINS": "books.replit.dev"},
            "__Host-postroom",
            "Secure; HttpOnly; Path=/; SameSite=None; Partitioned",
        ),
        (
            {"REPL_ID": "1", "REPLIT_DOMAINS": "books.replit.app", "REPLIT_DEPLOYMENT": "1"},
            "__Host-postroom",
            "Secure; HttpOnly; Path=/; SameSite=Lax",
        ),
        (
            {"SPACE_ID": "cleo/books"},
            "__Host-postroom",
            "Secure; HttpOnly; Path=/; SameSite=None; Partitioned",
        ),
    ],
    ids=["a laptop", "https", "Replit's editor", "published on Replit", "Hugging Face"],
)
def test_the_cookie_is_what_the_browser_keeps_there(
    environ: dict[str, str], name: str, attributes: str, tmp_path: Any
) -> None:
    settings = replace(Settings.read(environ | {"DATA_DIR": str(tmp_path)}), **SECRETS)
    client = create_app(settings).test_client()
    cookie = cookie_of(client.get("/sign-in", query_string={"token": TOKEN}))
    value, _, said = cookie.partition("; ")
    assert value.startswith(f"{name}=")
    expires, said = [part for part in said.split("; ") if part.startswith("Expires=")], said.split("; ")
    assert sorted(set(said) - set(expires)) == sorted(attributes.split("; "))
    assert len(expires) == 1, "it ends by itself"
    assert "Domain" not in cookie


def test_visitors_get_no_cookie_at_all(client: Browser) -> None:
    client.submit("/subscriptions", {"email": "cleo@example.com", "genre": "Mystery"})
    client.submit("/books", {"title": "A Parrot", "author": "Cleo Finch", "genre": "Mystery"})
    client.get("/sign-in")
    client.get("/desk")
    assert client._cookies == {}


# Where one arrives

EVIL = [
    "https://evil.example", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example",
    "/\t/evil.example", "/\n/evil.example", "\t//evil.example", " //evil.example", "/%2f/evil.example",
    "/%2fevil.example", "/%5cevil.example", "%2f%2fevil.example", "/%252fevil.example", "/%09/evil.example",
    "javascript:alert(1)", "http:evil.example", "https:/evil.example", "evil.example", "@evil.example", "/a//b",
    "/.//evil.example", "/@evil.example\\", "/\u2028/evil.example", "/\x00/evil.example", "/x\x7f", "",
    "/inbox\r\nSet-Cookie: a=b", "/inbox%0d%0aSet-Cookie: a=b",
]  # fmt: skip


@pytest.mark.parametrize("evil", EVIL)
def test_after_signing_in_nobody_is_led_to_another_site(client: Browser, evil: str) -> None:
    by_link = client.get("/sign-in", query_string={"token": TOKEN, "next": evil})
    page = f"/sign-in?next={quote(evil)}"
    client.submit("/sign-out", page="/sign-in")
    by_form = client.submit("/sign-in", {"token": TOKEN, "next": evil}, page=page)
    assert [by_link.location, by_form.location] == [sign_in.HOME, sign_in.HOME]


@pytest.mark.parametrize(
    "own", ["/inbox", "/inbox?before=7", "/jobs/8a-b", "/?q=a%20b&genre=Mystery", "/desk#shelf"]
)
def test_after_signing_in_one_is_where_one_wanted_to_go(client: Browser, own: str) -> None:
    assert client.get("/sign-in", query_string={"token": TOKEN, "next": own}).location == own


def test_a_page_of_the_operators_leads_to_the_sign_in_and_back(client: Browser) -> None:
    response = client.get("/desk?state=failed&q=a%26b")
    assert response.status_code == 303
    arrived = client.submit("/sign-in", {"token": TOKEN}, page=response.location)
    assert arrived.location == "/desk?state=failed&q=a%26b"


# Bearer


def test_the_bearer_token_needs_no_session_and_begins_none(client: Browser) -> None:
    response = client.get("/api/emails", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200
    assert "Set-Cookie" not in response.headers


def test_tokens_are_compared_in_constant_time(client: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((len(a), len(b))) or a == b)
    for token in ("", "c", TOKEN[:-1], TOKEN, "x" * 5000):
        client.get("/sign-in", query_string={"token": token})
        client.get("/api/emails", headers={"Authorization": f"Bearer {token}"})
    assert len(compared) >= 5
    assert {one == other for one, other in compared} == {True}, "the same length each, whatever was sent"
