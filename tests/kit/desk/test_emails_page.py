"""The ledger over HTTP: what the operator sees of each mail, and does about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import DictLoader

from app.kit.mail.ledger import STATES
from app.kit.mail.sending import send_email
from app.settings import Settings
from tests.conftest import RunJobs
from tests.kit.smtp_sink import HANG_UP, SmtpSink

OPERATOR = {"Authorization": "Bearer the operator's token"}
CALLS = [
    ("GET", "/api/emails"),
    ("GET", "/api/emails/1"),
    ("POST", "/api/emails/1/send-again"),
    ("POST", "/api/emails/1/mark-sent"),
    ("POST", "/api/emails/1/cancel"),
]


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    token = "the operator's token"
    return Settings(data_dir=tmp_path, mail_url=sink.url, admin_token=token, mail_pause_delays_s=(0.05,))


@pytest.fixture(autouse=True)
def templates(app: Flask) -> None:
    app.jinja_env.loader = DictLoader({"emails/note.txt": "Note\n\nHello"})


def ask(client: FlaskClient, path: str, method: str = "GET", status: int = 200) -> Any:
    answer = client.open(path, method=method, headers=OPERATOR)
    assert answer.status_code == status, answer.text
    return answer.json


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer töken",
        "Basic dGhlOm9wZXJhdG9y",
        "the operator's token",
    ],
)
def test_nobody_but_the_operator_comes_in(
    client: FlaskClient, method: str, path: str, authorization: str | None
) -> None:
    send_email("cleo@example.com", "note")
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = client.open(path, method=method, headers=headers)
    assert (answer.status_code, answer.json["error"]["code"]) == (401, "operator_only")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "cleo" not in answer.text
    assert ask(client, "/api/emails/1")["email"]["state"] == "queued"


def test_mails_are_counted_and_listed_newest_first_with_their_attempts(
    client: FlaskClient, run_jobs: RunJobs, sink: SmtpSink
) -> None:
    sink.answer("rcpt", "550 5.7.1 not today")
    send_email("cleo@example.com", "note")
    run_jobs()
    send_email("omar@example.com", "note")
    found = ask(client, "/api/emails")
    assert found["counts"] == dict.fromkeys(STATES, 0) | {"queued": 1, "failed": 1}
    assert [(mail["to"], mail["state"]) for mail in found["emails"]] == [
        ("omar@example.com", "queued"),
        ("cleo@example.com", "failed"),
    ]
    (attempt,) = found["emails"][1]["attempts"]
    assert (attempt["stage"], attempt["code"], attempt["enhanced"]) == ("rcpt", 550, "5.7.1")
    assert (attempt["outcome"], attempt["words"]) == ("failed", "not today")
    assert attempt["began_at"] <= attempt["ended_at"]
    assert "message" not in found["emails"][0]


def test_mails_can_be_found_by_state_and_address(client: FlaskClient) -> None:
    send_email("cleo@example.com", "note")
    send_email("omar@bücher.example", "note")
    assert [mail["id"] for mail in ask(client, "/api/emails?state=queued")["emails"]] == [2, 1]
    assert ask(client, "/api/emails?state=sent")["emails"] == []
    assert [mail["id"] for mail in ask(client, "/api/emails?to=omar@bücher.example")["emails"]] == [2]
    assert [mail["id"] for mail in ask(client, "/api/emails?before=2")["emails"]] == [1]
    assert ask(client, "/api/emails?state=posted", status=400)["error"]["field"] == "state"
    assert ask(client, "/api/emails?to=nobody", status=400)["error"]["field"] == "to"


def test_unknown_mails_are_404(client: FlaskClient) -> None:
    for method, path in CALLS[1:]:
        assert ask(client, path, method, status=404)["error"]["code"] == "not_found"


def test_the_operator_says_what_became_of_a_mail(
    client: FlaskClient, run_jobs: RunJobs, sink: SmtpSink
) -> None:
    sink.answer("dot", HANG_UP, times=2)
    for _ in range(3):
        send_email("cleo@example.com", "note", policy="hold")
    run_jobs()
    unknown = [mail["id"] for mail in ask(client, "/api/emails?state=unknown")["emails"]]
    assert len(unknown) == 2
    arrived, lost = unknown
    assert ask(client, f"/api/emails/{arrived}/mark-sent", "POST")["email"]["state"] == "sent"
    assert ask(client, f"/api/emails/{lost}/send-again", "POST")["email"]["state"] == "queued"
    assert ask(client, f"/api/emails/{arrived}/mark-sent", "POST", 409)["error"]["code"] == "conflict"
    run_jobs()
    after = ask(client, f"/api/emails/{lost}")["email"]
    assert after["state"] == "sent"
    assert [attempt["outcome"] for attempt in after["attempts"]] == ["unknown", "by hand", "sent"]
    assert len(sink.messages) == 2


def test_the_operator_takes_a_waiting_mail_back(
    client: FlaskClient, run_jobs: RunJobs, sink: SmtpSink
) -> None:
    email_id = send_email("cleo@example.com", "note")
    assert ask(client, f"/api/emails/{email_id}/cancel", "POST")["email"]["state"] == "cancelled"
    assert ask(client, f"/api/emails/{email_id}/cancel", "POST", 409)["error"]["code"] == "conflict"
    run_jobs()
    assert sink.messages == []
    assert ask(client, f"/api/emails/{email_id}/send-again", "POST")["email"]["state"] == "queued"
    run_jobs()
    assert len(sink.messages) == 1
