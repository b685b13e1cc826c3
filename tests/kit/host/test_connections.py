"""Connections as gunicorn's threads use them, and clients that wait for a thread or the rest of an answer."""

from __future__ import annotations

import io
import selectors
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from app.kit.host import connections, connections_clients
from app.kit.host.connections import MOST_OUTGOING_BYTES, Connection, read_away
from app.kit.host.connections_clients import (
    CONTINUE,
    LONGEST_REQUEST_S,
    LOOK_S,
    NEW_S,
    STOPPING_S,
    Clients,
    most_connections,
)
from app.kit.web.waiting import Seats

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs gunicorn")

GET = b"GET /up HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
KEEP_ALIVE_S = 2.0


class Worker:
    """What Clients needs of gunicorn's worker: a poller, and threads, in whose place the test stands."""

    def __init__(self) -> None:
        self.alive, self.nr_conns, self.worker_connections = True, 0, 5
        self.cfg = SimpleNamespace(keepalive=KEEP_ALIVE_S)
        self.poller = selectors.DefaultSelector()
        self.served: list[Connection] = []
        self.seats = Seats(1)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.clients = Clients(self, lambda connection, *_: connection, 1000, lambda: self.seats)
        self.poller.register(self.listener, selectors.EVENT_READ, self.clients.accept)

    def enqueue_req(self, connection: Connection) -> None:
        self.served.append(connection)

    def run(self, timeout_s: float = 0.05) -> None:
        """Do what gunicorn's loop does, until nothing happens any more."""
        while events := self.poller.select(timeout_s):
            for key, _ in events:
                key.data(key.fileobj)
            self.clients.look_at_the_time()

    def answer(self, answer: bytes = b"", may_go_on: bool = True) -> bytes:
        """Read the request that came first, answer it, and give the connection back."""
        connection = self.served.pop(0)
        request = connection.recv(10**6)
        connection.sendall(answer)
        self.clients.finish(connection, may_go_on)
        self.run()
        return request


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.clients.let_go()
    worker.listener.close()
    worker.poller.close()


@pytest.fixture
def connect(worker: Worker) -> Iterator[Callable[..., socket.socket]]:
    """A function that connects, sends something and lets the worker see it."""
    with ExitStack() as stack:

        def connect(sent: bytes = b"", **options: Any) -> socket.socket:
            client = stack.enter_context(socket.socket())
            if "small" in options:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.settimeout(10)
            client.connect(worker.listener.getsockname())
            client.sendall(sent)
            worker.run()
            return client

        yield connect


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(connections_clients, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def has_ended(client: socket.socket) -> bool:
    """Say whether the site has closed a connection."""
    client.setblocking(False)
    try:
        while client.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


Connect = Callable[..., socket.socket]


# Requests


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n", POST + b"9\r\n\r\n{", CHUNKED + b"5\r\nx"],
)
def test_who_has_sent_no_whole_request_gets_no_thread(
    worker: Worker, connect: Connect, beginning: bytes
) -> None:
    waiting = connect(beginning)
    assert worker.served == []
    connect(GET)
    assert worker.answer(b"HTTP/1.1 200 OK\r\n\r\n") == GET
    assert not has_ended(waiting)


def test_a_request_is_served_once_it_is_there_and_the_next_ones_after_it(
    worker: Worker, connect: Connect
) -> None:
    client = connect(POST + b"5\r\n\r\nhel")
    client.sendall(b"lo" + GET + GET[:5])
    worker.run()
    assert len(worker.served) == 1
    assert worker.answer(b"one") == POST + b"5\r\n\r\nhello"
    assert worker.answer(b"two") == GET
    assert worker.served == []
    client.sendall(GET[5:])
    worker.run()
    assert worker.answer(b"three") == GET
    assert client.recv(100) == b"onetwothree"


def test_who_asks_whether_to_send_a_body_is_told_to_go_on(worker: Worker, connect: Connect) -> None:
    client = connect(POST + b"5\r\nExpect: 100-continue\r\n\r\n")
    assert client.recv(100) == CONTINUE
    client.sendall(b"hello")
    worker.run()
    assert worker.answer().endswith(b"hello")
    refused = connect(POST + b"1001\r\nExpect: 100-continue\r\n\r\n")
    worker.answer(b"HTTP/1.1 413")
    assert refused.recv(100) == b"HTTP/1.1 413"


@pytest.mark.parametrize("hangs_up", [True, False], ids=["hangs up", "is late"])
def test_a_body_that_breaks_off_is_answered_and_ends_the_connection(
    worker: Worker, connect: Connect, clock: list[float], hangs_up: bool
) -> None:
    client = connect(POST + b"5\r\n\r\nhel")
    if hangs_up:
        client.shutdown(socket.SHUT_WR)
        worker.run()
    else:
        clock[0] += LONGEST_REQUEST_S
        worker.clients.look_at_the_time()
    assert worker.answer(b"HTTP/1.1 408").endswith(b"hel")
    assert client.recv(100) == b"HTTP/1.1 408"
    assert client.recv(100) == b""


def test_what_is_too_long_is_answered_at_once_and_what_still_comes_is_read_away(
    worker: Worker, connect: Connect
) -> None:
    client = connect(POST + b"300000\r\n\r\n" + b"x" * 1000)
    assert len(worker.served) == 1
    worker.answer(b"HTTP/1.1 413")
    client.sendall(b"x" * 299_000)
    worker.run()
    assert client.recv(100) == b"HTTP/1.1 413"
    assert client.recv(100) == b""
    client.close()
    worker.run()
    assert worker.nr_conns == 0


def test_a_byte_now_and_then_gives_nobody_more_time(
    worker: Worker, connect: Connect, clock: list[float]
) -> None:
    client = connect(b"GET / HTTP/1.1\r\n")
    for _ in range(int(LONGEST_REQUEST_S) - 1):
        clock[0] += 1
        client.sendall(b"x")
        worker.run(0.001)
    assert worker.nr_conns == 1
    clock[0] += 1
    worker.clients.look_at_the_time()
    assert worker.nr_conns == 0


def test_a_long_body_has_the_time_that_it_takes(
    worker: Worker, connect: Connect, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections_clients, "LEAST_BYTES_PER_S", 10)
    for length, answer in ((b"1000", b"HTTP/1.1 200"), (b"9999", b"HTTP/1.1 413")):  # read, or read away
        client = connect(POST + length + b"\r\n\r\n")
        if length == b"9999":
            worker.answer(answer)
        for _ in range(100):
            clock[0] += 1
            client.sendall(b"x" * 10)
            worker.run(0.001)
        if length == b"1000":
            worker.answer(answer)
        assert client.recv(100) == answer


def test_no_request_follows_one_of_which_gunicorn_wants_more(worker: Worker, connect: Connect) -> None:
    client = connect(GET + GET)
    connection = worker.served.pop()
    assert connection.recv(1000) == GET
    assert connection.recv(1000) == b""
    worker.clients.finish(connection, may_go_on=True)
    worker.run()
    assert worker.served == []
    assert has_ended(client)


def test_who_says_nothing_is_let_go(worker: Worker, connect: Connect, clock: list[float]) -> None:
    connect()
    clock[0] += NEW_S - 1
    worker.clients.look_at_the_time()
    connect(GET)
    worker.answer(b"yes")
    assert worker.nr_conns == 2
    clock[0] += KEEP_ALIVE_S
    worker.clients.look_at_the_time()
    assert worker.nr_conns == 0


# Bounds


def test_of_too_many_clients_the_one_that_waits_longest_gives_way(worker: Worker, connect: Connect) -> None:
    waiting = [connect(GET[:number]) for number in range(8)]
    assert worker.nr_conns < worker.worker_connections
    assert [has_ended(client) for client in waiting] == [True] * 4 + [False] * 4
    connect(GET)
    assert worker.answer() == GET


def test_of_too_many_bytes_those_of_the_one_that_waits_longest_go(
    worker: Worker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.clients, "_most_bytes", 2000)
    silent = connect()
    first, second, third = (connect(POST + b"1000\r\n\r\n" + b"x" * 700) for _ in range(3))
    assert [has_ended(client) for client in (silent, first, second, third)] == [False, True, False, False]


def test_no_file_left_costs_a_waiting_client_and_not_the_process(
    worker: Worker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = connect()

    def accept() -> None:
        raise OSError(24, "Too many open files")

    worker.clients.accept(SimpleNamespace(accept=accept))  # type: ignore[arg-type]
    assert has_ended(waiting)
    worker.clients.accept(SimpleNamespace(accept=accept))  # type: ignore[arg-type]


@pytest.mark.parametrize(("open_files", "most"), [(64, 32), (256, 128), (1024, 512), (10**6, 1000)])
def test_clients_take_half_of_the_files_that_may_be_open(open_files: int, most: int) -> None:
    assert most_connections(open_files) == most


def test_a_worker_that_stops_waits_for_nobody_who_is_silent(
    worker: Worker, connect: Connect, clock: list[float]
) -> None:
    connect()
    connect(b"GET / HT")
    worker.alive = False
    clock[0] += LOOK_S
    worker.clients.look_at_the_time()
    assert worker.nr_conns == 2
    clock[0] += STOPPING_S
    worker.clients.look_at_the_time()
    assert worker.nr_conns == 0


def test_a_worker_that_stops_still_serves_whom_it_told_to_go_on(worker: Worker, connect: Connect) -> None:
    client = connect(GET)
    worker.alive = False
    worker.answer(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n")
    client.sendall(GET)
    worker.run()
    assert worker.answer(may_go_on=False) == GET
    assert has_ended(client)


# Answers


def test_an_answer_that_nobody_reads_holds_no_thread(
    worker: Worker, connect: Connect, clock: list[float]
) -> None:
    client = connect(GET + GET, small=True)
    worker.answer(b"x" * MOST_OUTGOING_BYTES)
    assert worker.served == [], "the next request waits until the answer is read"
    left = MOST_OUTGOING_BYTES
    while left:
        left -= len(client.recv(2**20))
        worker.run(0.001)
    assert worker.answer(b"two") == GET
    connect(GET, small=True)
    worker.answer(b"x" * MOST_OUTGOING_BYTES)
    clock[0] += connections.LONGEST_WRITE_S
    worker.clients.look_at_the_time()
    assert worker.nr_conns == 0


def test_a_thread_waits_with_an_endless_answer_in_one_of_the_seats(
    worker: Worker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "QUICK_S", 0.01)
    monkeypatch.setattr(connections, "LONGEST_WRITE_S", 0.05)
    connect(GET, small=True)
    waits: list[bool] = []

    def wait(do: Callable[[], object]) -> None:
        waits.append(True)
        do()

    monkeypatch.setattr(worker.seats, "wait", wait)
    connection = worker.served.pop()
    with pytest.raises(BrokenPipeError):
        connection.sendall(b"x" * 4 * MOST_OUTGOING_BYTES)
    assert waits == [True]
    worker.clients.finish(connection, may_go_on=False)
    assert worker.nr_conns == 0


def test_a_long_answer_to_one_who_reads_needs_no_seat(worker: Worker, connect: Connect) -> None:
    client = connect(GET)
    reader = threading.Thread(target=lambda: [client.recv(2**20) for _ in range(10_000)], daemon=True)
    reader.start()
    connection = worker.served.pop()
    worker.seats._free.acquire()  # nobody may wait
    for _ in range(40):
        connection.sendall(b"x" * 2**20)
    worker.clients.finish(connection, may_go_on=False)
    worker.run()
    reader.join(10)


# What is read away


def test_what_is_left_of_a_request_is_read_away() -> None:
    body = io.BytesIO(b"x" * 10_000_000)
    assert read_away(body)
    assert body.read() == b""
    assert read_away(None)


@pytest.mark.parametrize("error", [ConnectionResetError(), ValueError("a chunk")])
def test_a_request_that_cannot_be_read_on_ends_its_connection(error: Exception) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise error

    assert not read_away(Broken())
