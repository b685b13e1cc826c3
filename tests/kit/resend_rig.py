"""What tests of Resend share: an app that has mail and nothing else, and rows of its ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from pathlib import Path

from flask import Flask

from app.kit.database.file import Database, database
from app.kit.mail import ledger
from app.kit.mail.message import Message
from app.kit.mail.resend import ResendTransport
from app.settings import Settings
from tests.kit.resend_server import ResendServer

JOB = "job-1"
SENDER = "Böok Shop <post@books.example>"
UNSUBSCRIBE = "<https://books.example/u/" + "x" * 120 + ">"


@contextmanager
def mail_app(folder: Path, server: ResendServer) -> Iterator[Flask]:
    """Push the context of an app whose mail goes to that server."""
    app = Flask("mail")
    settings = Settings(data_dir=folder, mail_url=server.url, mail_from=SENDER)
    file = Database(settings.database_path, migrations=[ledger.migrations])
    way = ResendTransport(server.url, SENDER)
    app.extensions.update(settings=settings, database=file, transport=way)
    with app.app_context():
        yield app
    file.close()


def source(subject: str = "Söup", attachment: bytes = b"") -> bytes:
    """Return a mail as the ledger keeps it."""
    mail = EmailMessage(policy=policy.SMTP.clone(cte_type="7bit"))
    mail["From"] = "Old <old@books.example>"
    mail["To"] = "cleo@example.com"
    mail["Subject"] = subject
    mail["Date"] = datetime(2026, 1, 2, tzinfo=UTC)
    mail["Message-ID"] = "<row-1@books.example>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["List-Id"] = "Génre <genre.lists.books.example>"
    mail.set_content("Hällo\nCleo\n")
    mail.add_alternative("<p>Hällo</p>\n", subtype="html")
    if attachment:
        mail.add_attachment(attachment, maintype="application", subtype="pdf", filename="rechnung-ä.pdf")
    # Written by hand: the standard library would encode so long an address.
    unsubscribe = f"List-Unsubscribe: {UNSUBSCRIBE},\r\n <mailto:post@books.example>\r\n"
    return unsubscribe.encode() + mail.as_bytes()


def add(mail_policy: ledger.Policy = "retry", message: bytes | None = None) -> int:
    """Write a mail down and return its row."""
    message = source() if message is None else message
    wanted = Message("cleo@example.com", "Söup", message, "<row-1@books.example>", "note")
    email_id = ledger.add(wanted, JOB, policy=mail_policy)
    assert email_id is not None
    return email_id


def row(email_id: int) -> sqlite3.Row:
    """Return all of a row."""
    found = database.read_one("SELECT * FROM postroom_emails WHERE id = ?", (email_id,))
    assert found is not None
    return found
