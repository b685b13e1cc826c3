"""Connections as gunicorn's threads read them: requests that come slowly, not at all, or are longer than wanted."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from app import connections
from app.connections import PatientSocket, read_away, slow_seats

Pair = tuple[socket.socket, PatientSocket]


@pytest.fixture
def seats() -> threading.BoundedSemaphore:
    return slow_seats(threads=2)


@pytest.fixture
def pair(seats: threading.BoundedSemaphore) -> Iterator[Pair]:
    """A client's end, and the server's."""
    client, accepted = socket.socketpair()
    server = PatientSocket(accepted, seats)
    server.setblocking(True)
    yield client, server
    client.close()
    server.end_request()
    server.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(connections.time, "monotonic", lambda: now[0])
    return now


def test_bytes_that_are_there_are_read_at_once(pair: Pair) -> None:
    client, server = pair
    server.begin_request()
    client.sendall(b"GET / HTTP/1.1\r\n")
    assert server.recv(100) == b"GET / HTTP/1.1\r\n"
    assert server.gettimeout() == connections.LONGEST_WAIT_S


def test_a_request_that_does_not_come_ends_as_if_the_client_had_hung_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, server = pair
    monkeypatch.setattr(connections, "QUICK_S", 0.01)
    monkeypatch.setattr(connections, "LONGEST_REQUEST_S", 0.05)
    server.begin_request()
    assert server.recv(100) == b""


def test_a_slow_request_takes_a_seat_and_gives_it_back(
    pair: Pair, seats: threading.BoundedSemaphore, clock: list[float]
) -> None:
    client, server = pair
    server.begin_request()
    client.sendall(b"ab")
    assert server.recv(1) == b"a"
    clock[0] += connections.QUICK_S
    assert server.recv(1) == b"b"
    assert not seats.acquire(blocking=False), "of two threads one may serve the slow"
    server.end_request()
    assert seats.acquire(blocking=False)


def test_a_slow_request_without_a_seat_ends(
    pair: Pair, seats: threading.BoundedSemaphore, clock: list[float]
) -> None:
    client, server = pair
    seats.acquire()
    server.begin_request()
    clock[0] += connections.QUICK_S
    client.sendall(b"more")
    assert server.recv(100) == b""


def test_a_client_that_sends_a_byte_now_and_then_does_not_get_more_time(
    pair: Pair, clock: list[float]
) -> None:
    client, server = pair
    server.begin_request()
    read = b""
    for _ in range(100):
        client.sendall(b"x")
        clock[0] += 1
        read += server.recv(1)
    assert len(read) == connections.LONGEST_REQUEST_S - 1


def test_each_request_of_a_connection_has_its_own_time(pair: Pair, clock: list[float]) -> None:
    client, server = pair
    for _ in range(3):
        clock[0] += 1000
        server.begin_request()
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        server.end_request()


def test_between_requests_it_is_a_socket_like_any_other(pair: Pair) -> None:
    _, server = pair
    server.settimeout(0.01)
    with pytest.raises(TimeoutError):
        server.recv(1)
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(1)


# What is read away


def test_what_is_left_of_a_request_is_read_away() -> None:
    body = io.BytesIO(b"x" * 10_000_000)
    assert read_away(body)
    assert body.read() == b""
    assert read_away(None)


def test_not_more_is_read_away_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_READ_AWAY_BYTES", 100_000)
    body = io.BytesIO(b"x" * 10_000_000)
    assert not read_away(body)
    assert body.tell() < 200_000


@pytest.mark.parametrize("error", [ConnectionResetError(), ValueError("a chunk"), TimeoutError()])
def test_a_request_that_cannot_be_read_on_ends_its_connection(error: Exception) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            raise error

    assert not read_away(Broken())


def test_a_connection_becomes_a_patient_one_once(seats: threading.BoundedSemaphore) -> None:
    client, accepted = socket.socketpair()

    class Connection:
        sock: Any = accepted

    connection = Connection()
    patient = connections.patient(connection, seats)
    assert connections.patient(connection, seats) is patient
    assert connection.sock is patient
    client.close()
    patient.close()
