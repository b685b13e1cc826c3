"""Refusals for good that may be the lane's: the same words to several readers, and to no reader a yes.

A server that dislikes the sender often says so at RCPT or after the dot, where it might mean one reader or one
message. What it means is seen by what it says to others: until it has taken another mail, nobody knows.
"""

from __future__ import annotations

import re
import sqlite3

from app.kit.database.file import database
from app.kit.mail import suppressions
from app.kit.mail.ledger import Email, find, move
from app.kit.mail.replies import NotSentError, Reply, Verdict
from app.kit.mail.tables import NOW

MOST_ALIKE = 3
"""Readers that the same words may be said to in a row before all mail waits."""

ALIKE = (
    f"SELECT email_id, address, state = 'failed' AND {NOW} < COALESCE(expires_at, '9999') AS is_wronged"
    " FROM postroom_mail_refusals AS refusals JOIN postroom_emails ON id = email_id"
    " WHERE lane = ? AND refusals.words = ? AND NOT outlived"
)
STAGES = ("rcpt", "data", "dot", "http")
FOR_GOOD = (Verdict.SENDER, Verdict.FAILED, Verdict.SUPPRESSED)


def weigh(lane: str, email: Email, error: NotSentError) -> tuple[Verdict, list[int]]:
    """Note a refusal; return its verdict, LANE when the mail itself is hardly to blame, and who failed wrongly.

    It belongs into one transaction with what follows from it for the mail.
    """
    reply, verdict = error.reply, error.verdict
    if reply.stage not in STAGES or reply.code is None:
        return verdict, []
    words = _sameness(reply, email.to_address)

    def note(connection: sqlite3.Connection) -> tuple[Verdict, list[int]]:
        sql = "SELECT outlived FROM postroom_mail_refusals WHERE email_id = ?"
        before = connection.execute(sql, (email.id,)).fetchone()
        if before is not None and before["outlived"]:  # others got a yes, and this one again a no
            # A relay may take mail for its own domain from anybody: who was refused for the sender's sake waits.
            return (Verdict.LATER if verdict is Verdict.SENDER else verdict), []
        sql = "INSERT OR REPLACE INTO postroom_mail_refusals (email_id, lane, address, words) VALUES (?, ?, ?, ?)"
        connection.execute(sql, (email.id, lane, email.to_address.lower(), words))
        rows = connection.execute(ALIKE, (lane, words)).fetchall()
        if len({row["address"] for row in rows}) >= MOST_ALIKE:
            return Verdict.LANE, [row["email_id"] for row in rows if row["is_wronged"]]
        return (Verdict.LANE if verdict is Verdict.SENDER else verdict), []

    return database.write(note)


def note_taken(lane: str) -> None:
    """Note that a lane took a mail: those it refused before, it may have refused for their own sake."""
    sql = "SELECT 1 FROM postroom_mail_refusals WHERE lane = ? AND NOT outlived LIMIT 1"
    if database.read_one(sql, (lane,)) is None:
        return

    def note(connection: sqlite3.Connection) -> None:
        connection.execute(
            "DELETE FROM postroom_mail_refusals WHERE lane = ?"
            " AND email_id IN (SELECT id FROM postroom_emails WHERE state = 'failed')",
            (lane,),
        )
        connection.execute("UPDATE postroom_mail_refusals SET outlived = 1 WHERE lane = ?", (lane,))

    database.write(note)


def revive(email_id: int, job: str) -> Email | None:
    """failed -> queued, for the job of that uuid; return the mail as it was, None if it has not failed."""
    with database.transaction() as connection:
        email = find(email_id)
        if email is None or email.reply is None:
            return None
        if not move(connection, email_id, "state = 'queued', sending_at = NULL", ("failed",)):
            return None
        connection.execute("UPDATE postroom_emails SET job = ? WHERE id = ?", (job, email_id))
        suppressions.lift(email.to_address, reason=str(email.reply))
    return email


def _sameness(reply: Reply, address: str) -> str:
    """Return what a server said without what it says to this reader alone: addresses, and numbers of any kind."""
    words = reply.words.lower()
    name, _, domain = address.lower().partition("@")
    for own in (address.lower(), domain, name):
        words = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", " ", words)
    words = re.sub(r"\S*[\d@]\S*", " ", words)
    return f"{reply.stage} {reply.code} {reply.enhanced} {' '.join(words.split())}"
