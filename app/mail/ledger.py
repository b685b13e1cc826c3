"""The ledger: a mail is a row, with its bytes, from the moment it is asked for; the inbox is a view of it.

    queued          -> sending   mark_sending: the next byte is the dot that makes the server take it
    sending         -> sent      mark_sent: the server said yes
    queued, sending -> queued    requeue: not sent, another try follows; or maybe sent, and may go twice
    queued, sending -> failed    mark_failed: not sent, and no try follows
    sending         -> unknown   mark_unknown: maybe sent, and must not go twice
    queued          -> failed    give_up: its job has ended and cannot say more
    sending         -> unknown   give_up: the same, but it may have been sent

Each arrow is one function; the WHERE of its UPDATE is its guard, and it returns whether it happened. Nothing
leads to `suppressed` and `cancelled` yet.
"""

from __future__ import annotations

import email
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.message import EmailMessage
from typing import Literal

from sqlite_utils import Database as Tables
from sqlite_utils import Migrations

from app.database import database
from app.mail.message import Message
from app.mail.smtp import Reply

Policy = Literal["retry", "hold"]
"""What happens to a mail that may have been sent: `retry` sends it again, `hold` waits for a person."""

NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"

migrations = Migrations("mail")


@dataclass(frozen=True)
class Email:
    """What a transport needs to know of a row."""

    id: int
    to_address: str
    state: str
    policy: Policy
    message: bytes
    message_id: str


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


# Writing a mail down


def add(
    message: Message, job: str, *, dedup_key: str | None = None, priority: float = 0, policy: Policy = "retry"
) -> int | None:
    """Write a mail down as queued for the job of that uuid; None when its `dedup_key` is known already."""
    sql = (
        "INSERT INTO emails"
        " (to_address, subject, template, message, message_id, job, dedup_key, priority, policy)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (dedup_key) DO NOTHING RETURNING id"
    )
    values = (
        message.to, message.subject, message.template, message.message, message.message_id,
        job, dedup_key, priority, policy,
    )  # fmt: skip
    return _insert(sql, values)


def add_unsendable(template: str, to: str, reason: str, dedup_key: str | None = None) -> int | None:
    """Write down, as failed, a mail that cannot be made, so that it is seen; None when the key is known."""
    sql = (
        "INSERT INTO emails"
        " (to_address, subject, template, message, dedup_key, state, stage, words, answered_at)"
        f" VALUES (?, '', ?, x'', ?, 'failed', 'render', ?, {NOW})"
        " ON CONFLICT (dedup_key) DO NOTHING RETURNING id"
    )
    return _insert(sql, (to, template, dedup_key, reason))


def _insert(sql: str, values: tuple[object, ...]) -> int | None:
    row = database.write(lambda connection: connection.execute(sql, values).fetchone())
    return row["id"] if row else None


def id_of(dedup_key: str) -> int | None:
    """Return the mail of a key."""
    row = database.read_one("SELECT id FROM emails WHERE dedup_key = ?", (dedup_key,))
    return row["id"] if row else None


def known_keys(dedup_keys: Iterable[str]) -> set[str]:
    """Return those of the keys that have their mail."""
    sql = "SELECT dedup_key FROM emails WHERE dedup_key IN (SELECT value FROM json_each(?))"
    return {row["dedup_key"] for row in database.read(sql, (json.dumps(list(dedup_keys)),))}


def find(email_id: int) -> Email | None:
    """Return what a transport needs to know of a mail."""
    row = database.read_one(
        "SELECT id, to_address, state, policy, message, message_id FROM emails WHERE id = ?", (email_id,)
    )
    return Email(*row) if row else None


# The arrows


def mark_sending(email_id: int) -> bool:
    """queued -> sending: from here on the server may have it."""
    return _move(email_id, f"state = 'sending', sending_at = {NOW}", "queued")


def mark_sent(email_id: int, reply: Reply) -> bool:
    """sending -> sent: the server said yes."""
    return _move(email_id, f"state = 'sent', sent_at = {NOW}", "sending", reply=reply)


def requeue(email_id: int, reply: Reply) -> bool:
    """queued, sending -> queued: another try follows."""
    return _move(email_id, "state = 'queued', sending_at = NULL", "queued", "sending", reply=reply)


def mark_failed(email_id: int, reply: Reply) -> bool:
    """queued, sending -> failed: it was not sent, and no try follows."""
    return _move(email_id, "state = 'failed'", "queued", "sending", reply=reply)


def mark_unknown(email_id: int, reply: Reply) -> bool:
    """sending -> unknown: it may have been sent, and nobody sends it again unasked."""
    return _move(email_id, "state = 'unknown'", "sending", reply=reply)


def give_up(email_id: int, reason: str) -> bool:
    """queued -> failed, sending -> unknown: no try follows, whatever happened."""
    change = "state = CASE state WHEN 'sending' THEN 'unknown' ELSE 'failed' END"
    return _move(email_id, change, "queued", "sending", reply=Reply("job", None, "", reason))


def _move(email_id: int, change: str, *states: str, reply: Reply | None = None) -> bool:
    heard: tuple[object, ...] = ()
    if reply is not None:
        change += f", stage = ?, code = ?, enhanced = ?, words = ?, answered_at = {NOW}"
        heard = (reply.stage, reply.code, reply.enhanced, reply.words)
    marks = ", ".join("?" for _ in states)
    sql = f"UPDATE emails SET {change} WHERE id = ? AND state IN ({marks})"
    values = (*heard, email_id, *states)
    return database.write(lambda connection: connection.execute(sql, values).rowcount == 1)


# The inbox

SENT = "SELECT id, to_address, subject, message, sent_at FROM emails WHERE state = 'sent' AND "


def inbox(limit: int = 50, before_id: int | None = None) -> list[InboxEmail]:
    """Return the mails that were sent, newest first.

    `before_id` is the last id of the page before this one.
    """
    before_id = 2**63 - 1 if before_id is None else before_id
    return [
        _as_read(row) for row in database.read(SENT + "id < ? ORDER BY id DESC LIMIT ?", (before_id, limit))
    ]


def inbox_email(email_id: int) -> InboxEmail | None:
    """Return one mail that was sent."""
    row = database.read_one(SENT + "id = ?", (email_id,))
    return _as_read(row) if row else None


def _as_read(row: sqlite3.Row) -> InboxEmail:
    mail = email.message_from_bytes(row["message"], policy=policy.default)
    return InboxEmail(
        id=row["id"],
        to=row["to_address"],
        subject=row["subject"],
        text=_body(mail, "plain") or "",
        html=_body(mail, "html"),
        headers=[(name, str(value)) for name, value in mail.items()],
        source=row["message"],
        sent_at=datetime.fromisoformat(row["sent_at"]),
    )


def _body(mail: EmailMessage, kind: Literal["plain", "html"]) -> str | None:
    part = mail.get_body((kind,))
    return None if part is None else str(part.get_content()).replace("\r\n", "\n")


# The table


@migrations()
def create_emails(db: Tables) -> None:
    """Create the ledger."""
    db.execute(
        f"""
        CREATE TABLE emails (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            to_address TEXT NOT NULL,
            subject TEXT NOT NULL,
            template TEXT NOT NULL,
            message BLOB NOT NULL,                 -- every try sends these bytes
            message_id TEXT UNIQUE,
            dedup_key TEXT UNIQUE,                 -- what the mail is about: nothing is told twice
            job TEXT,
            priority REAL NOT NULL DEFAULT 0,
            policy TEXT NOT NULL DEFAULT 'retry' CHECK (policy IN ('retry', 'hold')),
            state TEXT NOT NULL DEFAULT 'queued' CHECK (
                state IN ('queued', 'sending', 'sent', 'failed', 'unknown', 'suppressed', 'cancelled')
            ),
            created_at TEXT NOT NULL DEFAULT ({NOW}),
            sending_at TEXT,
            sent_at TEXT,
            stage TEXT,                            -- what was heard last, where, and when
            code INTEGER,
            enhanced TEXT,
            words TEXT,
            answered_at TEXT,
            CHECK (state NOT IN ('sending', 'sent', 'unknown') OR sending_at IS NOT NULL),
            CHECK (state <> 'queued' OR sending_at IS NULL),
            CHECK ((state = 'sent') = (sent_at IS NOT NULL)),
            CHECK (state NOT IN ('sent', 'failed', 'unknown') OR answered_at IS NOT NULL),
            CHECK ((answered_at IS NULL) = (stage IS NULL) AND (answered_at IS NULL) = (words IS NULL)),
            CHECK (state IN ('failed', 'suppressed', 'cancelled') OR job IS NOT NULL),
            CHECK ((job IS NULL) = (message_id IS NULL))
        ) STRICT"""
    )
    db.execute("CREATE INDEX emails_by_state ON emails (state, id)")
