"""Question and answer with one mail server: each answer, and each silence, becomes a Reply with its stage."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from app.kit.mail.replies import MAX_WORDS, NotSentError, Reply, read_reply
from app.kit.mail.smtp.credentials import Credentials
from app.kit.mail.smtp.wire import SmtpClient

Security = Literal["starttls", "tls", "plain"]
"""STARTTLS, which is then required; TLS from the first byte; or all in the clear, and then no password."""


@dataclass(frozen=True)
class Limits:
    """How long each step may take. Units: seconds."""

    connect_s: float = 10
    command_s: float = 60
    block_s: float = 60
    message_s: float = 1200  # all blocks together
    # RFC 5321 asks for 10 minutes: who hangs up early here makes duplicates.
    dot_s: float = 300
    reset_s: float = 5
    quit_s: float = 2


@dataclass(frozen=True)
class Server:
    """Where a server is, and how to speak with it; `context` replaces the system's authorities.

    `sign_in_by` are the ways to say the password, the first one first.
    """

    host: str
    port: int
    security: Security = "starttls"
    credentials: Credentials | None = None
    context: ssl.SSLContext | None = None
    sign_in_by: tuple[str, ...] = ("PLAIN", "LOGIN")


class Exchange:
    """What is said on one connection."""

    def __init__(self, server: Server, limits: Limits, name: str) -> None:
        self.server = server
        self.limits = limits
        self.client = SmtpClient(name)

    @property
    def is_open(self) -> bool:
        """Say whether the connection can still be used."""
        return self.client.sock is not None

    def close(self) -> None:
        """Close the connection without a word."""
        with suppress(OSError):
            self.client.close()

    def say(self, stage: str, line: str) -> Reply:
        """Send a command; return what the server answers."""
        return self.hear(stage, lambda: self.client.docmd(line))

    def say_together(self, lines: dict[str, str]) -> list[Reply]:
        """Send commands at a stroke; return what the server answers to each, until it can be heard no more."""
        client = self.client

        def talk() -> tuple[int, bytes]:
            client.ask_together(lines.values())
            return client.getreply()

        replies: list[Reply] = []
        for stage in lines:
            replies.append(self.hear(stage, client.getreply if replies else talk))
            if not self.is_open:
                break
        return replies

    def require(self, kind: int, reply: Reply) -> Reply:
        """Return an answer of that kind (its code's first digit).

        Raises: NotSentError when it is of another.
        """
        if (reply.code or 0) // 100 != kind:
            raise NotSentError(reply)
        return reply

    def hear(self, stage: str, talk: Callable[[], tuple[int, bytes]], limit_s: float | None = None) -> Reply:
        """Return what came of some talk; close the connection when nothing more can be said on it."""
        self.client.limit_s = self.limits.command_s if limit_s is None else limit_s
        try:
            code, words = talk()
        except OSError as error:
            return self.silence(stage, error, self.client.limit_s)
        text = words.decode("utf-8", "replace")
        if self.server.credentials is not None:
            text = self.server.credentials.hide_in(text)
        reply = read_reply(stage, code if code > 0 else None, text)
        if reply.code in (None, 421):
            self.close()
        return reply

    def silence(self, stage: str, error: Exception, limit_s: float) -> Reply:
        """Return what is known when the server said nothing, and close the connection."""
        self.close()
        said = str(getattr(error, "strerror", None) or error)
        if isinstance(error, TimeoutError):
            said = f"nothing for {limit_s:g} s: timed out"
        return Reply(stage, None, "", f"{said} ({self.server.host}:{self.server.port})"[:MAX_WORDS])

    def early_answer(self, stage: str) -> Reply | None:
        """Return what the server said without being asked, a hang-up included."""
        try:
            if not self.client.has_spoken():
                return None
        except OSError as error:
            return self.silence(stage, error, 0)
        reply = self.hear(stage, self.client.getreply)
        self.close()
        if (reply.code or 0) // 100 in (4, 5):
            return reply
        return Reply(stage, None, "", f"said out of turn: {reply}"[:MAX_WORDS])

    def give_up(self, stage: str, words: str) -> NotSentError:
        """Close the connection, for a reason of ours; return the error to raise."""
        self.close()
        return NotSentError(Reply(stage, None, "", f"{words} ({self.server.host}:{self.server.port})"))
