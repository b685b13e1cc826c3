"""Whatever strangers wrote is text on every page that shows it, never markup."""

from __future__ import annotations

import html
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Flask

import tasks
from app.kit.mail import inbox
from tests.conftest import RunJobs
from tests.kit.forms import Browser

ATTACK = "</pre></textarea></title><script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"
DANGEROUS = ("<script>alert", "<img src=x", 'onerror=alert(2)>"', "'><img")
ADDRESS = "cleo&o'brien{{7*7}}|x@example.com"
LINK = "javascript:alert(3)"


class CrueltyError(Exception):
    """An error with a message nobody should trust."""


@pytest.fixture
def jobs(app: Flask, run_jobs: RunJobs) -> Iterator[list[str]]:
    """One job that failed and one that succeeded, both with an attack in all they say."""

    def fail(word: str) -> None:
        tasks.huey.progress(1, 3, note=ATTACK)
        raise CrueltyError(ATTACK)

    def succeed(word: str) -> dict[str, Any]:
        tasks.huey.progress(2, 2, note=ATTACK)
        return {"said": ATTACK, ATTACK: [word]}

    made = [tasks.huey.task(name=f"cruel.{body.__name__}")(body) for body in (fail, succeed)]
    ids = [task(ATTACK).id for task in made]
    run_jobs()
    yield ids
    for task in made:
        tasks.huey._registry.unregister(task.task_class)


@pytest.fixture
def mails(app: Flask, operator: Browser, run_jobs: RunJobs) -> list[int]:
    """A book with an attack in each field, and the mails about it."""
    from app.bookshop import books as catalogue

    asked = catalogue.subscribe(ADDRESS, "Mystery")
    catalogue.confirm(asked.id)
    book = {"title": ATTACK, "author": f"{LINK} {ATTACK}"[:200], "genre": "Mystery"}
    assert operator.submit("/books", book).status_code == 303
    run_jobs()
    return [mail.id for mail in inbox.mails()]


class Tags(HTMLParser):
    """Reads a page as a browser does, and keeps its tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


def pages(app: Flask, jobs: list[str], mails: list[int]) -> list[str]:
    """List the address of every page, with each job and each mail that there is."""
    ids = {"uuid": jobs, "email_id": mails, "number": [1], "token": ["x"], "filename": ["site.css"]}
    found: list[str] = []
    for rule in app.url_map.iter_rules():
        if "GET" not in (rule.methods or ()) or rule.rule.endswith("/live"):
            continue
        values: list[dict[str, Any]] = [{}]
        for name in rule.arguments:
            values = [one | {name: value} for one in values for value in ids[name]]
        bound = app.url_map.bind("localhost")
        found += [bound.build(rule.endpoint, one) for one in values]
    found += [
        f"/inbox/{mail}?view={view}" for mail in mails for view in ("text", "html", "headers", "source")
    ]
    return found


def test_no_page_shows_what_strangers_wrote_as_markup(
    app: Flask, operator: Browser, jobs: list[str], mails: list[int]
) -> None:
    shown = set()
    for address in pages(app, jobs, mails):
        with operator.get(address) as response:
            text = response.get_data(as_text=True)
        if address.endswith("/html"):
            assert response.headers["Content-Security-Policy"].startswith("sandbox"), address
        if response.mimetype == "text/html":
            assert not [dangerous for dangerous in DANGEROUS if dangerous in text], address
            assert f'href="{LINK}' not in text, address
            assert ">49" not in text, "a template was made of it"
        if html.escape("<script>alert(1)", quote=False) in text:
            shown.add(address)
    both_jobs = {f"/jobs/{job}" for job in jobs}
    assert {"/"} | both_jobs <= shown, "the attack was not even there"
    assert any(address.startswith("/inbox/") for address in shown)


def test_json_is_never_taken_for_a_page(
    app: Flask, operator: Browser, jobs: list[str], mails: list[int]
) -> None:
    for address in (
        "/api/books",
        f"/api/jobs/{jobs[0]}",
        "/api/inbox",
        "/api/emails",
        f"/api/nowhere/{ATTACK}",
    ):
        response = operator.get(address, headers={"Accept": "text/html"})
        assert response.mimetype == "application/json", address
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "address",
    [
        f"/?q={ATTACK}&genre={ATTACK}", f"/?subscribed={ATTACK}&added={ATTACK}&job={ATTACK}&sold={ATTACK}",
        f"/jobs/{ATTACK}", f"/nowhere/{ATTACK}", f"/sign-in?next=/{ATTACK}", f"/sign-in?failed={ATTACK}",
        f"/confirm/{ATTACK}", f"/unsubscribe/{ATTACK}", f"/inbox/1?view={ATTACK}", f"/?before={ATTACK}",
        f"/desk?state={ATTACK}&task={ATTACK}&q={ATTACK}&said={ATTACK}&before={ATTACK}",
        f"/desk/emails?state={ATTACK}&to={ATTACK}",
    ],
)  # fmt: skip
def test_what_stands_in_an_address_is_text_on_its_page(
    operator: Browser, client: Browser, address: str
) -> None:
    path, _, query = address.partition("?")
    fields = dict(pair.partition("=")[::2] for pair in query.split("&")) if query else {}
    for one in (operator, client):
        text = one.get(path, query_string=fields, follow_redirects=True).text
        assert not [dangerous for dangerous in DANGEROUS if dangerous in text]


def test_a_refused_form_shows_what_was_typed_as_text(operator: Browser) -> None:
    refused = [
        operator.submit("/books", {"title": ATTACK, "author": ATTACK, "genre": ATTACK}),
        operator.submit("/subscriptions", {"email": ATTACK, "genre": ATTACK}),
        operator.submit("/sign-out", {"csrf_token": ATTACK}, page="/sign-in"),
    ]
    for response in refused:
        assert response.status_code == 400
        assert not [dangerous for dangerous in DANGEROUS if dangerous in response.text]


def test_a_title_cannot_add_a_header_to_a_mail(app: Flask, operator: Browser, run_jobs: RunJobs) -> None:
    from app.bookshop import books as catalogue

    catalogue.confirm(catalogue.subscribe("cleo@example.com", "Mystery").id)
    for title in (
        "A\r\nBcc: all@example.com",
        "A\nBcc: all@example.com",
        "A\u2028Bcc: all@example.com",
        "A\x0bBcc: x",
    ):
        operator.submit("/books", {"title": title, "author": title, "genre": "Mystery"})
    run_jobs()
    for mail in inbox.mails():
        assert "bcc" not in {name.lower() for name, _ in mail.headers}
        assert mail.source.lower().count(b"\r\nbcc:") == 0


def test_no_page_has_a_script_or_a_style_written_into_it(
    app: Flask, operator: Browser, jobs: list[str], mails: list[int]
) -> None:
    for address in pages(app, jobs, mails):
        with operator.get(address) as response:
            if response.mimetype != "text/html" or address.endswith("/html"):
                continue
            reader = Tags()
            reader.feed(response.get_data(as_text=True))
        for tag, attributes in reader.found:
            assert tag not in ("style", "object", "embed", "base"), address
            assert tag != "script" or attributes["src"].startswith("/static/"), address
            assert not [name for name in attributes if name == "style" or name.startswith("on")], address
            for name in ("href", "src", "action"):
                assert attributes.get(name, "/").startswith(("/", "?", "#", "http://", "https://")), address
