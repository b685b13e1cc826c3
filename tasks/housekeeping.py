"""Forgets what is old: mails that have ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import current_app
from huey import crontab

from app.mail import ledger
from tasks import periodic_task

PART = 1000
"""Mails of one commit: while it deletes them, everybody else who wants to write waits."""


@periodic_task(crontab(minute="17"))
def forget_old_mails() -> int:
    """Delete mails older than MAIL_TTL_S; return how many.

    Safe to repeat: yes, what is deleted is not found again.
    """
    before, count = datetime.now(UTC) - timedelta(seconds=current_app.extensions["settings"].mail_ttl_s), 0
    while gone := ledger.forget_old(before, PART):
        count += gone
    return count
