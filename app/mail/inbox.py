"""The built-in inbox: a view of the ledger's mails that were sent."""

from __future__ import annotations

import email
import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.message import EmailMessage
from typing import Literal

from app.database import database
from app.mail.attachments import Attached, AttachmentChangedError, complete

SENT = (
    "SELECT id, to_address, subject, message, attachments, sent_at"
    " FROM postroom_emails WHERE state = 'sent' AND "
)


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
    """Return the mails that were sent, newest first.

    `before_id` is the last id of the page before this one.
    """
    before_id = 2**63 - 1 if before_id is None else before_id
    return [
        _as_read(row, row["message"])
        for row in database.read(SENT + "id < ? ORDER BY id DESC LIMIT ?", (before_id, limit))
    ]


def mail(email_id: int) -> InboxEmail | None:
    """Return one mail that was sent, its attachments in their places if the files are still there."""
    row = database.read_one(SENT + "id = ?", (email_id,))
    if row is None:
        return None
    attached = [Attached(**values) for values in json.loads(row["attachments"])]
    try:
        return _as_read(row, complete(row["message"], attached))
    except AttachmentChangedError:
        return _as_read(row, row["message"])


def _as_read(row: sqlite3.Row, source: bytes) -> InboxEmail:
    parsed = email.message_from_bytes(source, policy=policy.default)
    return InboxEmail(
        id=row["id"],
        to=row["to_address"],
        subject=row["subject"],
        text=_body(parsed, "plain") or "",
        html=_body(parsed, "html"),
        headers=[(name, str(value)) for name, value in parsed.items()],
        source=source,
        sent_at=datetime.fromisoformat(row["sent_at"]),
    )


def _body(mail: EmailMessage, kind: Literal["plain", "html"]) -> str | None:
    part = mail.get_body((kind,))
    return None if part is None else str(part.get_content()).replace("\r\n", "\n")
