"""The measures of mail: how many a second leave for a server as far away as a provider's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from app.kit.mail.smtp import pool
from tests.kit.benchmarks.contestants.letter import BODY, number_of
from tests.kit.benchmarks.marks import packed, read_marks
from tests.kit.benchmarks.measures import Contestant, FailedError, Measure, Run, drive
from tests.kit.benchmarks.table import Row, Value
from tests.kit.delay_proxy import DelayProxy

DELAY_S = 0.015
"""One way: an answer takes 30 ms, as from a provider in the same part of the world.

To connect and be greeted takes as long here; in truth twice as long, so who connects for each mail is spared some.
"""
PATIENCE_S = 10.0


class MailServer:
    """Takes mail on a free port of this machine, offers what Postfix does, and marks each letter it takes."""

    def __init__(self, marks: Path) -> None:
        self.connections = 0
        self.port = 0
        self._marks = marks
        self._listening = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="mail-server", daemon=True
        )

    def __enter__(self) -> MailServer:
        self._thread.start()
        assert self._listening.wait(PATIENCE_S), "the mail server does not listen"
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE_S)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(self._converse, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopping.wait()
        server.close()

    def _converse(self) -> SMTP:
        self.connections += 1
        return SMTP(self, hostname="mail.example", loop=self._loop)

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, offers: list[str]
    ) -> list[str]:
        """Offer PIPELINING beside aiosmtpd's own: it reads commands as they come, however many are under way."""
        session.host_name = hostname
        return [*offers[:-1], "250-PIPELINING", offers[-1]]

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Mark the letter of each reader; refuse what is none."""
        assert isinstance(envelope.content, bytes)
        if BODY.encode() not in envelope.content:
            return "554 5.6.0 this is not the letter"
        with self._marks.open("ab", buffering=0) as file:
            for recipient in envelope.rcpt_tos:
                file.write(packed(number_of(recipient)))
        return "250 2.0.0 kept"


def _take_pooled(run: Run) -> Mapping[str, Value]:
    mails = 10 if run.is_quick else 300
    most = mails // pool.MAX_OFFERS + pool.MAX_CONNECTIONS
    return _take(run, mails, range(1, most + 1))


def _take_alone(run: Run) -> Mapping[str, Value]:
    mails = 10 if run.is_quick else 150
    return _take(run, mails, range(mails, mails + 1), BENCHMARK_OFFERS="1")


def _take(run: Run, mails: int, connections: range, **environ: str) -> Mapping[str, Value]:
    """Have a contestant send mails to the server; see that each came once, over so many connections.

    Raises: FailedError.
    """
    run.folder.mkdir(parents=True)
    marks = run.folder / "marks"
    with MailServer(marks) as server, DelayProxy(server.port, DELAY_S) as proxy:
        url = f"smtp+plain://127.0.0.1:{proxy.port}"
        contestant = replace(
            run.contestant,
            module="postroom_mail" if run.contestant.is_postroom else "celery_mail",
            environ={**run.contestant.environ, **environ, "BENCHMARK_MAIL_URL": url},
        )
        found = drive(replace(run, contestant=contestant), "mail", mails=mails)
    came = sorted(n for n, _ in read_marks(marks))
    if came != list(range(mails)):
        raise FailedError(f"of {mails} mails {len(set(came))} came, {len(came)} in all")
    if server.connections not in connections:
        expected = f"{connections[0]} to {connections[-1]}"
        raise FailedError(f"{mails} mails came over {server.connections} connections, expected {expected}")
    return found


def _sends_mail(contestant: Contestant) -> bool:
    return contestant.is_postroom or contestant.key == "celery_redis"


MAIL_MEASURES = [
    Measure(
        "mail",
        (Row("emails/s behind 15 ms, pooled connections", "per_s"),),
        _take_pooled,
        lambda contestant: contestant.is_postroom,
    ),
    Measure(
        "mail_alone",
        (Row("emails/s behind 15 ms, a connection a mail (Celery: Flask-Mail)", "per_s"),),
        _take_alone,
        _sends_mail,
    ),
]
