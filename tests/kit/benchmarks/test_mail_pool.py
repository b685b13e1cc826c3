"""What keeping connections saves: mails a second with the pool, and with a connection for each mail."""

from __future__ import annotations

import ssl
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from app.kit.mail.smtp.conversation import Conversation
from app.kit.mail.smtp.pool import MAX_CONNECTIONS, Pool
from app.kit.mail.smtp.transport import parse_server
from tests.kit.certificates import AUTHORITY, server_context
from tests.kit.delay_proxy import DelayProxy
from tests.kit.smtp_sink import SmtpSink

pytestmark = pytest.mark.slow

MAILS = 40
ROUNDS = 3
DELAY_S = 0.015
MESSAGE = b"Subject: Soup\r\n\r\n" + b"0123456789 and so on, until the line is full.\r\n" * 80


def send_all(send: Callable[[int], None]) -> float:
    """Send all mails, as many at once as there may be connections; return how many a second that were."""
    started = time.perf_counter()
    with ThreadPoolExecutor(MAX_CONNECTIONS) as threads:
        list(threads.map(send, range(MAILS)))
    return MAILS / (time.perf_counter() - started)


@pytest.mark.parametrize("scheme", ["smtp+plain", "smtp"])
def test_the_pool_against_a_connection_for_each_mail(scheme: str, capsys: pytest.CaptureFixture[str]) -> None:
    tls, credentials = (server_context(), ("cleo", "secret")) if scheme == "smtp" else (None, None)
    with SmtpSink(tls=tls, credentials=credentials) as sink, DelayProxy(sink.port, DELAY_S) as proxy:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        server = replace(parse_server(sink.url), port=proxy.port, context=context)

        def connect() -> Conversation:
            conversation = Conversation(server)
            conversation.open()
            return conversation

        def offer_alone(number: int) -> None:
            with Conversation(server) as conversation:
                conversation.offer("post@example.com", f"reader{number}@example.com", MESSAGE)
                conversation.finish()

        def offer_pooled(number: int) -> None:
            conversation = pool.offer("post@example.com", f"reader{number}@example.com", MESSAGE)
            conversation.finish()
            pool.give_back(conversation)

        alone, pooled = [], []
        for _ in range(ROUNDS):
            pool = Pool(connect)
            pooled.append(send_all(offer_pooled))
            pool.close()
            alone.append(send_all(offer_alone))
        readers = {f"reader{number}@example.com" for number in range(MAILS)}
        assert sorted(sink.recipients()) == sorted(
            [*readers] * 2 * ROUNDS
        )  # all arrived, each once in each part
        assert sink.connections == ROUNDS * (MAX_CONNECTIONS + MAILS)
    one, many = statistics.median(alone), statistics.median(pooled)
    with capsys.disabled():
        print(
            f"\n{scheme}, {MAX_CONNECTIONS} connections at once, {DELAY_S * 1000:.0f} ms each way, median of "
            f"{ROUNDS}: pool {many:.1f} mails/s, one connection per mail {one:.1f} mails/s: {many / one:.2f}x"
        )
