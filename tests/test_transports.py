"""What becomes of a mail's row, with a real SMTP server at the other end."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from app.database import database
from app.mail import ledger
from app.mail.message import Message
from app.mail.smtp import NotSentError, UnknownOutcomeError
from app.mail.transports import InboxTransport, SmtpTransport, deliver, transport_for
from app.settings import Settings
from tests.smtp_sink import ACCEPT_AND_HANG_UP, HANG_UP, SILENCE, SmtpSink

SOURCE = b"Subject: Soup\r\n\r\nHello\r\n"


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    with SmtpSink() as sink:
        yield sink


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    return Settings(data_dir=tmp_path, mail_url=sink.url)


def add(policy: ledger.Policy = "retry") -> int:
    message = Message("cleo@example.com", "Soup", SOURCE, "<1@example.com>", "note")
    email_id = ledger.add(message, "job-1", policy=policy)
    assert email_id is not None
    return email_id


def row(email_id: int) -> sqlite3.Row:
    found = database.read_one("SELECT * FROM emails WHERE id = ?", (email_id,))
    assert found is not None
    return found


@pytest.mark.usefixtures("app")
def test_mail_the_server_took_is_sent(sink: SmtpSink) -> None:
    email_id = add()
    deliver(email_id)
    assert sink.messages == [("cleo@example.com", SOURCE)]
    assert (row(email_id)["state"], row(email_id)["words"]) == ("sent", "kept")


@pytest.mark.usefixtures("app")
def test_mail_is_not_sent_twice(sink: SmtpSink) -> None:
    email_id = add()
    deliver(email_id)
    deliver(email_id)
    deliver(999)
    assert len(sink.messages) == 1


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("answer", ["550 no", HANG_UP])
def test_mail_is_sent_whatever_quit_does(sink: SmtpSink, answer: str) -> None:
    sink.answer("quit", answer)
    deliver(email_id := add())
    assert row(email_id)["state"] == "sent"


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("stage", "answer"),
    [("connect", HANG_UP), ("rcpt", "450 4.2.0 greylisted"), ("data", HANG_UP), ("dot", "451 disk full")],
)
def test_passing_trouble_leaves_the_mail_queued(sink: SmtpSink, stage: str, answer: str) -> None:
    sink.answer(stage, answer)
    email_id = add()
    with pytest.raises(NotSentError) as caught:
        deliver(email_id)
    assert not caught.value.permanent
    assert (row(email_id)["state"], row(email_id)["stage"]) == ("queued", stage)
    deliver(email_id)
    assert (row(email_id)["state"], len(sink.messages)) == ("sent", 1)


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("stage", ["rcpt", "dot"])
def test_refusal_for_good_fails_the_mail(sink: SmtpSink, stage: str) -> None:
    sink.answer(stage, "550 5.1.1 no such reader")
    email_id = add()
    with pytest.raises(NotSentError, match=r"550 5\.1\.1 no such reader") as caught:
        deliver(email_id)
    assert caught.value.permanent
    found = row(email_id)
    assert (found["state"], found["code"], found["enhanced"]) == ("failed", 550, "5.1.1")


@pytest.mark.usefixtures("app")
def test_last_try_fails_the_mail(sink: SmtpSink) -> None:
    sink.answer("rcpt", "450 4.2.0 greylisted")
    email_id = add()
    with pytest.raises(NotSentError):
        deliver(email_id, last_try=True)
    assert row(email_id)["state"] == "failed"


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("answer", [HANG_UP, ACCEPT_AND_HANG_UP])
def test_unknown_outcome_is_sent_again_the_same_to_the_byte_under_retry(sink: SmtpSink, answer: str) -> None:
    sink.answer("dot", answer)
    email_id = add("retry")
    with pytest.raises(UnknownOutcomeError) as caught:
        deliver(email_id)
    assert not caught.value.permanent
    assert row(email_id)["state"] == "queued"
    deliver(email_id)
    assert row(email_id)["state"] == "sent"
    assert set(sink.messages) == {("cleo@example.com", SOURCE)}


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(("policy", "last_try"), [("hold", False), ("retry", True)])
def test_unknown_outcome_stays_unknown_under_hold_and_at_the_last_try(
    sink: SmtpSink, policy: ledger.Policy, last_try: bool
) -> None:
    sink.answer("dot", ACCEPT_AND_HANG_UP)
    email_id = add(policy)
    with pytest.raises(UnknownOutcomeError) as caught:
        deliver(email_id, last_try=last_try)
    assert caught.value.permanent
    assert row(email_id)["state"] == "unknown"
    deliver(email_id)
    assert len(sink.messages) == 1


@pytest.mark.usefixtures("app")
def test_mail_a_dead_process_left_is_sent_again_under_retry(sink: SmtpSink) -> None:
    email_id = add("retry")
    ledger.mark_sending(email_id)
    deliver(email_id)
    assert (row(email_id)["state"], len(sink.messages)) == ("sent", 1)


@pytest.mark.usefixtures("app")
def test_mail_a_dead_process_left_is_unknown_under_hold(sink: SmtpSink) -> None:
    email_id = add("hold")
    ledger.mark_sending(email_id)
    with pytest.raises(UnknownOutcomeError, match="the process ended"):
        deliver(email_id)
    assert (row(email_id)["state"], sink.connections) == ("unknown", 0)


def test_row_says_sending_while_the_server_may_have_the_mail(app: Flask, sink: SmtpSink) -> None:
    sink.answer("dot", SILENCE)
    email_id = add()

    def send() -> None:
        with app.app_context(), pytest.raises(UnknownOutcomeError):
            deliver(email_id)

    thread = threading.Thread(target=send)
    thread.start()
    deadline = time.monotonic() + 10
    while row(email_id)["state"] != "sending" and time.monotonic() < deadline:
        time.sleep(0.005)
    assert row(email_id)["state"] == "sending"
    sink.stop()
    thread.join(10)
    assert row(email_id)["state"] == "queued"


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(("last_try", "state"), [(False, "queued"), (True, "failed")])
def test_bug_in_a_transport_leaves_no_mail_waiting_for_ever(
    monkeypatch: pytest.MonkeyPatch, last_try: bool, state: str
) -> None:
    def break_down(self: SmtpTransport, email: ledger.Email) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(SmtpTransport, "deliver", break_down)
    email_id = add()
    with pytest.raises(ValueError, match="a bug"):
        deliver(email_id, last_try=last_try)
    assert row(email_id)["state"] == state


def test_mail_is_kept_in_the_inbox_when_no_server_is_set(app: Flask, sink: SmtpSink) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], mail_url="")
    email_id = add()
    deliver(email_id)
    deliver(email_id)
    assert [email.id for email in ledger.inbox()] == [email_id]
    assert sink.connections == 0


def test_mail_url_names_the_transport(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, mail_from="Böok Shop <post@bücher.example>")
    assert isinstance(transport_for(settings), InboxTransport)
    transport = transport_for(replace(settings, mail_url="smtp+plain://mail.example"))
    assert isinstance(transport, SmtpTransport)
    assert (transport.host, transport.port) == ("mail.example", 25)
    assert transport.sender == "post@xn--bcher-kva.example"
    transport = transport_for(replace(settings, mail_url="smtp+plain://[::1]:2525"))
    assert isinstance(transport, SmtpTransport)
    assert (transport.host, transport.port) == ("::1", 2525)
