"""One SMTP conversation, command by command, so that it is always known how far it came.

smtplib's own `sendmail` raises the same error whether the server hung up before it took the message or after.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from app.kit.mail.replies import NotSentError, Reply, UnknownOutcomeError, Verdict
from app.kit.mail.smtp.exchange import Exchange, Limits, Server
from app.kit.mail.smtp.opening import open_connection

BLOCK_BYTES = 16 * 1024  # what fits one record of TLS: the limit of a block is then one for the whole block
DOT = b".\r\n"
ADDRESS = re.compile(r"[!-;=?-~]+@[!-;=?-~]+")


class Conversation:
    """A connection to one server: `open` it, `offer` a message up to the dot, then `finish` it.

    Who leaves between the two has sent nothing: the connection closes without the dot. Another message may
    follow while it is `reusable`. One thread at a time. `one_by_one`: each command waits for the answer to the
    one before, also where the server would hear them together.
    """

    def __init__(
        self,
        server: Server,
        limits: Limits | None = None,
        name: str = "[127.0.0.1]",
        *,
        one_by_one: bool = False,
    ) -> None:
        self.offers = 0
        self._one_by_one = one_by_one
        self._exchange = Exchange(server, limits or Limits(), name)
        self._refused = False
        self._in_message = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    @property
    def reusable(self) -> bool:
        """Say whether another message may follow: the server still answers, and no message is half given."""
        return self._exchange.is_open and not self._in_message

    @property
    def needs_reset(self) -> bool:
        """Say whether the server has to be told first that the last message is over: it refused it half-way."""
        return self._refused

    def open(self) -> None:
        """Connect, encrypt and sign in.

        Raises: NotSentError.
        """
        open_connection(self._exchange)

    def offer(self, sender: str, recipient: str, message: bytes) -> None:
        """Hand over a message (lines end CRLF), all but the dot that makes the server take it.

        Raises: NotSentError.
        """
        exchange = self._exchange
        size = self._check(sender, recipient, message)
        self.offers += 1
        self._refused = True  # until the server has said otherwise
        lines = {"mail": f"MAIL FROM:<{sender}>{size}", "rcpt": f"RCPT TO:<{recipient}>", "data": "DATA"}
        if exchange.client.has_extn("pipelining") and not self._one_by_one:  # Source: RFC 2920
            self._in_message = True  # only the dot ends a message: who stops now has to close
            replies = exchange.say_together(lines)
            # A server may want a message whose reader it refused. The RFC would send it the dot, which might send
            # the mail; and whatever else is no refusal of DATA leaves open what the server waits for.
            self._in_message = (replies[-1].code or 0) // 100 not in (4, 5)
            for kind, reply in zip((2, 2, 3), replies, strict=False):
                exchange.require(kind, reply)
        else:
            for kind, (stage, line) in zip((2, 2, 3), lines.items(), strict=True):
                exchange.require(kind, exchange.say(stage, line))
            self._in_message = True
        stuffed = re.sub(rb"(?m)^\.", b"..", message)
        self._send(stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n")

    def finish(self) -> Reply:
        """Send the dot; return the server's yes.

        Raises: NotSentError when it says no; UnknownOutcomeError when no answer comes.
        """
        exchange = self._exchange
        early = exchange.early_answer("data")
        if early is not None:
            raise NotSentError(early)
        self._send_dot()
        reply = exchange.hear("dot", exchange.client.getreply, exchange.limits.dot_s)
        kind = (reply.code or 0) // 100
        if kind not in (2, 4, 5):
            exchange.close()
            raise UnknownOutcomeError(reply)
        self._in_message = False
        exchange.require(2, reply)
        self._refused = False
        return reply

    def reset(self) -> bool:
        """Ask for a clean slate; say whether the connection still works."""
        exchange = self._exchange
        reply = exchange.hear("rset", lambda: exchange.client.docmd("RSET"), exchange.limits.reset_s)
        self._refused = reply.code != 250
        return not self._refused

    def leave(self) -> None:
        """Say goodbye and close; whatever becomes of that, what the server took it has taken."""
        client = self._exchange.client
        if self.reusable:
            client.limit_s = self._exchange.limits.quit_s
            with suppress(OSError):
                client.docmd("QUIT")
        self.drop()

    def drop(self) -> None:
        """Close without a word."""
        self._exchange.close()

    def _check(self, sender: str, recipient: str, message: bytes) -> str:
        """Return the SIZE to tell the server; refuse what it would refuse, or take for something else."""
        if not ADDRESS.fullmatch(sender):
            raise NotSentError(Reply("mail", None, "", f"no server can be told this sender: {sender!a}"))
        if not ADDRESS.fullmatch(recipient):
            words = f"no server can be told this address: {recipient!a}"
            raise NotSentError(Reply("rcpt", None, "", words), Verdict.FAILED)
        client = self._exchange.client
        if not client.has_extn("size"):
            return ""
        most = str(client.esmtp_features["size"])
        if most.isdigit() and 0 < int(most) < len(message):
            words = f"the message has {len(message)} bytes, the server takes {most}; nothing was sent"
            raise NotSentError(Reply("mail", 552, "5.3.4", words))
        return f" SIZE={len(message)}"

    def _send(self, content: bytes) -> None:
        exchange, limits = self._exchange, self._exchange.limits
        deadline = time.monotonic() + limits.message_s
        for start in range(0, len(content), BLOCK_BYTES):
            limit_s = exchange.client.limit_s = max(0.001, min(limits.block_s, deadline - time.monotonic()))
            try:
                exchange.client.send(content[start : start + BLOCK_BYTES])
            except OSError as error:
                # It may have said why it hung up.
                reply = exchange.early_answer("data")
                if reply is None or reply.code is None:
                    reply = exchange.silence("data", error, limit_s)
                raise NotSentError(reply) from error

    def _send_dot(self) -> None:
        client = self._exchange.client
        client.limit_s = self._exchange.limits.block_s
        left = DOT
        try:
            while left:
                left = left[client.send_part(left) :]
        except OSError as error:
            # Without TLS an error means that the system took nothing of what it was given. With TLS the bytes
            # are on their way in a record of which nobody can say how much has left.
            clear = not client.secure
            reply = self._exchange.silence("data" if clear else "dot", error, client.limit_s)
            if clear and left == DOT:
                raise NotSentError(reply) from error
            raise UnknownOutcomeError(Reply("dot", None, "", reply.words)) from error
