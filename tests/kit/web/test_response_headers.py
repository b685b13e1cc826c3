"""The headers of every answer, wherever the site runs; and that errors tell nobody a secret, the log included."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import tasks
from app import create_app
from app.kit.host import logs
from app.settings import Settings
from tasks.example import count_words
from tests.kit.forms import Browser

PASSWORD = "hunter2%2Fhunter2"
SECRETS = {
    "admin_token": "the operator's own token",
    "secret_key": "0123456789abcdef" * 3,
    "mail_url": f"smtp://cleo:{PASSWORD}@localhost:9",
}
BANNED = (
    SECRETS["admin_token"],
    SECRETS["secret_key"],
    PASSWORD,
    "hunter2/hunter2",
    "Traceback",
    "RuntimeError",
)


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Browser]:
    """A function that builds a client of a site with an environment of the test's choice."""

    def build(**environ: str) -> Browser:
        app = create_app(Settings.read(environ | {"DATA_DIR": str(tmp_path)}))
        app.test_client_class = Browser
        return app.test_client()

    return build


def every_kind_of_answer(client: Browser) -> dict[int, Any]:
    """Return an answer of each status that strangers can get."""
    book = {"title": "x" * 2_000_000}
    answers = [
        client.get("/"), client.get("/up"), client.get("/static/kit/site.css"),
        client.get("/desk"), client.get("/x"),
        client.get("/api/x"), client.get("/books"), client.post("/books"), client.post("/api/books", json=book),
        client.post("/api/subscriptions"), client.get("/api/emails"), client.get("/desk/"),
    ]  # fmt: skip
    answers += [client.get("/sign-in?token=x") for _ in range(21)]
    for answer in answers:
        answer.close()
    found = {answer.status_code: answer for answer in answers}
    assert {200, 303, 400, 401, 404, 405, 413, 415, 429} <= set(found)
    return found


@pytest.mark.parametrize(
    ("environ", "frame_ancestors", "hsts"),
    [
        ({}, True, False),
        ({"PUBLIC_URL": "https://books.example.com"}, True, False),
        ({"PUBLIC_URL": "https://books.example.com", "APP_ENV": "production"}, True, True),
        ({"PUBLIC_URL": "http://books.example.com", "APP_ENV": "production"}, True, False),
        ({"REPL_ID": "1", "REPLIT_DOMAINS": "books.replit.dev"}, False, False),
        ({"REPL_ID": "1", "REPLIT_DEPLOYMENT": "1", "REPLIT_DOMAINS": "books.replit.app"}, True, True),
    ],
    ids=["a laptop", "https", "production, https", "production", "Replit's editor", "published on Replit"],
)
def test_every_answer_says_what_a_browser_may_not_do_with_it(
    site: Callable[..., Browser], environ: dict[str, str], frame_ancestors: bool, hsts: bool
) -> None:
    for status, answer in every_kind_of_answer(site(**environ)).items():
        headers = answer.headers
        policy = headers["Content-Security-Policy"].split("; ")
        assert policy[:4] == [
            "default-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "object-src 'none'",
        ]
        assert policy[4:] == (["frame-ancestors 'self'"] if frame_ancestors else []), status
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert ("Strict-Transport-Security" in headers) == hsts, status
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] in ("same-origin", "no-referrer")
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Permissions-Policy"].startswith("camera=()")
        assert "X-Frame-Options" not in headers


def test_what_is_hidden_from_caches_stays_so(client: Browser, operator: Browser) -> None:
    assert operator.get("/desk").headers["Cache-Control"] == "no-store"
    assert client.get("/sign-in").headers["Cache-Control"] == "no-store"
    with operator.get("/static/kit/site.css") as style:
        assert "no-store" not in style.headers["Cache-Control"]


def test_a_jobs_address_is_kept_by_no_cache_and_no_search_engine(client: Browser) -> None:
    for known in (True, False):
        job = (
            count_words.schedule(("hello",), delay=60).id if known else "01936f2e-0000-7000-8000-000000000000"
        )
        for path in (f"/jobs/{job}", f"/api/jobs/{job}"):
            headers = client.get(path).headers
            assert (headers["Cache-Control"], headers["X-Robots-Tag"]) == ("no-store", "noindex, nofollow")


def test_what_is_alike_for_all_does_not_look_at_who_asks(operator: Browser, client: Browser) -> None:
    for one in (operator, client):
        for path in ("/up", "/static/kit/site.css", "/favicon.ico"):
            with one.get(path) as answer:
                assert answer.status_code == 200
                assert "Vary" not in answer.headers


# Secrets


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, **SECRETS)


@pytest.fixture
def log(settings: Settings) -> io.StringIO:
    """What the site's log would hold, as it is set up at the start."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.DiscreetFormatter(settings.secrets))
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


def careless(*_args: object, **_kwargs: object) -> None:
    """Fail as a program does that puts all it knows into its error."""
    raise RuntimeError(f"cannot go on: {SECRETS} {'hunter2/hunter2'}")


def test_an_error_nobody_caught_tells_no_secret(
    app: Flask, client: Browser, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = False
    monkeypatch.setattr("app.bookshop.books.find_books", careless)
    monkeypatch.setattr("app.bookshop.links.read_confirm", careless)
    for address in ("/", "/api/books", "/confirm/a-secret-of-a-reader"):
        answer = client.get(address)
        assert answer.status_code == 500
        assert not [secret for secret in BANNED if secret in answer.text]
    text = log.getvalue()
    assert text.count("Traceback") == 3
    assert "GET /confirm/<token> failed" in text
    assert "a-secret-of-a-reader" not in text
    assert not [secret for secret in BANNED[:4] if secret in text]


def test_a_jobs_error_is_the_operators_and_tells_the_log_no_secret(
    app: Flask, client: Browser, log: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "huey")
    task = tasks.huey.task(name="careless")(careless)
    job = task().id
    consumer = tasks.huey.create_consumer(workers=1)
    consumer.start(always=True)
    try:
        tasks.huey.wait_until_idle(timeout_s=30)
    finally:
        consumer.stop()
        tasks.huey._registry.unregister(task.task_class)
    answer = client.get(f"/api/jobs/{job}").json
    assert (answer["state"], answer["error"]) == ("failed", None)
    for address in (f"/api/jobs/{job}", f"/jobs/{job}", f"/jobs/{job}/live", "/api/queue", "/ready"):
        assert not [secret for secret in BANNED if secret in client.get(address).text], address
    assert "cannot go on" in log.getvalue()
    assert not [secret for secret in BANNED[:4] if secret in log.getvalue()]


def test_no_page_shows_a_secret_to_anybody_not_even_to_the_operator(app: Flask, operator: Browser) -> None:
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()) and not rule.arguments:
            with operator.get(rule.rule) as answer:
                text = answer.get_data(as_text=True)
            assert not [secret for secret in BANNED if secret in text], rule.rule


def test_a_secret_too_short_to_be_told_from_other_words_is_left_in_the_log() -> None:
    assert Settings(admin_token="a", secret_key="the", mail_url="smtp://cleo:x@localhost").secrets == {
        "smtp://cleo:x@localhost"
    }


def test_an_api_key_is_a_secret() -> None:
    assert "re_12345" in Settings(mail_url="resend://re_12345").secrets
