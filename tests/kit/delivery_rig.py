"""What tests of delivery share: a mail of the ledger, a try to send it, what its row and its tries say then."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from app.kit.database.file import database
from app.kit.mail import delivery, handover, ledger
from app.kit.mail.ledger import Email
from app.kit.mail.message import Message
from app.kit.mail.replies import Reply
from app.settings import Settings
from tests.kit.smtp_sink import SmtpSink

SOURCE = b"Subject: Soup\r\n\r\nHello\r\n"
DELAYS_S = (100, 200)
PAUSES_S = (5, 30)


def settings_for(folder: Path, sink: SmtpSink) -> Settings:
    """Send by the sink, with schedules that tests know."""
    return Settings(
        data_dir=folder, mail_url=sink.url, mail_retry_delays_s=DELAYS_S, mail_pause_delays_s=PAUSES_S
    )


def add(policy: ledger.Policy = "retry", number: int = 1, to: str = "cleo@example.com", **more: Any) -> int:
    """Write a mail to Cleo down, for the job of that number."""
    message = Message(to, "Soup", SOURCE, f"<{number}@example.com>", "note", **more)
    email_id = ledger.add(message, f"job-{number}", policy=policy)
    assert email_id is not None
    return email_id


def deliver(email_id: int, number: int = 1) -> str:
    """Try to send it, as the job of that number does."""
    return delivery.deliver(email_id, f"job-{number}")


def row(email_id: int) -> sqlite3.Row:
    """Return what the ledger says of a mail."""
    found = database.read_one("SELECT * FROM postroom_emails WHERE id = ?", (email_id,))
    assert found is not None
    return found


def change(email_id: int, assignment: str) -> None:
    """Change the row of a mail behind everybody's back."""
    database.write(lambda c: c.execute(f"UPDATE postroom_emails SET {assignment} WHERE id = ?", (email_id,)))


def outcomes(email_id: int) -> list[str]:
    """Return what each try of a mail came to."""
    sql = "SELECT outcome FROM postroom_email_attempts WHERE email_id = ? ORDER BY rowid"
    return [attempt["outcome"] for attempt in database.read(sql, (email_id,))]


class Another:
    """A transport that answers as a test likes."""

    name = "another"
    idempotent_for_s = 0.0

    def __init__(self, error: Exception | None = None, idempotent_for_s: float = 0.0) -> None:
        self.error = error
        self.idempotent_for_s = idempotent_for_s
        self.taken = 0

    def deliver(self, email: Email) -> None:
        def give() -> Reply:
            self.taken += 1
            if self.error is not None:
                raise self.error
            return Reply("dot", 250, "", "taken")

        handover.hand_over(email, give)

    def probe(self) -> str:
        return "fine"

    def close(self) -> None:
        pass
