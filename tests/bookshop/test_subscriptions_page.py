"""Subscribing over the web, and the two pages behind the links of mails."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import tasks
from app.bookshop import books as catalogue, links as tokens, subscription_pages as subscriptions_page
from app.bookshop.books import Subscription
from app.kit.database.file import database
from app.kit.mail import inbox

RunJobs = Callable[[], None]
Subscribe = Callable[[str, str], Subscription]

READER = {"email": "cleo@example.com", "genre": "Mystery"}
ONE_CLICK = {"List-Unsubscribe": "One-Click"}
FORM = re.compile(r'<form[^>]*method="post" action="([^"]+)"')


@pytest.fixture
def confirm_path(client: FlaskClient, run_jobs: RunJobs) -> str:
    """The path of the link in the mail that a reader gets who subscribes."""
    client.post("/api/subscriptions", json=READER)
    run_jobs()
    (mail,) = inbox.mails()
    (url,) = re.findall(r"\S+confirm/\S+", mail.text)
    return urlsplit(url).path


@pytest.fixture
def reader(subscribe: Subscribe) -> Subscription:
    """A reader of Mystery who has confirmed."""
    return subscribe(**READER)


@pytest.fixture
def unsubscribe_path(reader: Subscription) -> str:
    """The path of the link that every mail to the reader has."""
    return urlsplit(tokens.unsubscribe_url(reader)).path


def everything() -> list[list[tuple[object, ...]]]:
    """Return all that a page might have changed."""
    tables = ("subscriptions", "postroom_suppressions", "postroom_emails", "postroom_jobs")
    return [[tuple(row) for row in database.read(f"SELECT * FROM {table}")] for table in tables]


def text_of(response: TestResponse, status: int = 200) -> str:
    assert response.status_code == status
    return html.unescape(response.get_data(as_text=True))


def form_of(page: str) -> str:
    (action,) = FORM.findall(page)
    return str(action)


def state() -> str:
    (row,) = database.read("SELECT state FROM subscriptions")
    return str(row["state"])


# Subscribing


def test_the_answer_is_the_same_for_who_is_subscribed_and_who_is_not(
    client: FlaskClient, reader: Subscription
) -> None:
    new = {"email": "ada@example.com", "genre": "Mystery"}
    forms = [client.submit("/subscriptions", form) for form in (READER, new, new)]
    assert {(answer.status_code, answer.location) for answer in forms} == {(303, "/?subscribed=Mystery")}
    answers = [client.post("/api/subscriptions", json=body) for body in (READER, new, new)]
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert {tuple(answer.json["subscription"]) for answer in answers} == {("email", "genre")}


@pytest.mark.parametrize("is_json", [False, True])
def test_a_full_queue_refuses_to_subscribe_and_says_when_to_come_again(
    app: Flask, client: FlaskClient, is_json: bool
) -> None:
    tasks.huey.attach(database, replace(app.extensions["settings"], max_pending_jobs=1), app.app_context)
    client.submit("/subscriptions", READER | {"email": "first@example.com"})
    by_form = not is_json
    answer = (
        client.submit("/subscriptions", READER) if by_form else client.post("/api/subscriptions", json=READER)
    )
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert catalogue.subscriptions_of(READER["email"], "pending") == []


@pytest.mark.parametrize("email", ["cleo@", "cleo@example.com\nBcc: ada@example.com", "zoë@example.com"])
def test_an_address_that_no_mail_can_go_to_is_named(client: FlaskClient, email: str) -> None:
    answer = client.post("/api/subscriptions", json=READER | {"email": email})
    assert (answer.status_code, answer.json["error"]["field"]) == (400, "email")
    assert 'id="subscribe-email-error"' in text_of(
        client.submit("/subscriptions", READER | {"email": email}), 400
    )
    assert everything()[0] == []


def test_mails_to_confirm_have_a_bound_for_the_whole_site_and_who_answers_makes_room(
    client: FlaskClient, operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions_page, "MOST_UNANSWERED", 3)
    others = [READER | {"email": f"reader{number}@example.com"} for number in range(3)]
    for other in others:
        assert client.post("/api/subscriptions", json=other).status_code == 201
    for body in (READER, others[0]):
        answer = client.post("/api/subscriptions", json=body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3600")
        assert client.submit("/subscriptions", body).status_code == 429
    assert len(everything()[2]) == 3, "mails"
    assert operator.submit("/subscriptions", READER).status_code == 303
    for number in (1, 2, 4):
        catalogue.confirm(number)
    assert client.post("/api/subscriptions", json=READER | {"email": "late@example.com"}).status_code == 201


# Confirming


def test_the_mails_link_shows_what_it_is_about_and_one_button(client: FlaskClient, confirm_path: str) -> None:
    client.post("/api/subscriptions", json=READER | {"genre": "Travel"})
    page = text_of(client.get(confirm_path))
    assert "<li>Mystery</li>" in page
    assert "<li>Travel</li>" in page
    assert "<li>Poetry</li>" not in page
    assert form_of(page) == confirm_path
    assert page.count("<button") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_programs_that_open_the_links_of_a_mail_change_nothing(
    client: FlaskClient, confirm_path: str, method: str
) -> None:
    paths = [confirm_path, urlsplit(tokens.unsubscribe_url(catalogue.subscription(1))).path]
    before = everything()
    for path in paths * 3:
        assert client.open(path, method=method).status_code == 200
    assert everything() == before


def test_the_button_confirms_and_may_be_pressed_twice(client: FlaskClient, confirm_path: str) -> None:
    for _ in range(2):
        page = text_of(client.post(form_of(text_of(client.get(confirm_path)))))
        assert "You are subscribed" in page
        assert state() == "confirmed"
    assert catalogue.subscriber_count("Mystery") == 1


def test_a_link_that_was_used_already_says_so(client: FlaskClient, confirm_path: str) -> None:
    client.post(confirm_path)
    assert "confirmed this already" in text_of(client.get(confirm_path))


def test_a_used_link_does_not_bring_back_what_was_unsubscribed(
    client: FlaskClient, confirm_path: str
) -> None:
    client.post(confirm_path)
    client.post(urlsplit(tokens.unsubscribe_url(catalogue.subscription(1))).path)
    for answer in (client.get(confirm_path), client.post(confirm_path)):
        assert "Nothing to confirm" in text_of(answer)
    assert state() == "unsubscribed"


def test_a_link_that_is_too_old_says_what_to_do_and_confirms_nothing(
    app: Flask, client: FlaskClient, confirm_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("itsdangerous.TimestampSigner.get_timestamp", lambda _signer: 10**10)
    for answer in (client.get(confirm_path), client.post(confirm_path)):
        page = text_of(answer, 410)
        assert "Subscribe again" in page
        assert "Too late" in page
    assert state() == "pending"


def test_a_link_whose_subscription_was_forgotten_is_not_known(client: FlaskClient, confirm_path: str) -> None:
    database.write(lambda connection: connection.execute("DELETE FROM subscriptions").rowcount)
    for answer in (client.get(confirm_path), client.post(confirm_path)):
        assert "not known here" in text_of(answer, 404)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("page", ["confirm", "unsubscribe"])
def test_a_wrong_link_gets_a_page_and_changes_nothing(
    client: FlaskClient, reader: Subscription, page: str, method: str
) -> None:
    other = "unsubscribe" if page == "confirm" else "confirm"
    good = urlsplit(getattr(tokens, f"{page}_url")(reader)).path
    of_other = urlsplit(getattr(tokens, f"{other}_url")(reader)).path
    before = everything()
    for path in (
        good[:-1],
        good + "x",
        of_other.replace(other, page),
        f"/{page}/1",
        f"/{page}/%00",
        f"/{page}/é",
    ):
        text = text_of(client.open(path, method=method), 404)
        assert "not known here" in text
        assert "Traceback" not in text
    assert everything() == before


# Unsubscribing


def test_the_way_out_shows_one_button_that_leads_to_the_same_address(
    client: FlaskClient, unsubscribe_path: str
) -> None:
    page = text_of(client.get(unsubscribe_path))
    assert "Mystery" in page
    assert form_of(page) == unsubscribe_path
    assert page.count("<button") == 1
    assert state() == "confirmed"


@pytest.mark.parametrize(
    "body",
    [
        {"data": ONE_CLICK},
        {"data": ONE_CLICK, "content_type": "multipart/form-data"},
        {"data": {}},
        {"data": b"\xff not a form", "content_type": "text/plain"},
        {"data": ONE_CLICK, "headers": {"Origin": "https://mail.example", "Sec-Fetch-Site": "cross-site"}},
    ],
    ids=["one-click", "multipart", "form", "nonsense", "another site"],
)
def test_one_request_unsubscribes_whatever_else_it_carries(
    client: FlaskClient, unsubscribe_path: str, body: dict[str, object]
) -> None:
    for _ in range(2):
        answer = client.post(unsubscribe_path, **body)
        assert "You are unsubscribed" in text_of(answer)
        assert "Set-Cookie" not in answer.headers
        assert state() == "unsubscribed"
    assert catalogue.subscriber_count("Mystery") == 0


def test_links_of_old_mails_go_on_working_for_who_has_come_back(
    client: FlaskClient, unsubscribe_path: str, subscribe: Subscribe
) -> None:
    client.post(unsubscribe_path)
    subscribe(**READER)
    assert state() == "confirmed"
    client.post(unsubscribe_path)
    assert state() == "unsubscribed"


# The pages themselves


@pytest.mark.parametrize("page", ["confirm", "unsubscribe"])
@pytest.mark.parametrize("cut", [None, -1], ids=["good", "wrong"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_address_that_holds_a_token_is_told_to_nobody(
    client: FlaskClient, reader: Subscription, page: str, cut: int | None, method: str
) -> None:
    path = urlsplit(getattr(tokens, f"{page}_url")(reader)).path[:cut]
    headers = client.open(path, method=method).headers
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "noindex" in headers["X-Robots-Tag"]


def test_other_pages_may_be_found_and_kept(client: FlaskClient) -> None:
    headers = client.submit("/subscriptions", READER).headers
    assert "X-Robots-Tag" not in headers
    assert headers["Referrer-Policy"] == "same-origin"


def test_the_pages_hold_nothing_that_their_policy_would_block_and_name_nobody(
    client: FlaskClient, confirm_path: str, unsubscribe_path: str
) -> None:
    for path in (confirm_path, unsubscribe_path):
        for answer in (client.get(path), client.post(path)):
            page = text_of(answer)
            assert "cleo" not in page  # a mail may have been passed on
            for forbidden in ("<style", "<script", " style=", "http://", "https://"):
                assert forbidden not in page
