"""Forgets what is old: mails that have ended, subscriptions that nobody confirmed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import current_app
from huey import crontab

from app import catalogue
from app.mail import ledger
from tasks import periodic_task

PART = 1000
"""Mails of one commit: while it deletes them, everybody else who wants to write waits."""


@periodic_task(crontab(minute="17"))
def forget_what_is_old() -> int:
    """Delete mails older than MAIL_TTL_S and unconfirmed subscriptions older than CONFIRM_TTL_S; count mails.

    Safe to repeat: yes, what is deleted is not found again.
    """
    settings, now, count = current_app.extensions["settings"], datetime.now(UTC), 0
    while gone := ledger.forget_old(now - timedelta(seconds=settings.mail_ttl_s), PART):
        count += gone
    catalogue.forget_unconfirmed(now - timedelta(seconds=settings.confirm_ttl_s))
    return count
