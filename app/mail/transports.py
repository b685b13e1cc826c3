"""Where mail goes, by MAIL_URL; and what becomes of a mail's row when it went, or did not."""

from __future__ import annotations

import logging
from typing import Protocol
from urllib.parse import urlsplit

from flask import current_app

from app.database import database
from app.mail import ledger
from app.mail.ledger import Email
from app.mail.message import parse_sender
from app.mail.smtp import Conversation, MailError, NotSentError, Reply, UnknownOutcomeError
from app.settings import Settings

log = logging.getLogger("postroom.mail")


class Transport(Protocol):
    """A way for mail to leave the house."""

    def deliver(self, email: Email) -> None:
        """Send one mail. Mark it sending before anybody else can have it, and sent as soon as they have.

        Raises: NotSentError, UnknownOutcomeError.
        """


class InboxTransport:
    """Keeps mail in the built-in inbox, where the browser shows it."""

    def deliver(self, email: Email) -> None:
        """Mark the mail sent, in one commit: the inbox is a view of the ledger."""
        with database.transaction():
            ledger.mark_sending(email.id)
            ledger.mark_sent(email.id, Reply("inbox", None, "", "kept in the built-in inbox"))


class SmtpTransport:
    """Gives mail to an SMTP server, one connection a mail."""

    def __init__(self, host: str, port: int, sender: str) -> None:
        self.host = host
        self.port = port
        self.sender = sender

    def deliver(self, email: Email) -> None:
        """Send the mail; its row says `sending` before the dot, and `sent` before anything else is said."""
        with Conversation(self.host, self.port) as conversation:
            conversation.offer(self.sender, email.to_address, email.message)
            if ledger.mark_sending(email.id):
                ledger.mark_sent(email.id, conversation.finish())


def transport_for(settings: Settings) -> Transport:
    """Return the transport MAIL_URL names: unset is the built-in inbox."""
    if not settings.mail_url:
        return InboxTransport()
    url = urlsplit(settings.mail_url)
    assert url.hostname is not None  # the settings have seen to it
    return SmtpTransport(url.hostname, url.port or 25, parse_sender(settings.mail_from).addr_spec)


def deliver(email_id: int, *, last_try: bool = False) -> None:
    """Send a queued mail and write down what became of it; do nothing when it has been dealt with.

    Raises: NotSentError, UnknownOutcomeError; their `permanent` says that no try should follow.
    """
    email = ledger.find(email_id)
    if email is None or email.state not in ("queued", "sending"):
        log.info("mail %d needs no sending (%s)", email_id, email.state if email else "it is gone")
        return
    try:
        if email.state == "sending":
            _go_on_after_death(email)
        transport_for(current_app.extensions["settings"]).deliver(email)
    except MailError as error:
        _settle(email, error, last_try)
        raise
    except Exception as error:
        if last_try:
            ledger.give_up(email.id, f"{type(error).__name__}: {error}")
        raise


def _go_on_after_death(email: Email) -> None:
    """Requeue a mail that a process left between the dot and the record of the answer, if it may go twice."""
    reply = Reply("dot", None, "", "the process ended before the answer was written down")
    if email.policy == "hold":
        raise UnknownOutcomeError(reply)
    ledger.requeue(email.id, reply)


def _settle(email: Email, error: MailError, last_try: bool) -> None:
    error.permanent = error.permanent or last_try or _is_held(email, error)
    if not error.permanent:
        ledger.requeue(email.id, error.reply)
    elif isinstance(error, NotSentError):
        ledger.mark_failed(email.id, error.reply)
    else:
        ledger.mark_unknown(email.id, error.reply)
    log.warning("mail %d, %s: %s", email.id, "given up" if error.permanent else "will be tried again", error)


def _is_held(email: Email, error: MailError) -> bool:
    return isinstance(error, UnknownOutcomeError) and email.policy == "hold"
