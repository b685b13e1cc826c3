"""A real SMTP server for tests: it keeps what it accepts and misbehaves where it is told to.

with SmtpSink() as sink:
    sink.answer("rcpt", "450 4.2.0 come back later")
    ...                                     # MAIL_URL=sink.url
    assert sink.messages == [("cleo@example.com", b"From: ...")]

With `tls` it offers STARTTLS (or speaks TLS at once, `implicit`), with `credentials` it wants to see them, and
without `pipelining` it hears one command at a time, as few servers do.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

HANG_UP = "hang up"
"""Close the connection instead of an answer; at "dot" the message is not kept."""
ACCEPT_AND_HANG_UP = "accept and hang up"
"""At "dot": keep the message, then close the connection instead of an answer."""
SILENCE = "silence"
"""Never answer."""

COMMANDS = ("ehlo", "helo", "starttls", "auth", "mail", "rcpt", "data", "rset", "noop", "quit")
STAGES = ("connect", *COMMANDS, "dot")


class SmtpSink:
    """Listens on a free port of this machine from `start()` to `stop()`; any thread may call its methods."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        implicit: bool = False,
        credentials: tuple[str, str] | None = None,
        without_auth: Sequence[str] = (),
        most_bytes: int = 33_554_432,
        pipelining: bool = True,
    ) -> None:
        self.tls = tls
        self.implicit = implicit
        self.credentials = credentials
        self.without_auth = without_auth
        self.most_bytes = most_bytes
        self.pipelining = pipelining
        self.messages: list[tuple[str, bytes]] = []
        self.commands: list[str] = []  # as "auth PLAIN ...", of all connections
        self.connections = 0
        self.port = 0
        self.open: set[_Conversation] = set()
        self._answers: dict[str, deque[str]] = {stage: deque() for stage in STAGES}
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="smtp-sink", daemon=True
        )
        self._listening = threading.Event()

    @property
    def url(self) -> str:
        """Return the MAIL_URL that leads here."""
        scheme = "smtp+plain" if self.tls is None else "smtps" if self.implicit else "smtp"
        user, password = (quote(part, safe="") for part in self.credentials or ("", ""))
        return f"{scheme}://" + (f"{user}:{password}@" if user else "") + f"127.0.0.1:{self.port}"

    def start(self) -> SmtpSink:
        """Listen."""
        self._thread.start()
        assert self._listening.wait(10), "the SMTP sink does not listen"
        return self

    def stop(self) -> None:
        """Close every connection and stop listening."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def __enter__(self) -> SmtpSink:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def answer(self, stage: str, reply: str, times: int = 1) -> None:
        """Give this reply, the next `times` times, to a command (or at "connect", as the greeting)."""
        self._answers[stage].extend([reply] * times)

    @property
    def will_be_silent(self) -> bool:
        """Say whether some command will get no answer."""
        return any(SILENCE in answers for answers in self._answers.values())

    def wait_for(self, count: int, timeout_s: float = 10) -> bool:
        """Return whether `count` messages have come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.messages) >= count, timeout_s)

    def wait_for_goodbye(self, left: int = 0, timeout_s: float = 10) -> bool:
        """Return whether no more than `left` connections have stayed open."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.open) <= left, timeout_s)

    def verbs(self) -> list[str]:
        """Return the commands that came, without what followed them."""
        return [command.split()[0] for command in self.commands]

    def recipients(self) -> list[str]:
        """Return who got mail, in order of arrival."""
        with self._changed:
            return [recipient for recipient, _ in self.messages]

    # In the server's thread

    def next_answer(self, stage: str) -> str | None:
        """Take the scripted answer of a stage, if there is one."""
        return self._answers[stage].popleft() if self._answers[stage] else None

    def keep(self, envelope: Envelope) -> None:
        """Keep an accepted message."""
        assert isinstance(envelope.content, bytes)
        with self._changed:
            self.messages += [(recipient, envelope.content) for recipient in envelope.rcpt_tos]
            self._changed.notify_all()

    def note_connection(self, conversation: _Conversation) -> None:
        """Count a connection, and remember it while it is open."""
        if conversation not in self.open:  # STARTTLS makes the same one anew
            self.connections += 1
            self.open.add(conversation)

    def forget_connection(self, conversation: _Conversation) -> None:
        """Tell who waits for it that a connection is closed."""
        with self._changed:
            self.open.discard(conversation)
            self._changed.notify_all()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(
            lambda: _Conversation(self, self._loop), "127.0.0.1", 0, ssl=self.tls if self.implicit else None
        )
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopping.wait()
        server.close()
        for conversation in self.open:
            conversation.transport.abort()
        while self.open:
            await asyncio.sleep(0)


class _Conversation(SMTP):
    """aiosmtpd's server, with the sink's answers in place of its own."""

    def __init__(self, sink: SmtpSink, loop: asyncio.AbstractEventLoop) -> None:
        self.sink = sink
        self.greeted = False
        super().__init__(
            self,
            hostname="sink.example",
            loop=loop,
            data_size_limit=sink.most_bytes,
            tls_context=None if sink.implicit else sink.tls,
            require_starttls=sink.tls is not None and not sink.implicit,
            auth_required=sink.credentials is not None and not sink.implicit,
            auth_require_tls=not sink.implicit,
            auth_exclude_mechanism=sink.without_auth,
            authenticator=self._judge_credentials,
        )

    def _judge_credentials(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: LoginPassword
    ) -> AuthResult:
        user, password = self.sink.credentials or ("", "")
        return AuthResult(
            success=(given.login, given.password) == (user.encode(), password.encode()), handled=False
        )

    def connection_made(self, transport: Any) -> None:
        self.sink.note_connection(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.sink.forget_connection(self)
        super().connection_lost(error)

    async def _played(self, stage: str) -> bool:
        answer = self.sink.next_answer(stage)
        if answer is None:
            return False
        if answer == SILENCE:
            await asyncio.Event().wait()
        if answer == HANG_UP:
            self.transport.close()
        else:
            await super().push(answer)
        return True

    async def push(self, status: Any) -> None:
        if not self.greeted:
            self.greeted = True
            if await self._played("connect"):
                self.transport.close()
                return
        await super().push(status)

    async def handle_EHLO(  # noqa: N802
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        name, *extensions = responses
        return [name, *["250-PIPELINING"] * self.sink.pipelining, *extensions]

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = self.sink.next_answer("dot")
        if answer == SILENCE:
            await asyncio.Event().wait()
        if answer is None or answer == ACCEPT_AND_HANG_UP or answer.startswith("2"):
            self.sink.keep(envelope)
        if answer in (HANG_UP, ACCEPT_AND_HANG_UP):
            self.transport.close()
        return answer or "250 2.0.0 kept"


def _scripted(stage: str) -> Any:
    own = getattr(SMTP, f"smtp_{stage.upper()}")

    async def command(self: _Conversation, arg: str) -> None:
        self.sink.commands.append(f"{stage} {arg or ''}".strip())
        if not await self._played(stage):
            await own(self, arg)

    return command


for _stage in COMMANDS:
    setattr(_Conversation, f"smtp_{_stage.upper()}", _scripted(_stage))
