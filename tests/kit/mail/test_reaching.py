"""Reaching a server by one of several addresses, some of which lead nowhere: real sockets, a made-up name."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from app.kit.mail import reaching
from app.kit.mail.replies import NotSentError
from app.kit.mail.smtp.conversation import Conversation
from app.kit.mail.smtp.exchange import Limits, Server
from tests.kit.smtp_sink import SmtpSink

Names = Callable[..., None]
Address = tuple[str, int]


@pytest.fixture
def nowhere() -> Iterator[Address]:
    """An address that answers nothing, like a route that leads nowhere: its queue of connections is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.2", 0), backlog=0))
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Have a name lead to these addresses, in this order."""

    def lead(*addresses: Address) -> None:
        places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: list(places))

    monkeypatch.setattr(reaching, "_last_good", {})
    monkeypatch.setattr(reaching, "_shunned", {})
    return lead


def reach_s(expected: Address, limit_s: float) -> float:
    """Reach the name; return how long that took."""
    began = time.monotonic()
    with reaching.reach("mail.test", 25, limit_s) as sock:
        assert sock.getpeername() == expected
    return time.monotonic() - began


def test_an_address_that_leads_nowhere_takes_its_share_of_the_time_and_only_once(
    name: Names, nowhere: Address, silent: Address
) -> None:
    name(nowhere, silent)
    assert 0.3 <= reach_s(silent, limit_s=0.6) < 0.6
    assert reach_s(silent, limit_s=60) < 10  # the one that was good has the first turn
    name(nowhere, nowhere)
    with pytest.raises(OSError, match="timed out"):
        reaching.reach("mail.test", 25, 0.1)


def test_the_good_address_of_yesterday_gets_no_more_than_its_turn(
    name: Names, nowhere: Address, silent: Address
) -> None:
    name(silent)
    reach_s(silent, limit_s=10)
    reaching._last_good["mail.test", 25] = nowhere
    name(silent, nowhere)
    assert 0.2 <= reach_s(silent, limit_s=0.4) < 0.4


def test_an_address_where_no_encryption_comes_about_gets_no_more_than_its_turn(
    name: Names, silent: Address
) -> None:
    name(silent, silent)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        reaching.reach("mail.test", 465, 0.4, ssl.create_default_context())
    assert 0.4 <= time.monotonic() - began < 10


def test_an_address_that_takes_connections_and_says_nothing_is_tried_last(
    name: Names, silent: Address, sink: SmtpSink
) -> None:
    name(silent, ("127.0.0.1", sink.port))
    server, hasty = Server("mail.test", 25, "plain"), Limits(command_s=0.2)
    with pytest.raises(NotSentError, match="timed out"):
        Conversation(server, hasty).open()
    with Conversation(server):
        assert sink.connections == 1


def test_a_refused_address_leaves_its_time_to_the_next(name: Names, silent: Address) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        name(unused.getsockname(), silent)
        assert reach_s(silent, limit_s=10) < 5
