"""MAIL_URL names the transport."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from app.kit.database.file import database
from app.kit.errors import DatabaseBusyError
from app.kit.mail import delivery, handover, inbox, ledger
from app.kit.mail.message import Message
from app.kit.mail.resend import ResendTransport
from app.kit.mail.smtp.transport import SmtpTransport
from app.kit.mail.transports import InboxTransport, transport, transport_for
from app.settings import Settings


@pytest.mark.usefixtures("app")
def test_mail_is_kept_in_the_inbox_in_one_commit_when_no_server_is_set() -> None:
    message = Message("cleo@example.com", "Soup", b"Subject: Soup\r\n\r\nHello\r\n", "<1@x.example>", "note")
    email_id = ledger.add(message, "job-1")
    assert email_id is not None
    commits = database.writer.commits
    assert [delivery.deliver(email_id, "job-1"), delivery.deliver(email_id, "job-1")] == ["sent", "sent"]
    assert database.writer.commits == commits + 1
    assert [mail.id for mail in inbox.mails()] == [email_id]


@pytest.mark.usefixtures("app")
def test_inbox_that_cannot_be_written_lets_the_writer_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> bool:
        raise DatabaseBusyError("busy")

    email_id = ledger.add(Message("cleo@example.com", "Soup", b"Hello", "<1@x.example>", "note"), "job-1")
    assert email_id is not None
    monkeypatch.setattr(ledger, "mark_sent", busy)
    monkeypatch.setattr(handover.time, "sleep", lambda _: pytest.fail("it waits while the writer is held"))
    with pytest.raises(DatabaseBusyError):
        delivery.deliver(email_id, "job-1")
    found = ledger.find(email_id)
    assert found is not None
    assert found.state == "queued"


@pytest.mark.parametrize(
    ("url", "kind", "name"),
    [
        ("", InboxTransport, "the built-in inbox"),
        ("smtp+plain://mail.example", SmtpTransport, "smtp+plain://mail.example:25"),
        ("smtp+plain://[::1]:2525", SmtpTransport, "smtp+plain://[::1]:2525"),
        ("smtp://cleo:secret@mail.example", SmtpTransport, "smtp://mail.example:587"),
        ("smtps://cleo:secret@mail.example", SmtpTransport, "smtps://mail.example:465"),
        ("resend://re_secret", ResendTransport, "resend"),
    ],
)
def test_mail_url_names_the_transport_and_the_lane_tells_no_secret(
    tmp_path: Path, url: str, kind: type, name: str
) -> None:
    settings = Settings(data_dir=tmp_path, mail_from="Böok Shop <post@bücher.example>")
    made = transport_for(replace(settings, mail_url=url))
    assert isinstance(made, kind)
    assert made.name == name
    assert "secret" not in repr(made)


def test_an_app_keeps_its_transport(app: Flask) -> None:
    assert transport() is transport()
    assert app.extensions["transport"] is transport()
