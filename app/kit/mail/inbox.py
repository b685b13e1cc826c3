"""The built-in inbox: a view of the ledger's mails that were sent."""

from __future__ import annotations

import email
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.message import EmailMessage
from typing import Literal

from app.kit.database.file import database

SENT = (
    "SELECT id, to_address, subject, substr(message, 1, ?) AS message, sent_at FROM postroom_emails"
    " WHERE state = 'sent' AND "
)
LISTED_BYTES = 256 * 1024
"""What is read of each mail of a list: text and HTML come first, files may be many megabytes."""
ALL_BYTES = 2**30


@dataclass(frozen=True)
class InboxEmail:
    """A mail that was sent, as a reader sees it; `sent_at` is aware UTC."""

    id: int
    to: str
    subject: str
    text: str
    html: str | None
    headers: list[tuple[str, str]]
    source: bytes
    sent_at: datetime


def mails(limit: int = 50, before_id: int | None = None) -> list[InboxEmail]:
    """Return the mails that were sent, newest first; of a large one its beginning.

    `before_id` is the last id of the page before this one.
    """
    before_id = 2**63 - 1 if before_id is None else before_id
    return [
        _as_read(row)
        for row in database.read(SENT + "id < ? ORDER BY id DESC LIMIT ?", (LISTED_BYTES, before_id, limit))
    ]


def mail(email_id: int) -> InboxEmail | None:
    """Return one mail that was sent."""
    row = database.read_one(SENT + "id = ?", (ALL_BYTES, email_id))
    return None if row is None else _as_read(row)


def _as_read(row: sqlite3.Row) -> InboxEmail:
    parsed = email.message_from_bytes(row["message"], policy=policy.default)
    return InboxEmail(
        id=row["id"],
        to=row["to_address"],
        subject=row["subject"],
        text=_body(parsed, "plain") or "",
        html=_body(parsed, "html"),
        headers=[(name, str(value)) for name, value in parsed.items()],
        source=row["message"],
        sent_at=datetime.fromisoformat(row["sent_at"]),
    )


def _body(mail: EmailMessage, kind: Literal["plain", "html"]) -> str | None:
    part = mail.get_body((kind,))
    return None if part is None else str(part.get_content()).replace("\r\n", "\n")
