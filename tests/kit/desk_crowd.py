"""A crowded ledger and queue for the desk: rows as the site would have written them, but all at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import cycle
from typing import Any

from app.kit.database.file import Database
from app.kit.mail.ledger import utc_text
from tests.kit.queue_rig import count_anew

NAMES = ("tasks.emails.deliver_email", "tasks.bookshop.alert_subscribers", "tasks.bookshop.record_sale")
ERROR = "TimeoutError: the supplier did not answer within 30 s; it was asked for number {}"
MAIL_STATES = (
    "sent",
    "sent",
    "sent",
    "sent",
    "failed",
    "unknown",
    "suppressed",
    "queued",
    "cancelled",
    "sending",
)

JOB = """
INSERT INTO postroom_jobs (uuid, task, payload, state, attempt, enqueued_at, started_at, finished_at, error)
VALUES (?, ?, '{}', ?, 1, ?, ?, ?, ?)
"""
EMAIL = """
INSERT INTO postroom_emails (to_address, subject, template, message, message_id, job, state, created_at,
    sending_at, sent_at, answered_at, stage, words) VALUES (?, 'Hello', 'note', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
ATTEMPT = "INSERT INTO postroom_email_attempts VALUES (?, 'failed', ?, ?, 'rcpt', 550, '5.7.1', 'not today')"


def crowd(
    database: Database, now: float, done: int = 0, failed: int = 0, emails: int = 0, suppressions: int = 0
) -> None:
    """Write so many done and failed jobs of the last day, so many mails in all states, a full hour of minutes."""

    def write(connection: sqlite3.Connection) -> None:
        connection.executemany(JOB, _jobs("failed", failed, now))
        connection.executemany(JOB, _jobs("done", done, now))
        count_anew(connection)
        for ago in range(24 * 60, -1, -1):
            _add_minute(connection, now - 60 * ago)
        moment = utc_text(datetime.fromtimestamp(now - 3600, UTC))
        for number, state in zip(range(emails), cycle(MAIL_STATES)):
            connection.execute(EMAIL, _email(number, state, moment))
            if state == "failed":
                connection.execute(ATTEMPT, (number + 1, moment, moment))
        connection.executemany(
            "INSERT INTO postroom_suppressions (address, list_name, reason)"
            " VALUES (?, 'mystery', 'has unsubscribed')",
            [(f"reader{number}@example.com",) for number in range(suppressions)],
        )

    database.write(write)


def _add_minute(connection: sqlite3.Connection, at: float) -> None:
    """Add what a minute of a busy shop comes to."""
    rows = [(int(at // 60), name) for name in NAMES]
    connection.executemany(
        "INSERT OR REPLACE INTO postroom_past_minutes VALUES (?, ?, 20, 19, 1, 0, 900, 1400, 1400)", rows
    )


def _jobs(state: str, count: int, now: float) -> Iterator[tuple[Any, ...]]:
    for number, name in zip(range(count), cycle(NAMES)):
        at = now - 86_400 + number * 86_400 / count
        error = ERROR.format(number) if state == "failed" else None
        yield f"{state}-{number}", name, state, at - 2, at - 1, at, error


def _email(number: int, state: str, moment: str) -> tuple[Any, ...]:
    may_have_gone = moment if state in ("sent", "sending", "unknown") else None
    heard = (moment, "rcpt", "not today") if state not in ("queued", "sending") else (None, None, None)
    return (
        f"reader{number}@example.com", b"Subject: Hello\r\n\r\n" + b"x" * 2000, f"<{number}@example.com>",
        f"job-{number}", state, moment, may_have_gone, moment if state == "sent" else None, *heard,
    )  # fmt: skip
