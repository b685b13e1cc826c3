"""Who may come in where: every address of the site, asked by a stranger, in each place where the site runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from werkzeug.routing import Rule

from app import create_app
from app.settings import Settings
from tests.kit.forms import Browser, hidden_fields

OPEN = {
    "GET /", "GET /api/books", "GET /api/jobs/<path:uuid>", "GET /api/queue", "GET /best-sellers/live",
    "GET /confirm/<token>", "POST /confirm/<token>", "GET /favicon.ico", "GET /jobs/<path:uuid>",
    "GET /jobs/<path:uuid>/live", "GET /ready", "GET /sign-in", "POST /sign-in", "POST /sign-out",
    "GET /static/<path:filename>", "GET /static/kit/<path:filename>",
    "POST /subscriptions", "POST /api/subscriptions",
    "GET /unsubscribe/<token>", "POST /unsubscribe/<token>", "GET /up",
}  # fmt: skip
"""What strangers may ask everywhere. Whatever is not in this list must refuse them."""

OPEN_WHILE_TRYING_OUT = {
    "POST /books", "POST /api/books", "POST /books/<int:book_id>/sales", "POST /api/books/<int:book_id>/sales",
    "POST /made-up-readers", "GET /api/inbox", "GET /inbox", "GET /inbox/<id>", "GET /inbox/<id>/html",
    "GET /inbox/<id>/files/<number>", "GET /inbox/live",
}  # fmt: skip
"""And this while no mail leaves the machine, in development."""

NOBODYS_JOB = "01936f2e-0000-7000-8000-000000000000"
WORLD = "smtp+plain://127.0.0.1:9"
PLACES = {
    "trying out": {},
    "production": {"environment": "production"},
    "mails go out": {"mail_url": WORLD},
    "production, mails go out": {"environment": "production", "mail_url": WORLD},
}


@pytest.fixture
def site(settings: Settings) -> Callable[..., Browser]:
    """A function that builds a stranger's client of a site that runs elsewhere."""

    def build(**changes: Any) -> Browser:
        app = create_app(replace(settings, **changes))
        app.test_client_class = Browser
        return app.test_client()

    return build


def name_of(method: str, rule: Rule) -> str:
    short = rule.rule.replace(f"<int(max={2**63 - 1}):email_id>", "<id>").replace(
        "<int(max=999):number>", "<number>"
    )
    return f"{method} {short}"


def routes(app: Flask) -> list[tuple[str, Rule]]:
    return [
        (method, rule)
        for rule in app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
    ]


def address_of(app: Flask, rule: Rule) -> str:
    numbers = {name for name, converter in rule._converters.items() if "Integer" in type(converter).__name__}
    values = {name: 1 if name in numbers else "x" for name in rule.arguments}
    if "uuid" in values:
        values["uuid"] = NOBODYS_JOB
    return str(app.url_map.bind("localhost").build(rule.endpoint, values))


def ask(client: Browser, method: str, address: str, **options: Any) -> Any:
    """Ask as a stranger does who has come by honestly: with the token of a page's form, if it is a form."""
    if method == "GET":
        return client.get(address, **options)
    if address.startswith("/api/"):
        return client.open(address, method=method, json={}, **options)
    token = hidden_fields(client.get("/sign-in").text, "/sign-in")
    return client.open(address, method=method, data=token, **options)


def is_refused(response: Any, address: str) -> bool:
    if address.startswith("/api/") or address == "/metrics":
        return response.status_code == 401 and response.json["error"]["code"] == "operator_only"
    if response.request.method == "GET":
        return response.status_code == 303 and response.location.startswith("/sign-in?next=")
    return response.status_code == 401 and "<h1>For the operator</h1>" in response.text


@pytest.mark.parametrize("place", PLACES)
def test_every_address_that_is_not_known_as_open_refuses_strangers(
    site: Callable[..., Browser], place: str
) -> None:
    client = site(**PLACES[place])
    app = client.application
    closed, wrong = 0, []
    for method, rule in routes(app):
        name, address = name_of(method, rule), address_of(app, rule)
        if name in OPEN or (place == "trying out" and name in OPEN_WHILE_TRYING_OUT):
            continue
        closed += 1
        response = ask(client, method, address)
        if "mails go out" in place and "/inbox" in address:
            assert response.status_code == 404
        elif not is_refused(response, address):
            wrong.append(f"{name}: {response.status_code}")
    assert closed >= 20
    assert not wrong, f"these let strangers in (put @operator_only below their route): {wrong}"


@pytest.mark.parametrize("place", PLACES)
def test_every_address_that_is_known_as_open_is_open(site: Callable[..., Browser], place: str) -> None:
    client = site(**PLACES[place])
    app = client.application
    known = OPEN | (OPEN_WHILE_TRYING_OUT if place == "trying out" else set())
    found = {name_of(method, rule): address_of(app, rule) for method, rule in routes(app)}
    assert known <= set(found), "the lists name addresses that are gone"
    for name in known:
        response = ask(client, name.split()[0], found[name])
        response.close()
        assert not is_refused(response, found[name]), name
        assert response.status_code < 500 or name == "GET /ready", name


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic b3BlcmF0b3I6"},
        {"Cookie": "postroom=x; operator=true"},
        {"X-Forwarded-User": "operator", "X-Original-URL": "/desk", "X-Rewrite-URL": "/desk"},
        {"X-HTTP-Method-Override": "GET"},
    ],
)
def test_no_header_but_the_token_opens_the_door(client: Browser, headers: dict[str, str]) -> None:
    for method, address in (("GET", "/desk"), ("GET", "/api/emails"), ("POST", "/api/emails/1/cancel")):
        assert is_refused(ask(client, method, address, headers=headers), address)


def test_the_operator_comes_in_everywhere(operator: Browser) -> None:
    app = operator.application
    for method, rule in routes(app):
        if method == "GET" and "live" not in rule.rule:
            address = address_of(app, rule)
            response = operator.get(address)
            response.close()
            assert not is_refused(response, address), address
            assert response.status_code in (200, 404, 410) or address == "/ready", address


@pytest.mark.parametrize(
    "address",
    [
        "/api/../desk", "/api/%2e%2e/desk", "/static/../desk", "/./desk", "/desk/", "/desk/.", "/desk//", "/DESK",
        "/%64esk", "/desk%2f", "/desk%00", "/desk;x", "/desk.json", "/desk\\", "/api/emails/",
        "/api//emails", "/API/emails", "/api/%65mails", "/api/emails%2f1", "/api/emails/../emails", "/metrics/",
        "/%6detrics",
    ],
)  # fmt: skip
def test_no_spelling_of_an_address_goes_round_the_door(site: Callable[..., Browser], address: str) -> None:
    client = site(environment="production")
    response = client.get(address, follow_redirects=True)
    assert "<h1>Sign in</h1>" in response.text or response.status_code in (401, 404, 405)
    assert response.request.path in ("/sign-in", response.request.path)
    assert "counts" not in response.text


@pytest.mark.parametrize(
    "address",
    [
        "/static/../__init__.py", "/static/%2e%2e/__init__.py", "/static/..%2f__init__.py", "/static//etc/passwd",
        "/static/%2fetc%2fpasswd", "/static/....//__init__.py", "/static/..\\__init__.py", "/static/x%00.css",
    ],
)  # fmt: skip
def test_no_file_but_the_static_ones_is_served(client: Browser, address: str) -> None:
    response = client.get(address, follow_redirects=True)
    response.close()
    assert response.status_code == 404


@pytest.mark.parametrize(
    "address", ["/.//evil.example", "/\\evil.example", "/desk//evil.example", "/inbox//"]
)
def test_no_redirect_of_the_router_leads_to_another_site(client: Browser, address: str) -> None:
    response = client.get(address)
    location = response.headers.get("Location", "/")
    assert location.startswith("/") or location.startswith("http://localhost/")
    assert not location.startswith(("//", "/\\"))


@pytest.mark.parametrize(
    "address", ["/", "/sign-in?next=/a%0d%0aSet-Cookie:%20a=b", "/nowhere%0d%0aX-Evil:%201"]
)
def test_nothing_a_visitor_sends_becomes_a_header(client: Browser, address: str) -> None:
    response = client.get(address, headers={"Origin": "evil", "Host": "localhost"})
    assert "X-Evil" not in response.headers
    assert "Set-Cookie" not in response.headers
    assert not any("\n" in value or "\r" in value for value in response.headers.values())
