"""Mail by SMTP: a MAIL_URL of smtp://, smtps:// or smtp+plain:// becomes a transport."""

from __future__ import annotations

import ssl
import time
from dataclasses import replace
from urllib.parse import urlsplit

from app.kit.mail.handover import hand_over
from app.kit.mail.ledger import Email
from app.kit.mail.replies import NotSentError, Verdict, is_crowded
from app.kit.mail.smtp.conversation import Conversation
from app.kit.mail.smtp.credentials import Credentials
from app.kit.mail.smtp.exchange import Limits, Security, Server
from app.kit.mail.smtp.pool import Pool
from app.kit.settings_mail import parse_mail_url

SCHEMES: dict[str, tuple[Security, int]] = {
    "smtp": ("starttls", 587),
    "smtps": ("tls", 465),
    "smtp+plain": ("plain", 25),
}
ONE_BY_ONE_S = 3600.0


def parse_server(url: str) -> Server:
    """Return the server a MAIL_URL names; user and password stand in it percent-encoded.

    Raises: SettingError, which does not repeat the password.
    """
    found = parse_mail_url(url)
    security, port = SCHEMES[found.scheme]
    credentials = None if found.user is None else Credentials(found.user, found.password or "")
    return Server(found.host, found.port or port, security, credentials)


class SmtpTransport:
    """Gives mail to an SMTP server, over connections that are kept for the next mail."""

    idempotent_for_s = 0.0

    def __init__(self, url: str, sender: str, limits: Limits | None = None) -> None:
        self.server = parse_server(url)
        self.sender = sender
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        self.name = f"{urlsplit(url).scheme}://{host}:{self.server.port}"
        self._limits = limits
        self.pool = Pool(lambda: self._connect(limits))
        self._context: ssl.SSLContext | None = None
        self._one_by_one_until_s = 0.0

    def deliver(self, email: Email) -> None:
        """Send the mail; its row says `sending` before the dot, and `sent` before anything else is said.

        Raises: NotSentError, UnknownOutcomeError.
        """
        try:
            conversation = self.pool.offer(self.sender, email.to_address, email.message)
            try:
                hand_over(email, conversation.finish)
            finally:
                # With the dot not sent the message is half given, and the connection is closed here.
                self.pool.give_back(conversation)
        except NotSentError as error:
            self._learn(error)
            raise

    def probe(self) -> str:
        """Connect and sign in, send nothing; say what the server is like.

        Raises: NotSentError.
        """
        self._connect(self._limits).leave()  # with sending's own patience: some greet late, on purpose
        done = {"starttls": "encrypts (STARTTLS)", "tls": "encrypts (TLS)", "plain": "does not encrypt"}
        signed_in = ", takes the password" if self.server.credentials else ""
        return f"{self.name} answers, {done[self.server.security]}{signed_in}"

    def close(self) -> None:
        """Close the connections; the next mail opens new ones."""
        self.pool.close()

    def _learn(self, error: NotSentError) -> None:
        """Change what the next mail is sent by."""
        stage, code = error.reply.stage, error.reply.code
        if error.verdict is Verdict.LANE and stage in ("mail", "rcpt", "data") and code is None:
            # Who hangs up on commands that came together may owe answers to some of them, or be unable to
            # hear them so. One by one shows which command it was, and so whether this mail is to blame.
            self._one_by_one_until_s = time.monotonic() + ONE_BY_ONE_S
        if is_crowded(error.reply):
            self.pool.shrink()
        if (
            stage == "auth"
        ):  # a server may hang up on the way it cannot do: the next connection tries the other first
            self.server = replace(self.server, sign_in_by=self.server.sign_in_by[::-1])

    def _connect(self, limits: Limits | None) -> Conversation:
        if self.server.security != "plain" and self._context is None:
            # It reads some hundred certificates: once for all connections.
            self._context = ssl.create_default_context()
        # Some relays want to be greeted with a domain of ours, and none minds.
        domain = self.sender.rpartition("@")[2]
        name = domain if "." in domain else "[127.0.0.1]"
        server = replace(self.server, context=self._context)
        one_by_one = time.monotonic() < self._one_by_one_until_s
        conversation = Conversation(server, limits, name, one_by_one=one_by_one)
        conversation.open()
        return conversation
