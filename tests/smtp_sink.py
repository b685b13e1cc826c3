"""A real SMTP server for tests: it keeps what it accepts and misbehaves where it is told to.

with SmtpSink() as sink:
    sink.answer("rcpt", "450 4.2.0 come back later")
    ...                                     # MAIL_URL=sink.url
    assert sink.messages == [("cleo@example.com", b"From: ...")]
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

HANG_UP = "hang up"
"""Close the connection instead of an answer; at "dot" the message is not kept."""
ACCEPT_AND_HANG_UP = "accept and hang up"
"""At "dot": keep the message, then close the connection instead of an answer."""
SILENCE = "silence"
"""Never answer."""

STAGES = ("connect", "ehlo", "mail", "rcpt", "data", "dot", "quit")


class SmtpSink:
    """Listens on a free port of this machine from `start()` to `stop()`; any thread may call its methods."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
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
        return f"smtp+plain://127.0.0.1:{self.port}"

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

    def wait_for(self, count: int, timeout_s: float = 10) -> bool:
        """Return whether `count` messages have come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.messages) >= count, timeout_s)

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

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(lambda: _Conversation(self, self._loop), "127.0.0.1", 0)
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
        super().__init__(self, hostname="sink.example", loop=loop)

    def connection_made(self, transport: Any) -> None:
        self.sink.open.add(self)
        self.sink.connections += 1
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.sink.open.discard(self)
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
        if not await self._played(stage):
            await own(self, arg)

    return command


for _stage in ("ehlo", "mail", "rcpt", "data", "quit"):
    setattr(_Conversation, f"smtp_{_stage.upper()}", _scripted(_stage))
