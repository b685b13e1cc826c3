"""Copy me: tests of a task, a page and a mail.

With the fixture `immediate` a job runs where it is enqueued; `outbox` has the mails that were sent.
"""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import ChoiceLoader, DictLoader

from tasks import send_email
from tasks.example import count_words
from tests.conftest import Outbox


@pytest.mark.usefixtures("immediate")
def test_a_task_is_called_and_its_result_read() -> None:
    assert count_words("it is a small world").get() == 5


def test_a_page_is_asked_for(client: FlaskClient) -> None:
    assert client.get("/").status_code == 200


def test_a_mail_is_sent(app: Flask, outbox: Outbox) -> None:
    letter = DictLoader({"emails/hello.txt": "Hello, {{ name }}\n\nGood to have you here."})
    app.jinja_env.loader = ChoiceLoader([letter, app.jinja_env.loader or letter])
    send_email("cleo@example.com", "hello", name="Cleo")
    assert [(mail.to, mail.subject) for mail in outbox] == [("cleo@example.com", "Hello, Cleo")]
