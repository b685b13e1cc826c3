"""The ledger's tables: mails, the tries to send them, who gets none, and the lanes mail leaves by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.database_setup import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database as Tables

NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"

migrations = Migrations("mail")


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


@migrations()
def add_tries_and_lists(db: Tables) -> None:
    """Keep every try, what a mail belongs to, how long it is tried; and who gets none."""
    for column in (
        "tries INTEGER NOT NULL DEFAULT 0",  # those that count: a fault of the lane does not
        "expires_at TEXT",
        "maybe_sent_at TEXT",  # when a try that is followed by another may have sent it
        "list_name TEXT NOT NULL DEFAULT ''",  # the mailing list it was sent to, if any
        "attachments TEXT NOT NULL DEFAULT '[]'",  # JSON; the files themselves stay where they are
    ):
        db.execute(f"ALTER TABLE emails ADD COLUMN {column}")
    db.execute("CREATE INDEX emails_by_job ON emails (job)")
    db.execute("CREATE INDEX emails_by_address ON emails (to_address, id)")
    db.execute("CREATE INDEX emails_by_age ON emails (created_at)")
    db.execute(
        """
        CREATE TABLE email_attempts (
            email_id INTEGER NOT NULL REFERENCES emails (id) ON DELETE CASCADE,
            outcome TEXT NOT NULL CHECK (
                outcome IN ('sent', 'lane', 'later', 'failed', 'suppressed', 'unknown', 'by hand')
            ),
            began_at TEXT NOT NULL,
            ended_at TEXT NOT NULL,
            stage TEXT NOT NULL,
            code INTEGER,
            enhanced TEXT NOT NULL,
            words TEXT NOT NULL
        ) STRICT"""
    )
    db.execute("CREATE INDEX email_attempts_by_email ON email_attempts (email_id)")
    db.execute(
        f"""
        CREATE TABLE suppressions (
            address TEXT NOT NULL COLLATE NOCASE,
            list_name TEXT NOT NULL DEFAULT '',    -- '': nothing at all goes there
            reason TEXT NOT NULL,
            created_at TEXT NOT NULL DEFAULT ({NOW}),
            PRIMARY KEY (address, list_name)
        ) STRICT, WITHOUT ROWID"""
    )
    db.execute(
        """
        CREATE TABLE mail_lanes (
            name TEXT PRIMARY KEY,
            faults INTEGER NOT NULL DEFAULT 0,     -- in a row
            paused_until REAL NOT NULL DEFAULT 0,  -- unix seconds
            reason TEXT NOT NULL DEFAULT '',
            tokens REAL,                           -- of the bucket that bounds mails a minute; NULL: full
            refilled_at REAL NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID"""
    )
