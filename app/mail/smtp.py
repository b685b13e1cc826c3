"""One SMTP conversation, command by command, so that it is always known how far it came.

smtplib's own `sendmail` raises the same error whether the server hung up before it took the message or after.
"""

from __future__ import annotations

import re
import smtplib
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from app.errors import PostroomError

CHUNK_BYTES = 64 * 1024
MAX_WORDS = 500
ENHANCED = re.compile(r"^([245]\.\d{1,3}\.\d{1,3})\b *")


@dataclass(frozen=True)
class Reply:
    """What the server said at a stage; `code` is None when it said nothing that SMTP knows."""

    stage: str
    code: int | None
    enhanced: str
    words: str

    def __str__(self) -> str:
        said = " ".join(part for part in (str(self.code or ""), self.enhanced, self.words) if part)
        return f"at {self.stage}: {said}"


@dataclass(frozen=True)
class Limits:
    """How long each step may take. Units: seconds."""

    connect_s: float = 10
    command_s: float = 60
    # RFC 5321 asks for 10 minutes: who hangs up early here makes duplicates.
    dot_s: float = 300
    quit_s: float = 2


class MailError(PostroomError):
    """A mail did not go out; `reply` tells the stage, the code and the server's words."""

    code = "mail_error"
    status = 502

    def __init__(self, text: str, reply: Reply, permanent: bool) -> None:
        self.reply = reply
        self.permanent = permanent
        super().__init__(f"{text} {reply}")


class NotSentError(MailError):
    """The server did not take the mail; `permanent` says that trying again is of no use."""

    code = "mail_not_sent"

    def __init__(self, reply: Reply) -> None:
        super().__init__("The server did not take the mail", reply, is_permanent(reply))


class UnknownOutcomeError(MailError):
    """The message was handed over, but the server's answer never came: it may have been sent."""

    code = "mail_outcome_unknown"

    def __init__(self, reply: Reply, permanent: bool = False) -> None:
        super().__init__("The mail may have been sent, the server never said", reply, permanent)


PERMANENT: tuple[tuple[str, bool], ...] = (
    # "stage code enhanced": the first line that fits decides. Source: RFC 5321 4.2 and 4.5.3.1.10, RFC 3463
    (r"(connect|ehlo) .*", False),  # the server's trouble, or ours with it; not this mail's
    (r".* 4\d\d .*", False),
    (r".* 53[0458] .*", False),  # it wants a sign-in: a setting is wrong, the mail is not
    (r"rcpt 552 5\.3\.4", True),  # the message is too big
    (r"rcpt 552 .*", False),  # mailbox full, or too many recipients
    (r".* 5\d\d .*", True),
    (r".*", False),  # hung up, timed out, or no SMTP at all
)


def is_permanent(reply: Reply) -> bool:
    """Say whether a refusal is for good."""
    enhanced = reply.enhanced if reply.enhanced[:1] == str(reply.code)[:1] else ""
    line = f"{reply.stage} {reply.code or '-'} {enhanced}"
    return next(permanent for pattern, permanent in PERMANENT if re.fullmatch(pattern, line))


class Conversation:
    """A connection to one server: `offer` a message up to the dot, then `finish` it.

    Who leaves between the two has sent nothing: the connection closes without the dot.
    """

    def __init__(self, host: str, port: int, limits: Limits | None = None) -> None:
        self.host = host
        self.port = port
        self.limits = limits or Limits()
        self._offering = False
        # With no name given smtplib asks the DNS for one, which takes seconds where DNS is broken.
        self._client = smtplib.SMTP(local_hostname="[127.0.0.1]")

    def __enter__(self) -> Self:
        try:
            self._ask("connect", 2, self._connect)
            self._ask("ehlo", 2, self._client.ehlo)
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whatever becomes of QUIT: what the server took, it has taken.
        with suppress(OSError):
            if self._client.sock is not None and not self._offering:
                self._client.sock.settimeout(self.limits.quit_s)
                self._client.quit()
        self._client.close()

    def offer(self, sender: str, recipient: str, message: bytes) -> None:
        """Hand over a message (lines end CRLF), all but the dot that makes the server take it.

        Raises: NotSentError.
        """
        self._ask("mail", 2, lambda: self._client.mail(sender))
        self._ask("rcpt", 2, lambda: self._client.rcpt(recipient))
        self._ask("data", 3, lambda: self._client.docmd("DATA"))
        self._offering = True
        stuffed = re.sub(rb"(?m)^\.", b"..", message)
        if not stuffed.endswith(b"\r\n"):
            stuffed += b"\r\n"
        for start in range(0, len(stuffed), CHUNK_BYTES):
            self._send("data", stuffed[start : start + CHUNK_BYTES])

    def finish(self) -> Reply:
        """Send the dot; return the server's yes.

        Raises: NotSentError when it says no; UnknownOutcomeError when no answer comes.
        """
        self._send("dot", b".\r\n")
        self._limit(self.limits.dot_s)
        reply = self._hear("dot", self._client.getreply)
        self._offering = False
        kind = (reply.code or 0) // 100
        if kind in (4, 5):
            raise NotSentError(reply)
        if kind != 2:
            raise UnknownOutcomeError(reply)
        return reply

    def _connect(self) -> tuple[int, bytes]:
        # Not smtplib's connect(): it would give the server's greeting no longer than the connection.
        address = (self.host, self.port)
        self._client.sock = socket.create_connection(address, self.limits.connect_s)
        self._limit(self.limits.command_s)
        return self._client.getreply()

    def _ask(self, stage: str, expected: int, command: Callable[[], tuple[int, bytes]]) -> None:
        self._limit(self.limits.command_s)
        reply = self._hear(stage, command)
        if (reply.code or 0) // 100 != expected:
            raise NotSentError(reply)

    def _send(self, stage: str, content: bytes) -> None:
        # An error here means that the system did not even take these bytes, the end of them at least.
        self._limit(self.limits.command_s)
        try:
            self._client.send(content)
        except OSError as error:
            raise NotSentError(self._silence(stage, error)) from error

    def _hear(self, stage: str, command: Callable[[], tuple[int, bytes]]) -> Reply:
        try:
            code, words = command()
        except OSError as error:  # the base of smtplib's errors, too
            return self._silence(stage, error)
        text = words.decode("utf-8", "replace")
        found = ENHANCED.match(text)
        lines = " ".join(ENHANCED.sub("", line) for line in text.splitlines())
        said = "".join(letter if letter.isprintable() else " " for letter in lines)[:MAX_WORDS]
        return Reply(stage, code if code > 0 else None, found[1] if found else "", said)

    def _silence(self, stage: str, error: OSError) -> Reply:
        self._client.close()
        return Reply(stage, None, "", f"{error} ({self.host}:{self.port})"[:MAX_WORDS])

    def _limit(self, seconds: float) -> None:
        if self._client.sock is not None:
            self._client.sock.settimeout(seconds)
