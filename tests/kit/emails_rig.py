"""What tests of send_email share: a note to send, its row, its job."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from jinja2 import DictLoader

import tasks
from app.kit.database.file import database
from app.kit.engine.jobs import job as jobs
from app.kit.mail.sending import send_email
from app.settings import Settings
from tests.kit.smtp_sink import SmtpSink


def settings_for(folder: Path, sink: SmtpSink) -> Settings:
    """Send by the sink; what is refused comes again in a minute, a fault of the server is soon over."""
    return Settings(
        data_dir=folder,
        mail_url=sink.url,
        max_pending_jobs=20,
        mail_retry_delays_s=(60,),
        mail_pause_delays_s=(0.05,),
    )


NOTE = DictLoader({"emails/note.txt": "Note for {{ name }}\n\nFrom {{ shop }}"})
"""The mail that they send."""


def row(email_id: int) -> sqlite3.Row:
    """Return what the ledger says of a mail."""
    found = database.read_one("SELECT * FROM postroom_emails WHERE id = ?", (email_id,))
    assert found is not None
    return found


def job_of(email_id: int) -> dict[str, Any]:
    """Describe the job of a mail."""
    job = tasks.huey.job(row(email_id)["job"])
    assert job is not None
    return job


def rows_and_jobs() -> tuple[int, int]:
    """Count all mails and all jobs."""
    emails = database.read_one("SELECT count(*) FROM postroom_emails")
    queued = database.read_one("SELECT count(*) FROM postroom_jobs")
    assert emails is not None
    assert queued is not None
    return emails[0], queued[0]


def make_due() -> None:
    """Have the jobs that are to run later run now."""
    in_a_year = time.time() + 365 * 86400
    database.write(lambda connection: jobs.promote(connection, in_a_year))


def send(number: int = 1, **options: Any) -> int:
    """Send a reader a note; return its mail."""
    return send_email(f"reader{number}@example.com", "note", name="Cleo", shop="Postroom", **options)
