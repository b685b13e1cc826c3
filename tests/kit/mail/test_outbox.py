"""The fixture `outbox`, with which the tests of a fork look at the mails their site sent."""

from __future__ import annotations

from contextlib import suppress

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import ChoiceLoader, DictLoader

from app.kit.database.file import database
from app.kit.mail.sending import send_email
from tests.conftest import Outbox


@pytest.fixture(autouse=True)
def templates(app: Flask) -> None:
    welcome = {"emails/welcome.txt": "Welcome, {{ name }}\n\nGood to have you, {{ name }}."}
    assert app.jinja_env.loader is not None
    app.jinja_env.loader = ChoiceLoader([DictLoader(welcome), app.jinja_env.loader])


def test_it_shows_what_was_sent_in_order(outbox: Outbox) -> None:
    assert list(outbox) == []
    send_email("cleo@example.com", "welcome", name="Cleo")
    send_email("omar@example.com", "welcome", name="Omar")
    assert [mail.subject for mail in outbox] == ["Welcome, Cleo", "Welcome, Omar"]
    assert outbox[-1].text == "Good to have you, Omar.\n"
    assert [mail.subject for mail in outbox.to("cleo@example.com")] == ["Welcome, Cleo"]
    assert len(outbox) == 2


def test_a_mail_of_a_transaction_that_fails_is_not_in_it(outbox: Outbox) -> None:
    with suppress(KeyError), database.transaction():
        send_email("cleo@example.com", "welcome", name="Cleo")
        raise KeyError
    assert list(outbox) == []


def test_it_sees_the_mails_of_pages(client: FlaskClient, outbox: Outbox) -> None:
    client.post("/api/subscriptions", json={"email": "cleo@example.com", "genre": "Mystery"})
    (mail,) = outbox
    assert "confirm" in mail.text
