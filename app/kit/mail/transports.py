"""The ways for mail to leave the house, by MAIL_URL. Another provider is one class like these, and a line here."""

from __future__ import annotations

from typing import Protocol, cast
from urllib.parse import urlsplit

from flask import current_app

from app.kit.database.file import database
from app.kit.mail import ledger
from app.kit.mail.ledger import Email
from app.kit.mail.replies import Reply
from app.kit.settings_mail import parse_sender
from app.settings import Settings


class Transport(Protocol):
    """A way for mail to leave the house."""

    name: str
    """Of its lane, which pauses when the server is at fault. It is shown to people: no secret in it."""

    idempotent_for_s: float
    """How long the other side knows a mail it took already, and takes it once only; 0: not at all."""

    def deliver(self, email: Email) -> None:
        """Send one mail; `hand_over` is called for the step that makes the other side take it.

        Raises: NotSentError, UnknownOutcomeError.
        """

    def probe(self) -> str:
        """Reach the server and sign in, but send nothing; return a sentence about it.

        Raises: NotSentError.
        """

    def close(self) -> None:
        """Let go of connections; the next mail makes new ones."""


class InboxTransport:
    """Keeps mail in the built-in inbox, where the browser shows it."""

    name = "the built-in inbox"
    idempotent_for_s = 0.0

    def deliver(self, email: Email) -> None:
        """Mark the mail sent, in one commit: the inbox is a view of the ledger."""
        # Not by hand_over, which tries for minutes to write a yes down: nothing has left the house here.
        with database.transaction():
            if ledger.mark_sending(email.id, email.job):
                ledger.mark_sent(
                    email.id, Reply("inbox", None, "", "kept in the built-in inbox"), email.began_at
                )

    def probe(self) -> str:
        """Say where mail goes."""
        return "Mail is kept in the built-in inbox, nothing leaves the site."

    def close(self) -> None:
        """Hold nothing open."""


def transport_for(settings: Settings) -> Transport:
    """Make the transport MAIL_URL names: unset is the built-in inbox."""
    if not settings.mail_url:
        return InboxTransport()
    sender = parse_sender(settings.mail_from)
    if urlsplit(settings.mail_url).scheme == "resend":
        from app.kit.mail.resend import ResendTransport

        return ResendTransport(settings.mail_url, str(sender))
    from app.kit.mail.smtp.transport import SmtpTransport

    return SmtpTransport(settings.mail_url, sender.addr_spec)


def transport() -> Transport:
    """Return the app's transport, which keeps its connections from mail to mail."""
    found = current_app.extensions.get("transport")
    if found is None:
        made = transport_for(current_app.extensions["settings"])
        found = current_app.extensions.setdefault("transport", made)
    return cast(Transport, found)
