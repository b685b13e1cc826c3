"""The SMTP transport: what MAIL_URL means, and what becomes of the row while a mail goes out."""

from __future__ import annotations

import dataclasses
import sqlite3
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from app.kit.database.file import database
from app.kit.errors import SettingError
from app.kit.mail import ledger
from app.kit.mail.ledger import Email
from app.kit.mail.message import Message
from app.kit.mail.replies import NotSentError, UnknownOutcomeError
from app.kit.mail.smtp.conversation import Conversation
from app.kit.mail.smtp.credentials import Credentials
from app.kit.mail.smtp.exchange import Limits, Server
from app.kit.mail.smtp.transport import SmtpTransport, parse_server
from app.kit.mail.transports import Transport
from tests.kit.certificates import server_context, trust_authority
from tests.kit.smtp_sink import ACCEPT_AND_HANG_UP, HANG_UP, SILENCE, SmtpSink

SOURCE = b"Subject: Soup\r\n\r\nHello\r\n"
PATIENT = Limits(connect_s=20, command_s=20, dot_s=20, quit_s=0.2)


@pytest.fixture
def transport(sink: SmtpSink) -> Iterator[SmtpTransport]:
    transport = SmtpTransport(sink.url, "post@example.com", PATIENT)
    yield transport
    transport.close()


def add(to: str = "cleo@example.com") -> Email:
    message = Message(to, "Soup", SOURCE, f"<{to}>", "note")
    email_id = ledger.add(message, f"job for {to}")
    assert email_id is not None
    return again(email_id)


def again(email_id: int) -> Email:
    email = ledger.find(email_id)
    assert email is not None
    return email


def row(email: Email) -> sqlite3.Row:
    found = database.read_one("SELECT * FROM postroom_emails WHERE id = ?", (email.id,))
    assert found is not None
    return found


# The address


@pytest.mark.parametrize(
    ("url", "server", "name"),
    [
        (
            "smtp://mail.example.com",
            Server("mail.example.com", 587, "starttls"),
            "smtp://mail.example.com:587",
        ),
        ("smtps://mail.example.com", Server("mail.example.com", 465, "tls"), "smtps://mail.example.com:465"),
        ("smtp+plain://localhost", Server("localhost", 25, "plain"), "smtp+plain://localhost:25"),
        ("smtp+plain://[::1]:2525", Server("::1", 2525, "plain"), "smtp+plain://[::1]:2525"),
        (
            "smtp://cleo%40example.com:p%C3%A4ss%3A%2F%40%25@mail.example.com:2587",
            Server("mail.example.com", 2587, "starttls", Credentials("cleo@example.com", "päss:/@%")),
            "smtp://mail.example.com:2587",
        ),
    ],
)
def test_mail_url_says_where_and_how(url: str, server: Server, name: str) -> None:
    transport: Transport = SmtpTransport(url, "post@example.com")
    assert parse_server(url) == server
    assert (transport.name, transport.idempotent_for_s) == (name, 0)


def test_a_password_and_no_encryption_is_refused_without_repeating_it() -> None:
    with pytest.raises(SettingError) as caught:
        SmtpTransport("smtp+plain://cleo:secret@localhost", "post@example.com")
    assert "secret" not in str(caught.value)


def test_the_password_is_not_in_anything_that_may_be_shown() -> None:
    transport = SmtpTransport("smtp://cleo:s%C3%A9cret@localhost", "post@example.com")
    assert not any(part in repr(vars(transport)) for part in ("sécret", "s%C3%A9cret", "cleo"))


# Delivery


@pytest.mark.usefixtures("app")
def test_mails_go_out_over_one_connection_and_their_rows_say_so(
    sink: SmtpSink, transport: SmtpTransport
) -> None:
    mails = [add(f"reader{number}@example.com") for number in range(3)]
    for email in mails:
        transport.deliver(email)
    assert sink.recipients() == [email.to_address for email in mails]
    assert [(row(email)["state"], row(email)["words"]) for email in mails] == [("sent", "kept")] * 3
    assert sink.connections == 1


def test_row_says_sending_before_the_dot_and_sent_before_anything_else(
    app: Flask, sink: SmtpSink, transport: SmtpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    keep, verbs = sink.keep, sink.verbs
    email = add()

    def look(envelope: object) -> None:
        with app.app_context():
            states.append(again(email.id).state)
        keep(envelope)  # type: ignore[arg-type]

    def note_sent(*given: object) -> bool:
        states.append(" ".join(verbs()))
        return mark_sent(*given)  # type: ignore[arg-type]

    mark_sent = ledger.mark_sent
    monkeypatch.setattr(sink, "keep", look)
    monkeypatch.setattr(ledger, "mark_sent", note_sent)
    transport.deliver(email)
    assert states == ["sending", "ehlo mail rcpt data"]


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("answer", ["550 no", HANG_UP, SILENCE])
def test_mail_is_sent_whatever_the_goodbye(sink: SmtpSink, transport: SmtpTransport, answer: str) -> None:
    sink.answer("quit", answer)
    email = add()
    transport.deliver(email)
    transport.close()
    assert row(email)["state"] == "sent"


@pytest.mark.usefixtures("app")
def test_mail_that_was_cancelled_meanwhile_is_not_sent_and_its_connection_closed(
    sink: SmtpSink, transport: SmtpTransport
) -> None:
    email = add()
    database.write(lambda connection: connection.execute("UPDATE postroom_emails SET state = 'cancelled'"))
    transport.deliver(email)
    assert sink.wait_for_goodbye()
    assert sink.verbs() == ["ehlo", "mail", "rcpt", "data"]
    assert (sink.messages, row(email)["state"]) == ([], "cancelled")
    transport.deliver(add("felix@example.com"))
    assert sink.recipients() == ["felix@example.com"]


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("stage", ["connect", "mail", "rcpt", "data"])
def test_row_is_untouched_by_what_happens_before_the_dot(
    sink: SmtpSink, transport: SmtpTransport, stage: str
) -> None:
    sink.answer(stage, HANG_UP)
    email = add()
    with pytest.raises(NotSentError, match=f"at {stage}"):
        transport.deliver(email)
    assert row(email)["state"] == "queued"
    transport.deliver(email)
    assert row(email)["state"] == "sent"


@pytest.mark.usefixtures("app")
def test_row_says_sending_when_nobody_knows(sink: SmtpSink, transport: SmtpTransport) -> None:
    sink.answer("dot", ACCEPT_AND_HANG_UP)
    email = add()
    with pytest.raises(UnknownOutcomeError):
        transport.deliver(email)
    assert row(email)["state"] == "sending"


@pytest.mark.usefixtures("app")
def test_the_server_is_greeted_with_the_senders_domain(sink: SmtpSink) -> None:
    for sender in ("post@books.example.com", "postroom@localhost"):
        transport = SmtpTransport(sink.url, sender, PATIENT)
        transport.deliver(add(sender))
        transport.close()
    assert [line for line in sink.commands if line.startswith("ehlo")] == [
        "ehlo books.example.com",
        "ehlo [127.0.0.1]",
    ]


@pytest.mark.usefixtures("app")
def test_a_server_that_says_after_the_dot_that_mails_are_too_many_at_once_gets_one_at_a_time(
    sink: SmtpSink, transport: SmtpTransport
) -> None:
    sink.answer("dot", "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded")
    email = add()
    with pytest.raises(NotSentError):
        transport.deliver(email)
    lent = transport.pool.offer("post@example.com", "cleo@example.com", SOURCE)
    second = threading.Thread(target=lambda: transport.pool.give_back(offer(transport)))
    second.start()
    second.join(0.1)
    assert second.is_alive()
    transport.pool.give_back(lent)
    second.join(10)
    assert not second.is_alive()


def offer(transport: SmtpTransport) -> Conversation:
    return transport.pool.offer("post@example.com", "felix@example.com", SOURCE)


# Encryption


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("implicit", [False, True])
def test_mail_goes_encrypted_with_the_password_of_the_url(
    implicit: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trust_authority(monkeypatch, tmp_path)
    made = []
    make = ssl.create_default_context

    def count() -> ssl.SSLContext:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", count)
    with SmtpSink(tls=server_context(), implicit=implicit, credentials=("clé@b", "p/ä:s@s")) as sink:
        transport = SmtpTransport(sink.url, "post@example.com", PATIENT)
        sink.answer("dot", "250 2.0.0 kept\r\n421 closing")
        for number in range(2):
            transport.deliver(add(f"reader{number}@example.com"))
        transport.close()
        assert (len(sink.messages), sink.connections, sink.verbs().count("auth")) == (2, 2, 2)
    assert len(made) == 1  # the system's certificates are read once, not for each connection


# The probe


@pytest.mark.parametrize("credentials", [None, ("cleo", "secret")])
def test_the_probe_signs_in_and_sends_nothing(
    credentials: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trust_authority(monkeypatch, tmp_path)
    with SmtpSink(tls=server_context(), credentials=credentials) as sink:
        said = SmtpTransport(sink.url, "post@example.com").probe()
        assert said.startswith(f"smtp://127.0.0.1:{sink.port} answers, encrypts (STARTTLS)")
        assert ("takes the password" in said) == (credentials is not None)
        assert "secret" not in said
        signing_in = ["auth"] if credentials else []
        assert sink.verbs() == ["ehlo", "starttls", "ehlo", *signing_in, "quit"]
        assert sink.wait_for_goodbye()


def test_the_probe_says_why_not() -> None:
    with SmtpSink(tls=server_context(), credentials=("cleo", "secret")) as sink:
        with pytest.raises(NotSentError, match="certificate cannot be trusted") as caught:
            SmtpTransport(sink.url, "post@example.com").probe()
        assert "secret" not in str(caught.value)


def test_the_probe_of_an_open_relay_says_that_nothing_is_encrypted(
    sink: SmtpSink, transport: SmtpTransport
) -> None:
    assert transport.probe() == f"{sink.url} answers, does not encrypt"


def test_a_transport_opens_nothing_before_it_is_used(sink: SmtpSink) -> None:
    SmtpTransport(sink.url, "post@example.com").close()
    assert sink.connections == 0


def test_limits_are_positive_and_the_dots_is_the_longest() -> None:
    limits = dataclasses.asdict(Limits())
    assert min(limits.values()) > 0
    assert limits["dot_s"] >= 300
    assert limits["dot_s"] > limits["command_s"]
