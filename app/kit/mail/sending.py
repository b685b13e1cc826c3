"""Sending email: a mail's row and its job are written in your transaction, so both come to be or neither."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

from flask import current_app
from huey import group
from huey.api import Task
from huey.exceptions import RetryTask

from app.kit.database.file import database
from app.kit.engine.wiring import huey, task
from app.kit.mail import (
    by_hand,
    delivery,
    lanes,
    ledger,
    refusals,
    transports,
)
from app.kit.mail.addresses import Addresses
from app.kit.mail.attachments import Source
from app.kit.mail.ledger import Policy
from app.kit.mail.letters import MAX_LETTERS as MAX_LETTERS, Letter as Letter, Unmade, make
from app.kit.mail.message import MailingList, Message, render
from app.kit.mail.options import check_options
from app.kit.mail.replies import MailError
from app.kit.mail.templates import refuse_unused

log = logging.getLogger("postroom.mail")

URGENT = 10
"""Priority of mail somebody waits for: a link to confirm an address, say."""

BULK = -10
"""Priority of mail to many: it waits until everything else (0) has gone."""

CONNECTIONS = 2
"""Mails on their way at once; providers allow few connections. Source: learn.microsoft.com allows three"""

FAILED_JOB_S = 2.0
"""How long the failed job of a mail that is queued again is waited for, to take it off the shelf."""

DELIVER = "tasks.emails.deliver_email"
"""The task whose pause is the pause of all mail."""

LANE_PAUSE = "Mail waits: "
"""How the reason of such a pause begins when it is not by hand."""


def send_email(
    to: str,
    template: str,
    *,
    dedup_key: str | None = None,
    cc: Addresses = (),
    bcc: Addresses = (),
    reply_to: Addresses = (),
    priority: float = 0,
    policy: Policy = "retry",
    mailing_list: MailingList | None = None,
    attachments: Sequence[Source] = (),
    expires_in_s: float | None = None,
    **context: Any,
) -> int:
    """Write a mail down and queue it; return its id at once. Inside `transaction()` it joins that.

    A `dedup_key` says what the mail is about: if it is known, nothing is sent and the first mail is returned.
    Each address of `cc` and `bcc` has a mail of its own, which names the same readers. Files are read at once.
    Units: `expires_in_s`, how long it is tried (MAIL_EXPIRES_S), in seconds.
    Raises: EmailTemplateError; InvalidInputError when no mail can go to an address, for an option's value that
    will not do, or for a keyword that is no option and that the template does not use; QueueFullError.
    """
    refuse_unused(template, context, OPTIONS)
    check_options(cc=cc, bcc=bcc, reply_to=reply_to, mailing_list=mailing_list, attachments=attachments)
    check_options(priority=priority, policy=policy, expires_in_s=expires_in_s, dedup_key=dedup_key)
    message = render(
        template,
        to,
        context,
        cc=cc,
        bcc=bcc,
        reply_to=reply_to,
        mailing_list=mailing_list,
        attachments=attachments,
        message_key=dedup_key,
    )
    options = {"priority": priority, "policy": policy, "expires_in_s": _expires_in_s(expires_in_s)}
    with database.transaction():
        email_id = _queue(message, options, dedup_key)
        for copy in message.copies() if email_id is not None else ():
            _queue(copy, options)
        if email_id is None and dedup_key is not None:
            email_id = ledger.id_of(dedup_key)
    assert email_id is not None
    return email_id


def _queue(message: Message, options: Mapping[str, Any], dedup_key: str | None = None) -> int | None:
    job = str(uuid.uuid4())
    email_id = ledger.add(message, job, dedup_key=dedup_key, **options)
    if email_id is not None:
        deliver_email(email_id, id=job, priority=options["priority"])
    return email_id


def send_emails(
    template: str,
    letters: Sequence[Letter],
    *,
    priority: float = BULK,
    policy: Policy = "retry",
    expires_in_s: float | None = None,
    **context: Any,
) -> int:
    """Write down and queue a mail to each of many, all in one transaction; return how many were queued.

    Who has the mail already (by `dedup_key`) does not get it again. A letter that cannot be made, or addressed,
    becomes a failed row of the ledger and stops nobody else's mail.
    Raises: EmailTemplateError, also if not one of several can be made; InvalidInputError for more than
    MAX_LETTERS, or for a keyword that the template does not use; QueueFullError.
    """
    refuse_unused(template, context, OPTIONS_OF_MANY)
    check_options(priority=priority, policy=policy, expires_in_s=expires_in_s)
    # Rendered before the transaction opens: that takes longer than the writing.
    pairs = make(template, letters, context)
    options = {"priority": priority, "policy": policy, "expires_in_s": _expires_in_s(expires_in_s)}
    with database.transaction():
        jobs = [_write_down(template, letter, message, options) for letter, message in pairs]
        new = [job for job in jobs if job is not None]
        huey.enqueue(group(new))
    return len(new)


OPTIONS, OPTIONS_OF_MANY = (
    [name for name, option in signature(function).parameters.items() if option.kind is option.KEYWORD_ONLY]
    for function in (send_email, send_emails)
)
"""What they may be told besides values of the template."""


def _expires_in_s(asked_s: float | None) -> float:
    return float(current_app.extensions["settings"].mail_expires_s) if asked_s is None else asked_s


def _write_down(
    template: str, letter: Letter, message: Message | Unmade, options: Mapping[str, Any]
) -> Task | None:
    if not isinstance(message, Message):
        log.warning("mail %s cannot be made: %s", letter.dedup_key, message)
        ledger.add_unsendable(template, letter.to, str(message), letter.dedup_key)
        return None
    job = str(uuid.uuid4())
    email_id = ledger.add(message, job, dedup_key=letter.dedup_key, **options)
    return None if email_id is None else deliver_email.s(email_id, id=job, priority=options["priority"])


def _stored_by_its_first_name(body: Callable[..., str]) -> Callable[..., str]:
    """Keep the name by which the jobs of older files are stored: with another, those mails would never go."""
    body.__module__ = DELIVER.rpartition(".")[0]
    return body


@task(
    retries=delivery.MAX_TRIES,
    max_delay=7 * 24 * 3600,
    limit=CONNECTIONS,
    max_waits=math.inf,  # it waits while the server is down, until the mail expires
    context=True,
    if_not_done=ledger.job_ended,
    if_redriven=ledger.job_redriven,
)
@_stored_by_its_first_name
def deliver_email(email_id: int, task: Task) -> str:
    """Send one mail of the ledger; return the state it is in then.

    Safe to repeat: yes, a mail that was dealt with is left alone. One that may have been sent (the process
    died, or the answer never came) goes again, the same to the byte, if its policy is `retry`; not if `hold`.
    """
    try:
        return delivery.deliver(email_id, task.id)
    except delivery.LaneClosedError as closed:
        # No thread waits for the server and no attempt is burnt: after the pause this mail is behind the others.
        _pause(closed.pause_s, str(closed))
        for wronged in closed.wronged:
            _revive(wronged)
        task.retry_delay = 0
        raise RetryTask(str(closed), delay=closed.behind_s or None) from closed
    except delivery.TryLaterError as later:
        _pause(later.pause_s, str(later))
        task.retry_delay = later.delay_s
        raise
    except MailError as error:
        _pause(error.pause_s, str(error))
        task.retries = 0  # the job ends here, failed
        raise


def _revive(email_id: int) -> None:
    """Queue a mail again that failed by no fault of its own, behind those that wait."""
    job = str(uuid.uuid4())
    with database.transaction():
        email = refusals.revive(email_id, job)
        if email is None:
            return
        deliver_email(email_id, id=job, priority=email.priority)
    log.warning("mail %d, which had failed, waits with all others", email_id)
    # The job it failed with may be about to end; it is nobody's to retry.
    huey.wait_until(email.job, lambda: huey.delete_failed(email.job), time.monotonic() + FAILED_JOB_S)


def _pause(seconds: float, reason: str) -> None:
    if seconds:
        huey.pause(DELIVER, seconds, LANE_PAUSE + reason, extend=True)


# By hand


def send_again(email_id: int) -> None:
    """Queue a mail again that was not sent, or of which nobody knows.

    Raises: NotFoundError, ConflictError.
    """
    job = str(uuid.uuid4())
    with database.transaction():
        priority = by_hand.send_again(email_id, job)
        deliver_email(email_id, id=job, priority=priority)


def cancel(email_id: int) -> None:
    """Take a mail back that waits, with its job.

    Raises: NotFoundError, ConflictError.
    """
    with database.transaction():
        job = by_hand.details(email_id)["job"]
        by_hand.cancel(email_id)
        huey.cancel(job)


# With the consumer


@huey.on_startup()
def open_lanes() -> None:
    """Let mail go again at once: a restart is how people tell that they have mended something."""
    lanes.open_all()
    if huey.pauses():
        huey.resume(DELIVER, LANE_PAUSE)


@huey.on_shutdown()
def close_connections() -> None:
    """Say good-bye to the mail server."""
    transports.transport().close()
