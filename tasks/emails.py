"""Sending email: a mail's row and its job are written in your transaction, so both come to be or neither."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huey import group
from huey.api import Task

from app.database import database
from app.errors import InvalidInputError
from app.mail import ledger, transports
from app.mail.ledger import Policy
from app.mail.message import Message, render
from app.mail.smtp import MailError
from tasks import huey, task

log = logging.getLogger("postroom.mail")

BULK = -10
"""Priority of mail to many: it waits until everything else (0) has gone."""


MAX_LETTERS = 1000
"""Mails of one transaction: while it writes them, everybody else who wants to write waits."""


@dataclass(frozen=True)
class Letter:
    """One recipient of a mail to many, with what the template is told about them alone."""

    to: str
    dedup_key: str
    context: Mapping[str, Any] = field(default_factory=dict)


def send_email(
    to: str,
    template: str,
    *,
    dedup_key: str | None = None,
    priority: float = 0,
    policy: Policy = "retry",
    **context: Any,
) -> int:
    """Write a mail down and queue it; return its id at once. Inside `transaction()` it joins that.

    A `dedup_key` says what the mail is about: if it is known, nothing is sent and the first mail is returned.
    Raises: EmailTemplateError; InvalidInputError when no mail can go to that address; QueueFullError.
    """
    message = render(template, to, context)
    job = str(uuid.uuid4())
    with database.transaction():
        email_id = ledger.add(message, job, dedup_key=dedup_key, priority=priority, policy=policy)
        if email_id is None and dedup_key is not None:
            email_id = ledger.id_of(dedup_key)
        else:
            deliver_email(email_id, id=job, priority=priority)
    assert email_id is not None
    return email_id


def send_emails(
    template: str,
    letters: Sequence[Letter],
    *,
    priority: float = BULK,
    policy: Policy = "retry",
    **context: Any,
) -> int:
    """Write down and queue a mail to each of many, all in one transaction; return how many were queued.

    Who has the mail already (by `dedup_key`) does not get it again. An address that no mail can go to becomes
    a failed row of the ledger and stops nobody else's mail.
    Raises: EmailTemplateError; InvalidInputError for more than MAX_LETTERS; QueueFullError.
    """
    if len(letters) > MAX_LETTERS:
        raise InvalidInputError(f"{len(letters)} letters at once, at most {MAX_LETTERS}: send them in parts.")
    known = ledger.known_keys(letter.dedup_key for letter in letters)
    # Rendered before the transaction opens: that takes longer than the writing.
    pairs = [
        (letter, _render(template, letter, context)) for letter in letters if letter.dedup_key not in known
    ]
    with database.transaction():
        jobs = [_write_down(template, letter, message, priority, policy) for letter, message in pairs]
        new = [job for job in jobs if job is not None]
        huey.enqueue(group(new))
    return len(new)


def _render(template: str, letter: Letter, context: Mapping[str, Any]) -> Message | InvalidInputError:
    try:
        return render(template, letter.to, {**context, **letter.context})
    except InvalidInputError as error:
        return error


def _write_down(
    template: str, letter: Letter, message: Message | InvalidInputError, priority: float, policy: Policy
) -> Task | None:
    if isinstance(message, InvalidInputError):
        log.warning("mail %s cannot be made: %s", letter.dedup_key, message)
        ledger.add_unsendable(template, letter.to, str(message), letter.dedup_key)
        return None
    job = str(uuid.uuid4())
    email_id = ledger.add(message, job, dedup_key=letter.dedup_key, priority=priority, policy=policy)
    return None if email_id is None else deliver_email.s(email_id, id=job, priority=priority)


@task(retries=10, retry_delay=5, retry_backoff=2, context=True)
def deliver_email(email_id: int, task: Task) -> None:
    """Send one mail of the ledger.

    Safe to repeat: yes, a mail that was dealt with is left alone. One that may have been sent (the process
    died, or the answer never came) goes again, the same to the byte, if its policy is `retry`; not if `hold`.
    """
    try:
        transports.deliver(email_id, last_try=not task.retries)
    except MailError as error:
        if error.permanent:
            task.retries = 0  # the job ends here, failed, with the server's words in view
        raise
