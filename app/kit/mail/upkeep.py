"""Forgets what is old: mails that have ended; and ends those that nothing would end any more."""

from __future__ import annotations

import logging
from datetime import timedelta

from flask import current_app
from huey import crontab

from app.kit.database.file import database
from app.kit.engine.wiring import huey, periodic_task
from app.kit.host.clock import clock
from app.kit.mail import ledger

PART = 1000
"""Mails of one commit: while it writes, everybody else who wants to write waits."""

log = logging.getLogger("postroom.mail")


@periodic_task(crontab(minute="17"))
def forget_old_mails() -> int:
    """Delete mails older than MAIL_TTL_S; return how many.

    Safe to repeat: yes, what is deleted is not found again.
    """
    ttl = timedelta(seconds=current_app.extensions["settings"].mail_ttl_s)
    before, count = clock.settled_utc() - ttl, 0
    while gone := ledger.forget_old(before, PART):
        count += gone
    return count


@periodic_task(crontab(minute="47"))
def end_mails_without_a_job() -> None:
    """End mails that wait though their job is gone, as `huey.flush()` leaves them; they may be sent again by hand.

    Safe to repeat: yes, a mail that has ended is left alone.
    """
    # The mails first: they are written together with their jobs, so a job that is not there by then is gone.
    waiting = ledger.waiting_jobs()
    live = huey.live(waiting)
    gone = [job for job in waiting if job not in live]
    if gone:
        log.warning("%d mails end: their jobs are gone, so nothing would have sent them", len(gone))
    for start in range(0, len(gone), PART):
        with database.transaction() as connection:
            for job in gone[start : start + PART]:
                ledger.job_ended(connection, job, "failed", "its job is gone: the queue was emptied")
