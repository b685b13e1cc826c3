"""Mail by Resend's API, and what may be seen of it: real ledger rows, a real HTTP server at the other end."""

from __future__ import annotations

import base64
import json
import logging
import socket
import threading
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
from flask import Flask

from app.kit.database.file import database
from app.kit.errors import SettingError
from app.kit.mail.delivery import LaneClosedError, TryLaterError, deliver
from app.kit.mail.replies import NotSentError, Verdict
from app.kit.mail.resend import ResendTransport
from app.kit.mail.transports import transport_for
from app.settings import Settings
from tests.kit.certificates import self_signed_context, server_context, trust_authority
from tests.kit.resend_rig import (
    JOB,
    SENDER,
    UNSUBSCRIBE,
    add,
    mail_app,
    row,
    source,
)
from tests.kit.resend_server import (
    HANG_UP,
    KEY,
    SILENCE,
    Answer,
    ResendServer,
    refusal,
)


@pytest.fixture
def server() -> Iterator[ResendServer]:
    with ResendServer() as server:
        yield server


@pytest.fixture
def app(tmp_path: Path, server: ResendServer) -> Iterator[Flask]:
    """An app that has mail and nothing else."""
    with mail_app(tmp_path, server) as app:
        yield app


# What goes over the wire


@pytest.mark.usefixtures("app")
def test_mail_goes_out_with_all_that_is_in_it(server: ResendServer) -> None:
    email_id = add(message=source(attachment=b"%PDF\x00\xff"))
    assert deliver(email_id, JOB) == "sent"
    (sent,) = server.emails
    assert sent.pop("id") in row(email_id)["words"]
    assert sent == {
        "from": SENDER,
        "to": ["cleo@example.com"],
        "subject": "Söup",
        "text": "Hällo\nCleo\n",
        "html": "<p>Hällo</p>\n",
        "headers": {
            "Message-ID": "<row-1@books.example>",
            "Auto-Submitted": "auto-generated",
            "List-Id": "=?utf-8?q?G=C3=A9nre?= <genre.lists.books.example>",
            "List-Unsubscribe": f"{UNSUBSCRIBE}, <mailto:post@books.example>",
        },
        "attachments": [
            {
                "filename": "rechnung-ä.pdf",
                "content_type": "application/pdf",
                "content": base64.b64encode(b"%PDF\x00\xff").decode(),
            }
        ],
    }
    (request,) = server.requests
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert (row(email_id)["stage"], row(email_id)["code"]) == ("http", 200)


@pytest.mark.usefixtures("app")
def test_answers_go_where_they_are_wanted_and_a_copy_goes_once(server: ResendServer) -> None:
    mail = message_from_bytes(source(), policy=policy.SMTP)
    mail["Cc"], mail["Reply-To"] = "boss@example.com", "help@example.com, desk@example.com"
    deliver(add(message=mail.as_bytes()), JOB)
    (sent,) = server.emails
    assert (sent["to"], sent["reply_to"]) == (["cleo@example.com"], ["help@example.com", "desk@example.com"])
    assert "boss@example.com" not in str(sent)


@pytest.mark.usefixtures("app")
def test_mail_inside_a_mail_goes_out_as_it_is(server: ResendServer) -> None:
    inner, mail = EmailMessage(), EmailMessage()
    inner["Subject"] = "inner"
    mail["Subject"] = "outer"
    mail.set_content("text")
    mail.add_attachment(inner)
    deliver(add(message=mail.as_bytes(policy=policy.SMTP)), JOB)
    (attachment,) = server.emails[0]["attachments"]
    assert attachment["content_type"] == "message/rfc822"
    assert b"Subject: inner" in base64.b64decode(attachment["content"])


@pytest.mark.usefixtures("app")
def test_a_row_makes_the_same_request_on_every_try(server: ResendServer) -> None:
    server.answer(refusal(409, "concurrent_idempotent_requests", "Still in progress."), times=2)
    email_id = add()
    for _ in range(2):
        with pytest.raises(TryLaterError):
            deliver(email_id, JOB)
    assert deliver(email_id, JOB) == "sent"
    assert len({request.body for request in server.requests}) == 1
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


# Before the mail leaves


def test_nobody_listening_pauses_the_lane_and_the_mail_never_said_sending(app: Flask) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"resend://{KEY}@127.0.0.1:{unused.getsockname()[1]}"
        app.extensions["transport"] = ResendTransport(url, SENDER)
        email_id = add()
        with pytest.raises(LaneClosedError, match="ConnectionRefusedError"):
            deliver(email_id, JOB)
    found = row(email_id)
    assert (found["state"], found["stage"], found["tries"]) == ("queued", "connect", 0)
    assert found["maybe_sent_at"] is None


@pytest.mark.usefixtures("app")
def test_redirect_is_not_followed(server: ResendServer) -> None:
    with ResendServer() as elsewhere:
        place = f"http://127.0.0.1:{elsewhere.port}/emails"
        for status in (301, 302, 307, 308):
            server.answer(Answer(status, b"moved", {"Location": place}))
            email_id = add()
            with pytest.raises(LaneClosedError):
                deliver(email_id, JOB)
            database.write(lambda connection: connection.execute("DELETE FROM postroom_emails").rowcount)
        assert elsewhere.requests == []


def test_host_that_is_not_this_machine_hears_nothing_in_clear_text() -> None:
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hear() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=hear)
        thread.start()
        # A name is not known to be this machine, even this one.
        transport = ResendTransport(f"resend://{KEY}@localhost:{listener.getsockname()[1]}", SENDER)
        with pytest.raises(NotSentError) as caught:
            transport.probe()
        thread.join(10)
    assert (caught.value.reply.stage, caught.value.verdict) == ("connect", Verdict.LANE)
    assert heard
    assert KEY.encode() not in heard[0]
    assert b"HTTP" not in heard[0]


def test_mail_goes_out_encrypted_to_a_server_whose_certificate_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_authority(monkeypatch, tmp_path)
    context = server_context("localhost")
    with ResendServer(context) as server, mail_app(tmp_path, server):
        assert deliver(add(), JOB) == "sent"
        assert len(server.emails) == 1


@pytest.mark.parametrize("fault", ["self-signed", "expired", "of another host"])
def test_certificate_that_does_not_hold_stops_the_mail_before_the_key_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    trust_authority(monkeypatch, tmp_path)
    contexts = {
        "self-signed": self_signed_context(tmp_path),
        "expired": server_context("localhost", expired=True),
        "of another host": server_context("elsewhere.example"),
    }
    with ResendServer(contexts[fault]) as server, mail_app(tmp_path, server):
        email_id = add()
        with pytest.raises(LaneClosedError, match="SSLCertVerificationError"):
            deliver(email_id, JOB)
        assert (row(email_id)["stage"], row(email_id)["maybe_sent_at"]) == ("connect", None)
        assert server.requests == []


def test_tls_that_is_never_answered_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"resend://{KEY}@localhost:{listener.getsockname()[1]}"
        transport = ResendTransport(url, SENDER, connect_s=0.1)
        with pytest.raises(NotSentError, match="timed out"):
            transport.probe()


# MAIL_URL, and its secret


def test_mail_url_names_the_host_and_the_key_as_it_is_written(tmp_path: Path) -> None:
    transport = ResendTransport("resend://re_AbC_123", SENDER)
    assert (transport.host, transport.port, transport.name) == ("api.resend.com", 443, "resend")
    assert transport._key == "re_AbC_123"
    assert transport._tls is not None
    transport = ResendTransport("resend://re_AbC%2B1@mail.example:8443", SENDER)
    assert (transport.host, transport.port, transport._key) == ("mail.example", 8443, "re_AbC+1")
    assert transport._tls is not None
    transport = ResendTransport("resend://re_AbC@[::1]:8080", SENDER)
    assert (transport.host, transport.port, transport._tls) == ("::1", 8080, None)
    made = transport_for(Settings(data_dir=tmp_path, mail_url="resend://re_AbC", mail_from=SENDER))
    assert isinstance(made, ResendTransport)
    assert made.sender == SENDER


@pytest.mark.parametrize(
    "url", ["resend://", "resend://@127.0.0.1:80", "resend://re_Secret%0Ax", "resend://re_Secret@h:http"]
)
def test_url_that_cannot_be_used_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        ResendTransport(url, SENDER)
    assert "re_Secret" not in str(caught.value)


def test_key_is_shown_to_nobody(app: Flask, server: ResendServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = f"who is {KEY}?"
    seen = [repr(app.extensions["transport"]), str(app.extensions["settings"])]
    email_id = add()
    server.answer(refusal(403, "invalid_api_key", echo))
    server.answer(Answer(500, echo.encode()))
    server.answer(Answer(200, json.dumps({"id": echo}).encode()))
    for _ in range(2):
        with pytest.raises((LaneClosedError, TryLaterError)) as caught:
            deliver(email_id, JOB)
        seen += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    deliver(email_id, JOB)
    server.answer(refusal(403, "invalid_api_key", echo))
    with pytest.raises(NotSentError) as refused:
        app.extensions["transport"].probe()
    seen += [str(refused.value), repr(refused.value.reply), caplog.text]
    seen += [repr(tuple(found)) for found in database.read("SELECT * FROM postroom_email_attempts")]
    assert row(email_id)["words"] == "id who is ***?"
    assert KEY not in "\n".join(seen)


# The probe


def test_probe_says_what_holds_and_sends_nothing(app: Flask, server: ResendServer) -> None:
    assert "sends for books.example" in app.extensions["transport"].probe()
    server.key_may_only_send = True
    assert "may send mail and nothing else" in app.extensions["transport"].probe()
    assert server.emails == []
    assert {request.method for request in server.requests} == {"GET"}


@pytest.mark.parametrize(
    ("domains", "key", "words"),
    [
        ([], KEY, "books.example, the domain of MAIL_FROM, is not verified"),
        ([{"name": "books.example", "status": "pending"}], KEY, "is not verified"),
        ([], "re_other", "invalid_api_key"),
    ],
)
def test_probe_says_what_is_wrong(
    app: Flask, server: ResendServer, domains: list[dict[str, str]], key: str, words: str
) -> None:
    server.domains, server.key = domains, key
    with pytest.raises(NotSentError, match=words) as caught:
        app.extensions["transport"].probe()
    assert caught.value.verdict is Verdict.LANE


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("answer", [HANG_UP, SILENCE, Answer(200, b"x" * 1000, manner="dribble")])
def test_probe_without_an_answer_ends_in_time(server: ResendServer, answer: Answer) -> None:
    server.answer(answer)
    with pytest.raises(NotSentError):
        ResendTransport(server.url, SENDER, answer_s=0.2).probe()
