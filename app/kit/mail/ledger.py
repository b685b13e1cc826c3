"""The ledger: a mail is a row, with its bytes, from the moment it is asked for to the end.

    queued          -> sending     mark_sending: the next byte is the one that makes the server take it
    sending         -> sent        mark_sent: the server said yes
    queued, sending -> queued      requeue: not sent, another try follows; or maybe sent, and may go twice
    queued, sending -> failed      mark_failed: not sent, and no try follows
    queued, sending -> unknown     mark_unknown: maybe sent (if not in this try then before), and must not go twice
    queued          -> suppressed  mark_suppressed: who it is for wants none, or cannot have any
    queued -> failed or cancelled; unknown, if it may have been sent
                                   job_ended: its job ended without having said more
    failed, cancelled -> queued    job_redriven: its job runs again
    failed -> queued               refusals.py, revive: what it failed by was no fault of its own
    (by hand)                      by_hand.py: cancel what waits, settle what is unknown, send again

Each arrow is one function; the WHERE of its UPDATE is its guard, and it returns whether it happened.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from app.kit.database.file import database
from app.kit.host.clock import clock
from app.kit.mail.addresses import MAX_ADDRESS
from app.kit.mail.message import Message
from app.kit.mail.replies import Reply
from app.kit.mail.tables import NOW, as_new, migrations as migrations, utc_text as utc_text

Policy = Literal["retry", "hold"]
"""What happens to a mail that may have been sent: `retry` sends it again, `hold` waits for a person."""

Requeued = Literal["later", "lane", "unknown"]

STATES = ("queued", "sending", "sent", "failed", "unknown", "suppressed", "cancelled")


@dataclass(frozen=True)
class Email:
    """What delivery needs to know of a row; `began_at` is when it asked."""

    id: int
    to_address: str
    state: str
    policy: Policy
    message: bytes
    message_id: str
    job: str
    list_name: str
    priority: float
    tries: int
    created_at: datetime
    expires_at: datetime | None
    maybe_sent_at: datetime | None
    reply: Reply | None
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))


# Writing a mail down


def add(
    message: Message,
    job: str,
    *,
    dedup_key: str | None = None,
    priority: float = 0,
    policy: Policy = "retry",
    expires_in_s: float = 4 * 24 * 3600,
) -> int | None:
    """Write a mail down as queued for the job of that uuid; None when its `dedup_key` is known already."""
    sql = (
        "INSERT INTO postroom_emails (to_address, subject, template, message, message_id, job, dedup_key, priority,"
        " policy, list_name, created_at, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (dedup_key) DO NOTHING RETURNING id"
    )
    now = clock.utc()
    values = (
        message.to, message.subject, message.template, message.message, message.message_id,
        job, dedup_key, priority, policy, message.list_name,
        utc_text(now), utc_text(now + timedelta(seconds=expires_in_s)),
    )  # fmt: skip
    return _insert(sql, values)


def add_unsendable(template: str, to: str, reason: str, dedup_key: str | None = None) -> int | None:
    """Write down, as failed, a mail that cannot be made, so that it is seen; None when the key is known."""
    sql = (
        "INSERT INTO postroom_emails"
        " (to_address, subject, template, message, dedup_key, state, stage, words, answered_at)"
        f" VALUES (?, '', ?, x'', ?, 'failed', 'render', ?, {NOW})"
        " ON CONFLICT (dedup_key) DO NOTHING RETURNING id"
    )
    address, words = (str(text).encode("utf-8", "replace").decode() for text in (to, reason))
    return _insert(sql, (address[:MAX_ADDRESS], template, dedup_key, words))


def _insert(sql: str, values: tuple[object, ...]) -> int | None:
    row = database.write(lambda connection: connection.execute(sql, values).fetchone())
    return row["id"] if row else None


def id_of(dedup_key: str) -> int | None:
    """Return the mail of a key."""
    row = database.read_one("SELECT id FROM postroom_emails WHERE dedup_key = ?", (dedup_key,))
    return row["id"] if row else None


def known_keys(dedup_keys: Iterable[str]) -> set[str]:
    """Return those of the keys that have their mail."""
    sql = "SELECT dedup_key FROM postroom_emails WHERE dedup_key IN (SELECT value FROM json_each(?))"
    return {row["dedup_key"] for row in database.read(sql, (json.dumps(list(dedup_keys)),))}


def find(email_id: int) -> Email | None:
    """Return what delivery needs to know of a mail."""
    row = database.read_one("SELECT * FROM postroom_emails WHERE id = ?", (email_id,))
    if row is None:
        return None
    return Email(
        id=row["id"],
        to_address=row["to_address"],
        state=row["state"],
        policy=row["policy"],
        message=row["message"],
        message_id=row["message_id"],
        job=row["job"],
        list_name=row["list_name"],
        priority=row["priority"],
        tries=row["tries"],
        created_at=datetime.fromisoformat(row["created_at"]),
        expires_at=_moment(row["expires_at"]),
        maybe_sent_at=_moment(row["maybe_sent_at"] or row["sending_at"]),
        reply=_reply_of(row),
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _reply_of(row: sqlite3.Row) -> Reply | None:
    if row["stage"] is None:
        return None
    return Reply(row["stage"], row["code"], row["enhanced"] or "", row["words"])


# The arrows of delivery


def mark_sending(email_id: int, job: str | None = None) -> bool:
    """queued -> sending: from here on the server may have it. Not for a job whose mail it is no more."""
    sql = (
        f"UPDATE postroom_emails SET state = 'sending', sending_at = {NOW}"
        " WHERE id = ?1 AND state = 'queued' AND (?2 IS NULL OR job = ?2)"
    )
    return database.write(lambda connection: connection.execute(sql, (email_id, job)).rowcount == 1)


def mark_sent(email_id: int, reply: Reply, began_at: datetime | None = None) -> bool:
    """sending -> sent: the server said yes."""
    return _move(email_id, f"state = 'sent', sent_at = {NOW}", "sending", tried=("sent", reply, began_at))


def requeue(
    email_id: int, reply: Reply, began_at: datetime | None = None, outcome: Requeued = "later"
) -> bool:
    """queued, sending -> queued: another try follows, and where it was not the lane's fault this one counts."""
    change = f"state = 'queued', sending_at = NULL, tries = tries + {int(outcome != 'lane')}"
    if outcome == "unknown":
        change += ", maybe_sent_at = COALESCE(maybe_sent_at, sending_at)"
    return _move(email_id, change, "queued", "sending", tried=(outcome, reply, began_at))


def mark_failed(email_id: int, reply: Reply, began_at: datetime | None = None) -> bool:
    """queued, sending -> failed: it was not sent, and no try follows."""
    return _move(email_id, "state = 'failed'", "queued", "sending", tried=("failed", reply, began_at))


def mark_unknown(email_id: int, reply: Reply, began_at: datetime | None = None) -> bool:
    """sending, or queued after a try that may have sent it -> unknown: nobody sends it again unasked."""
    tried = ("unknown", reply, began_at)
    change = "state = 'unknown', sending_at = COALESCE(sending_at, maybe_sent_at)"
    with database.transaction() as connection:
        return move(connection, email_id, change, ("sending",), tried) or (
            _may_have_gone(connection, email_id) and move(connection, email_id, change, ("queued",), tried)
        )


def _may_have_gone(connection: sqlite3.Connection, email_id: int) -> bool:
    sql = "SELECT 1 FROM postroom_emails WHERE id = ? AND maybe_sent_at NOTNULL"
    return connection.execute(sql, (email_id,)).fetchone() is not None


def mark_suppressed(email_id: int, reason: str) -> bool:
    """queued -> suppressed: who it is for wants none, or cannot have any."""
    reply = Reply("suppression", None, "", reason)
    return _move(email_id, "state = 'suppressed'", "queued", tried=("suppressed", reply, None))


Tried = tuple[str, Reply, datetime | None]


def _move(email_id: int, change: str, *states: str, tried: Tried | None = None) -> bool:
    return database.write(lambda connection: move(connection, email_id, change, states, tried))


def move(
    connection: sqlite3.Connection,
    email_id: int,
    change: str,
    states: tuple[str, ...],
    tried: Tried | None = None,
) -> bool:
    """Take an arrow, and write the try that led to it down beside it; return whether it happened."""
    heard: tuple[object, ...] = ()
    if tried is not None:
        reply = tried[1]
        change += f", stage = ?, code = ?, enhanced = ?, words = ?, answered_at = {NOW}"
        heard = (reply.stage, reply.code, reply.enhanced, reply.words)
    marks = ", ".join("?" for _ in states)
    sql = f"UPDATE postroom_emails SET {change} WHERE id = ? AND state IN ({marks})"
    if connection.execute(sql, (*heard, email_id, *states)).rowcount == 0:
        return False
    if tried is not None:
        outcome, _, began_at = tried
        began = utc_text(began_at or datetime.now(UTC))
        connection.execute(
            f"INSERT INTO postroom_email_attempts VALUES (?, ?, ?, {NOW}, ?, ?, ?, ?)",
            (email_id, outcome, began, *heard),
        )
    return True


# The row follows its job, in the job's own commit


def waiting_jobs() -> list[str]:
    """Return the jobs of the mails that wait, or are on their way."""
    return [
        row["job"]
        for row in database.read("SELECT job FROM postroom_emails WHERE state IN ('queued', 'sending')")
    ]


def job_ended(connection: sqlite3.Connection, job: str, state: str, reason: str) -> None:
    """queued -> failed or cancelled (as the job), but unknown if it may have been sent: no try follows."""
    rows = connection.execute(
        "SELECT id, state, COALESCE(sending_at, maybe_sent_at) AS maybe_sent_at FROM postroom_emails"
        " WHERE job = ? AND state IN ('queued', 'sending')",
        (job,),
    ).fetchall()
    for row in rows:
        new = "unknown" if row["maybe_sent_at"] else state
        outcome = "failed" if new == "failed" else "unknown" if new == "unknown" else "by hand"
        tried = (outcome, Reply("job", None, "", reason), None)
        change = f"state = '{new}'"
        if new == "unknown":
            change += ", sending_at = COALESCE(sending_at, maybe_sent_at)"
        move(connection, row["id"], change, (row["state"],), tried)


def job_redriven(connection: sqlite3.Connection, job: str) -> None:
    """failed, cancelled -> queued: it was not sent, so it may be tried again."""
    connection.execute(
        f"UPDATE postroom_emails SET {as_new()}"
        " WHERE job = ? AND state IN ('failed', 'cancelled') AND message_id NOTNULL",
        (job,),
    )


# How long mails are kept


def forget_old(before: datetime, limit: int = 1000, most_bytes: int = 16 * 2**20) -> int:
    """Delete mails that ended and are older than a moment, the oldest first; return how many.

    At most `limit`, and once they make `most_bytes` no more: meanwhile everybody who wants to write waits.
    """
    sql = (
        "DELETE FROM postroom_emails WHERE id IN ("  # first, or sqlite3 does not count the rows
        "WITH old AS (SELECT id, created_at, length(message) AS bytes FROM postroom_emails WHERE created_at < ?"
        " AND state NOT IN ('queued', 'sending') ORDER BY created_at, id LIMIT ?),"
        " counted AS (SELECT id, sum(bytes) OVER (ORDER BY created_at, id) - bytes AS older_bytes FROM old)"
        " SELECT id FROM counted WHERE older_bytes < ?)"
    )
    values = (utc_text(before), limit, most_bytes)
    return database.write(lambda connection: connection.execute(sql, values).rowcount)
