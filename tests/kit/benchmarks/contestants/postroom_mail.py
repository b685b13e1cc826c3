"""Postroom sending mail; BENCHMARK_OFFERS has each connection take fewer mails than its pool would give it."""

from __future__ import annotations

import os
from collections.abc import Iterable

from jinja2 import DictLoader

import tasks
from app.kit.mail.sending import send_email
from app.kit.mail.smtp import pool
from tests.kit.benchmarks.contestants.letter import BODY, SUBJECT, reader
from tests.kit.benchmarks.contestants.postroom import app, check_file, consuming, database

__all__ = ["check_ran", "consuming", "enqueue_mails"]

if "BENCHMARK_OFFERS" in os.environ:
    pool.MAX_OFFERS = int(os.environ["BENCHMARK_OFFERS"])
app.jinja_env.loader = DictLoader({"emails/letter.txt": f"{SUBJECT}\n\n{BODY}"})


def enqueue_mails(numbers: Iterable[int]) -> None:
    """Write a mail to each reader down, and enqueue its job."""
    with app.app_context():
        for n in numbers:
            send_email(reader(n), "letter")


def check_ran(count: int) -> None:
    """Check that each mail went through the ledger and through a job, once, and that the disk has it all."""
    assert tasks.huey.wait_until_idle(30), "jobs still run"
    check_file()
    for what, sql in {
        "mails are sent": "SELECT COUNT(*) FROM postroom_emails WHERE state = 'sent' AND sending_at NOTNULL",
        "tries were made": "SELECT COUNT(*) FROM postroom_email_attempts",
        "jobs are done": "SELECT COUNT(*) FROM postroom_jobs JOIN postroom_emails ON uuid = job"
        " WHERE postroom_jobs.state = 'done' AND attempt = 1",
    }.items():
        found = database.read(sql)[0][0]
        assert found == count, f"the server took {count} mails, {found} {what}"
