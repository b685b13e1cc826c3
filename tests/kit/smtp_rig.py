"""What tests of encrypted SMTP share: a sink that encrypts, and one conversation with a server."""

from __future__ import annotations

import ssl

import pytest

from app.kit.mail.replies import NotSentError, Reply, Verdict
from app.kit.mail.smtp.conversation import Conversation
from app.kit.mail.smtp.credentials import Credentials
from app.kit.mail.smtp.exchange import Limits, Security, Server
from tests.kit.certificates import server_context
from tests.kit.smtp_sink import SmtpSink

MESSAGE = b"Subject: Soup\r\n\r\nHello\r\n"
PATIENT = Limits(connect_s=20, command_s=20, block_s=20, dot_s=20, reset_s=20, quit_s=0.2)
BOTH = pytest.mark.parametrize("security", ["starttls", "tls"])
"""The two ways of encryption."""


def make_sink(security: Security, context: ssl.SSLContext | None = None, **options: object) -> SmtpSink:
    """Make a sink that encrypts in one of the two ways."""
    return SmtpSink(tls=context or server_context(), implicit=security == "tls", **options)  # type: ignore[arg-type]


def converse(
    port: int, security: Security, credentials: Credentials | None = None, limits: Limits = PATIENT
) -> Reply:
    """Give a server a message; return its yes."""
    with Conversation(Server("127.0.0.1", port, security, credentials), limits) as conversation:
        conversation.offer("post@example.com", "cleo@example.com", MESSAGE)
        return conversation.finish()


def refusal(
    port: int, security: Security, credentials: Credentials | None = None, limits: Limits = PATIENT
) -> Reply:
    """Return why the conversation does not come about; it is always the lane's fault."""
    with pytest.raises(NotSentError) as caught:
        converse(port, security, credentials, limits)
    assert caught.value.verdict is Verdict.LANE
    return caught.value.reply
