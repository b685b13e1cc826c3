"""The ledger's tables: mails, the tries to send them, who gets none, and the lanes mail leaves by."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.kit.database.setup import Migrations, adopt
from app.kit.host.clock import clock

if TYPE_CHECKING:
    from sqlite_utils import Database as Tables

NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"


def utc_text(moment: datetime) -> str:
    """Write a moment as the tables do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def as_new() -> str:
    """Write what is set when a mail gets another round of tries."""
    return (
        "state = 'queued', sending_at = NULL, sent_at = NULL, maybe_sent_at = NULL, tries = 0,"
        f" expires_at = '{utc_text(clock.utc() + timedelta(days=4))}'"
    )


migrations = Migrations("postroom_mail")

OLDER_NAMES = ("emails", "email_attempts", "suppressions", "mail_lanes")
"""What the tables were called before they had a prefix."""


TABLES = (
    f"""CREATE TABLE postroom_emails (
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
        tries INTEGER NOT NULL DEFAULT 0,      -- that count: a fault of the lane does not
        expires_at TEXT,
        maybe_sent_at TEXT,                    -- when a try that is followed by another may have sent it
        list_name TEXT NOT NULL DEFAULT '',    -- the mailing list it was sent to, if any
        attachments TEXT NOT NULL DEFAULT '[]', -- JSON; the files themselves stay where they are
        CHECK (state NOT IN ('sending', 'sent', 'unknown') OR sending_at IS NOT NULL),
        CHECK (state <> 'queued' OR sending_at IS NULL),
        CHECK ((state = 'sent') = (sent_at IS NOT NULL)),
        CHECK (state NOT IN ('sent', 'failed', 'unknown') OR answered_at IS NOT NULL),
        CHECK ((answered_at IS NULL) = (stage IS NULL) AND (answered_at IS NULL) = (words IS NULL)),
        CHECK (state IN ('failed', 'suppressed', 'cancelled') OR job IS NOT NULL),
        CHECK ((job IS NULL) = (message_id IS NULL))
    ) STRICT""",
    """CREATE TABLE postroom_email_attempts (
        email_id INTEGER NOT NULL REFERENCES postroom_emails (id) ON DELETE CASCADE,
        outcome TEXT NOT NULL CHECK (
            outcome IN ('sent', 'lane', 'later', 'failed', 'suppressed', 'unknown', 'by hand')
        ),
        began_at TEXT NOT NULL,
        ended_at TEXT NOT NULL,
        stage TEXT NOT NULL,
        code INTEGER,
        enhanced TEXT NOT NULL,
        words TEXT NOT NULL
    ) STRICT""",
    f"""CREATE TABLE postroom_suppressions (
        address TEXT NOT NULL COLLATE NOCASE,
        list_name TEXT NOT NULL DEFAULT '',    -- '': nothing at all goes there
        reason TEXT NOT NULL,
        created_at TEXT NOT NULL DEFAULT ({NOW}),
        PRIMARY KEY (address, list_name)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE postroom_mail_lanes (
        name TEXT PRIMARY KEY,
        faults INTEGER NOT NULL DEFAULT 0,     -- in a row
        paused_until REAL NOT NULL DEFAULT 0,  -- unix seconds
        reason TEXT NOT NULL DEFAULT '',
        tokens REAL,                           -- of the bucket that bounds mails a minute; NULL: full
        refilled_at REAL NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID""",
)
INDEXES = (
    "CREATE INDEX postroom_emails_by_state ON postroom_emails (state, id)",
    "CREATE INDEX postroom_emails_by_job ON postroom_emails (job)",
    "CREATE INDEX postroom_emails_by_address ON postroom_emails (to_address, id)",
    "CREATE INDEX postroom_emails_by_age ON postroom_emails (created_at)",
    "CREATE INDEX postroom_email_attempts_by_email ON postroom_email_attempts (email_id)",
)


@migrations()
def create_ledger(tables: Tables) -> None:
    """Make the tables of mail, or rename those of a file from before they had a prefix."""
    if not adopt(tables, "mail", "add_tries_and_lists", OLDER_NAMES):
        for statement in TABLES:
            tables.execute(statement)
    for statement in INDEXES:
        tables.execute(statement)


@migrations()
def add_refusals(tables: Tables) -> None:
    """Keep which mails a lane refused, until it has taken another; and since when it pauses."""
    tables.execute(
        """CREATE TABLE postroom_mail_refusals (
            email_id INTEGER PRIMARY KEY REFERENCES postroom_emails (id) ON DELETE CASCADE,
            lane TEXT NOT NULL,
            address TEXT NOT NULL,
            words TEXT NOT NULL,                   -- without what differs from reader to reader
            outlived INTEGER NOT NULL DEFAULT 0    -- 1: the lane took another mail since
        ) STRICT"""
    )
    tables.execute("CREATE INDEX postroom_mail_refusals_by_lane ON postroom_mail_refusals (lane, outlived)")
    tables.execute("ALTER TABLE postroom_mail_lanes ADD COLUMN paused_at REAL NOT NULL DEFAULT 0")


@migrations()
def put_files_into_mails(tables: Tables) -> None:
    """Put attached files into their mails, which named them by path and hash, with a line in place of each.

    A mail that waits for a file that is gone fails; where it is only kept, the place of the file says so.
    """
    named = "SELECT id, attachments FROM postroom_emails WHERE attachments <> '[]'"
    for email_id, files in tables.execute(named).fetchall():
        (message,) = tables.execute(
            "SELECT message FROM postroom_emails WHERE id = ?", (email_id,)
        ).fetchone()
        missing = ""
        for file in json.loads(files):
            content = _unchanged(file)
            if content is None:
                missing = f"the file {file['path']!r} is gone, or was changed since it was attached"
            lines = base64.encodebytes(missing.encode() if content is None else content)
            place = f"\r\n{file['placeholder']}\r\n".encode()
            message = message.replace(place, b"\r\n" + lines.replace(b"\n", b"\r\n"), 1)
        tables.execute("UPDATE postroom_emails SET message = ? WHERE id = ?", (message, email_id))
        if missing:
            tables.execute(
                "UPDATE postroom_emails SET state = 'failed', stage = 'attachment', code = NULL,"
                f" enhanced = NULL, words = ?, answered_at = {NOW}, job = NULL, message_id = NULL"
                " WHERE id = ? AND state = 'queued' AND maybe_sent_at IS NULL",
                (missing, email_id),
            )
    tables.execute("ALTER TABLE postroom_emails DROP COLUMN attachments")


def _unchanged(file: dict[str, Any]) -> bytes | None:
    with suppress(OSError, ValueError):
        content = Path(file["path"]).read_bytes()
        if hashlib.sha256(content).hexdigest() == file["sha256"]:
            return content
    return None
