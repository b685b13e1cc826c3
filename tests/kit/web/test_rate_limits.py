"""How often strangers may subscribe, add books and guess the token; what a refusal says; counts stay bounded."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.kit.database.file import database
from app.kit.web import rate_counts, rate_limits
from app.kit.web.rate_counts import CountsInMemory
from app.kit.web.rate_limits import limiter
from app.settings import Settings
from tests.kit.forms import Browser

HOUR_S = 3600
BOOK = {"title": "A Parrot at the Counter", "author": "Cleo Finch", "genre": "Mystery"}


def subscribe(client: Browser, email: str, ip: str = "192.0.2.1", **headers: str) -> int:
    response = client.post(
        "/api/subscriptions",
        json={"email": email, "genre": "Mystery"},
        environ_overrides={"REMOTE_ADDR": ip},
        headers=headers,
    )
    return int(response.status_code)


def guess(client: Browser, token: str, ip: str = "192.0.2.1") -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return int(client.get("/api/emails", headers=headers, environ_overrides={"REMOTE_ADDR": ip}).status_code)


@pytest.fixture
def site(settings: Settings) -> Callable[..., Browser]:
    """A function that builds a client of a site with other settings."""

    def build(**changes: Any) -> Browser:
        app = create_app(replace(settings, **changes))
        app.test_client_class = Browser
        return app.test_client()

    return build


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A function that lets time pass."""
    real_time = time.time

    def later(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real_time() + seconds)

    return later


# Subscribing


def test_three_hundred_subscriptions_from_one_client_are_twenty(app: Flask, client: Browser) -> None:
    answers = Counter(subscribe(client, f"reader{number}@example.com") for number in range(300))
    (mails,) = database.read_one("SELECT count(*) FROM postroom_emails") or ()
    assert answers == {201: 20, 429: 280}
    assert mails == 20


def test_however_many_clients_ask_for_one_address_it_gets_one_mail(app: Flask, client: Browser) -> None:
    answers = Counter(
        subscribe(client, spelling, f"192.0.{net}.{host}")
        for net in range(2)
        for host in range(50)
        for spelling in ("cleo@example.com", "Cleo@Example.com ", "cleo@example.com")
    )
    (mails,) = database.read_one("SELECT count(*) FROM postroom_emails") or ()
    assert (answers[201], mails) == (5, 1)


def test_plus_addresses_of_one_mailbox_count_as_one(client: Browser) -> None:
    answers = [subscribe(client, f"cleo+{number}@example.com", f"192.0.2.{number}") for number in range(9)]
    assert answers == [201] * 5 + [429] * 4
    assert subscribe(client, "cleo@example.com", "192.0.2.99") == 429
    assert subscribe(client, "ada+1@example.com", "192.0.2.99") == 201


def test_the_form_and_the_call_count_together(client: Browser) -> None:
    for number in range(10):
        assert subscribe(client, f"a{number}@example.com", "127.0.0.1") == 201
        form = {"email": f"b{number}@example.com", "genre": "Mystery"}
        assert client.submit("/subscriptions", form).status_code == 303
    assert client.submit("/subscriptions", {"email": "c@example.com", "genre": "Mystery"}).status_code == 429


def test_a_refusal_says_when_to_come_again_in_each_sides_own_way(client: Browser) -> None:
    for number in range(20):
        subscribe(client, f"a{number}@example.com", "127.0.0.1")
    call = client.post("/api/subscriptions", json={"email": "b@example.com", "genre": "Mystery"})
    assert call.json["error"]["code"] == "too_many_requests"
    assert 3000 < int(call.headers["Retry-After"]) <= 3602
    page = client.submit("/subscriptions", {"email": "b@example.com", "genre": "Mystery"})
    assert page.status_code == 429
    assert 3000 < int(page.headers["Retry-After"]) <= 3602
    assert re.search(r"Try again in [56]\d minutes\.", page.text)


def test_after_an_hour_it_goes_on(client: Browser, later: Callable[[float], None]) -> None:
    for number in range(20):
        subscribe(client, f"a{number}@example.com")
    assert subscribe(client, "b@example.com") == 429
    later(HOUR_S + 1)
    assert subscribe(client, "b@example.com") == 201


def test_the_operator_is_not_limited(app: Flask, client: Browser) -> None:
    bearer = f"Bearer {app.extensions['settings'].admin_token}"
    answers = {subscribe(client, f"a{number}@example.com", Authorization=bearer) for number in range(30)}
    assert answers == {201}


def test_it_can_be_switched_off(site: Callable[..., Browser]) -> None:
    client = site(ratelimit_enabled=False)
    assert {subscribe(client, f"a{number}@example.com") for number in range(30)} == {201}
    assert {guess(client, "wrong") for _ in range(30)} == {401}


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"{", b'{"email": 7}', b'{"email": {"a": 1}}', b"", b"null"])
def test_a_body_without_an_address_is_refused_for_what_it_is(client: Browser, body: bytes) -> None:
    response = client.post("/api/subscriptions", data=body, content_type="application/json")
    assert response.status_code == 400


def test_strangers_add_only_so_many_books(client: Browser) -> None:
    answers = Counter(client.post("/api/books", json=BOOK).status_code for _ in range(130))
    assert answers == {201: 120, 429: 10}


# Who is one client


@pytest.mark.parametrize(
    ("hops", "ips", "forwarded", "got_through"),
    [
        (0, "192.0.2.1", "198.51.100.{n}", 20),
        (1, "10.0.0.1", "198.51.100.{n}", 40),
        (1, "10.0.0.1", "198.51.100.{n}, 203.0.113.9", 20),
        (2, "10.0.0.1", "198.51.100.{n}, 203.0.113.9", 40),
        (0, "2001:db8:0:1::{n}", "", 20),
        (0, "2001:db8:{n}::1", "", 40),
        (0, "::ffff:192.0.2.{n}", "", 40),
        (0, "fe80::{n}%eth0", "", 20),
        (0, "", "", 20),
        (0, "unix:{n}", "", 20),
        # as gateways and broken proxies write it
        (1, "10.0.0.1", "203.0.113.9:{n}", 20),
        (1, "10.0.0.1", "198.51.100.{n}:443", 40),
        (1, "10.0.0.1", "[2001:db8::1]:{n}", 20),
        (1, "10.0.0.1", "2001:db8:0:1::{n}", 20),
        (1, "10.0.0.1", "::ffff:198.51.100.{n}", 40),
        (1, "10.0.0.1", "198.51.100.{n}, 203.0.113.9, ", 20),
        (1, "10.0.0.1", "x{n}", 20),
        (1, "10.0.0.1", "", 20),
        (2, "10.0.0.1", "198.51.100.{n}", 40),
    ],
)
def test_a_client_is_its_network_address_as_the_nearest_proxy_of_ours_tells_it(
    site: Callable[..., Browser], hops: int, ips: str, forwarded: str, got_through: int
) -> None:
    client = site(behind_proxy=hops)
    answers = Counter(
        subscribe(client, f"a{n}@example.com", ips.format(n=n), **{"X-Forwarded-For": forwarded.format(n=n)})
        for n in range(40)
    )
    assert answers[201] == got_through


@pytest.mark.parametrize(
    ("hops", "ip", "forwarded", "said"),
    [(0, "10.0.0.1", True, 1), (0, "10.0.0.1", False, 0), (0, "8.8.8.8", True, 0), (1, "10.0.0.1", True, 0)],
)
def test_a_proxy_that_nobody_told_us_of_is_named_once(
    site: Callable[..., Browser],
    caplog: pytest.LogCaptureFixture,
    hops: int,
    ip: str,
    forwarded: bool,
    said: int,
) -> None:
    rate_limits._say_that_a_proxy_is_not_told.cache_clear()
    client = site(behind_proxy=hops)
    headers = {"X-Forwarded-For": "198.51.100.7"} if forwarded else {}
    for number in range(3):
        subscribe(client, f"a{number}@example.com", ip, **headers)
    assert caplog.text.count("BEHIND_PROXY is 0") == said


# Guessing the token


def test_guesses_are_throttled_by_client_even_when_they_are_right(app: Flask, client: Browser) -> None:
    token = app.extensions["settings"].admin_token
    answers = [guess(client, f"guess {number}") for number in range(30)]
    assert answers == [401] * 20 + [429] * 10
    assert guess(client, token) == 429, "or the answer would tell that this one was right"
    assert guess(client, token, "192.0.2.2") == 200
    link = client.get(
        "/sign-in", query_string={"token": token}, environ_overrides={"REMOTE_ADDR": "192.0.2.1"}
    )
    assert link.status_code == 429
    assert "Set-Cookie" not in link.headers


def test_guesses_by_form_link_and_header_count_together_wherever_they_are_sent(client: Browser) -> None:
    sent = [
        lambda: client.submit("/sign-in", {"token": "wrong"}, page="/sign-in"),
        lambda: client.get("/sign-in?token=wrong"),
        lambda: client.get("/", headers={"Authorization": "Bearer wrong"}),
        lambda: client.get("/nowhere", headers={"Authorization": "Bearer wrong"}),
    ]
    assert [one().status_code for _ in range(5) for one in sent] == [401, 303, 200, 404] * 5
    assert [one().status_code for one in sent] == [429] * 4


def throttle(client: Browser, ip: str = "127.0.0.1") -> None:
    assert [guess(client, f"wrong {number}", ip) for number in range(20)] == [401] * 20


@pytest.mark.parametrize(
    ("method", "address", "body"),
    [
        *[(method, "/nowhere", {}) for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE")],
        *[
            ("GET", address, {})
            for address in ("/", "/api/emails", "/api/queue", "/desk", "/ready", "/sign-in")
        ],
        ("POST", "/", {}),
        ("POST", "/api/books", {"data": b"x" * 2_000_000}),
        ("POST", "/api/books", {"data": b"{", "content_type": "application/json"}),
        ("POST", "/api/books", {"data": b"{", "headers": {"Content-Length": "9"}}),
        ("POST", "/books", {"data": {"title": "x"}}),
    ],
)
def test_no_answer_to_a_throttled_client_tells_whether_a_guess_was_right(
    app: Flask, client: Browser, method: str, address: str, body: dict[str, Any]
) -> None:
    throttle(client)
    told = []
    for token in ("wrong", app.extensions["settings"].admin_token):
        headers = {"Authorization": f"Bearer {token}"} | body.get("headers", {})
        answer = client.open(address, method=method, **(body | {"headers": headers}))
        told.append((answer.status_code, answer.data, sorted(answer.headers)))
    assert told[0] == told[1]
    assert told[0][0] == 429


@pytest.mark.parametrize(
    ("method", "address", "body"),
    [
        ("OPTIONS", "/desk", {}),
        ("HEAD", "/", {}),
        ("POST", "/api/books", {"data": b"x" * 2_000_000}),
        ("POST", "/api/books", {"data": b"{", "content_type": "application/json"}),
        ("POST", "/books", {"data": b"short", "headers": {"Content-Length": "9"}}),
    ],
)
def test_a_guess_counts_whatever_else_is_wrong_with_its_request(
    client: Browser, method: str, address: str, body: dict[str, Any]
) -> None:
    headers = {"Authorization": "Bearer wrong"} | body.get("headers", {})
    answers = [client.open(address, method=method, **(body | {"headers": headers})) for _ in range(21)]
    assert 429 not in [answer.status_code for answer in answers[:20]]
    assert answers[20].status_code == 429


def test_guesses_at_once_are_no_more_than_those_one_by_one(app: Flask) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(lambda _: guess(app.test_client(), "x"), range(60)))
    assert answers == {401: 20, 429: 40}


def test_however_many_strangers_guess_the_operator_comes_in(app: Flask, client: Browser) -> None:
    for number in range(600):
        guess(client, "x", f"192.0.{number // 250}.{number % 250}")
    token = app.extensions["settings"].admin_token
    headers = {"Authorization": f"Bearer {token}"}
    assert {client.get(path, headers=headers).status_code for path in ("/api/emails", "/metrics", "/")} == {
        200
    }
    assert client.get("/sign-in", query_string={"token": token}).location == "/desk"


def test_a_health_check_answers_everybody_and_is_no_place_to_guess(app: Flask, client: Browser) -> None:
    throttle(client)
    tokens = [f"wrong {number}" for number in range(30)] + [app.extensions["settings"].admin_token]
    answers = [client.get("/up", headers={"Authorization": f"Bearer {token}"}) for token in tokens]
    assert {(answer.status_code, str(answer.headers)) for answer in answers} == {
        (200, str(answers[0].headers))
    }


def test_who_is_signed_in_stays_so_while_others_guess(operator: Browser, client: Browser) -> None:
    for number in range(600):
        guess(client, "x", f"192.0.{number // 250}.{number % 250}")
    assert operator.get("/api/emails").status_code == 200


def test_the_right_token_is_never_counted(app: Flask, client: Browser) -> None:
    token = app.extensions["settings"].admin_token
    assert {guess(client, token) for _ in range(50)} == {200}


# The counts


def test_counts_of_many_clients_stay_bounded_and_go_when_their_hour_is_over(
    later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_counts, "MOST_KEYS", 100)
    counts = CountsInMemory()
    for number in range(3 * rate_counts.MOST_KEYS):
        counts.incr(f"client {number}", HOUR_S)
        counts.incr(f"client {number // 3}", HOUR_S)
    assert len(counts) == rate_counts.MOST_KEYS
    later(HOUR_S + 1)
    counts.incr("one more", HOUR_S)
    counts.incr("one more", HOUR_S)
    counts.incr("the next one", HOUR_S)
    assert len(counts) == 2


def test_made_up_keys_push_out_no_count_that_grew() -> None:
    counts = CountsInMemory()
    for _ in range(20):
        counts.incr("a client that asks too often", HOUR_S)
    for number in range(2 * rate_counts.MOST_KEYS):
        counts.incr(f"made up {number}", HOUR_S)
    assert counts.get("a client that asks too often") == 20


def test_a_client_past_its_bound_makes_up_no_more_addresses_to_be_counted(client: Browser) -> None:
    answers = Counter(subscribe(client, f"made.up.{number}@example.com") for number in range(200))
    assert answers == {201: 20, 429: 180}
    assert len(limiter.storage) == 21


def test_threads_that_count_at_once_lose_nothing() -> None:
    counts = CountsInMemory()

    def count() -> None:
        for _ in range(2_000):
            counts.incr("one key", HOUR_S)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts.get("one key") == 8_000


def test_a_count_is_gone_after_its_window_and_can_be_taken_back(later: Callable[[float], None]) -> None:
    counts = CountsInMemory()
    assert [counts.incr("a", HOUR_S), counts.incr("a", HOUR_S, 2), counts.get("a"), counts.get("b")] == [
        1,
        3,
        3,
        0,
    ]
    counts.clear("a")
    assert counts.get("a") == 0
    counts.incr("a", HOUR_S)
    assert (counts.reset(), counts.get("a"), counts.check()) == (1, 0, True)
    counts.incr("a", HOUR_S)
    later(HOUR_S + 1)
    assert counts.get("a") == 0


def test_an_app_begins_without_a_thread(settings: Settings) -> None:
    before = threading.active_count()
    create_app(settings)
    assert threading.active_count() == before


def test_a_window_that_began_by_a_clock_that_was_ahead_locks_nobody_out(
    later: Callable[[float], None],
) -> None:
    counts = CountsInMemory()
    later(40 * 24 * 3600)
    for _ in range(3):
        counts.incr("a key", 60)
    assert counts.get("a key") == 3
    later(0)
    assert (counts.get("a key"), counts.incr("a key", 60)) == (0, 1)
