"""Clients that no thread serves: they wait in gunicorn's poller, with an end, and the oldest gives way to the next.

They send a request, read the rest of an answer, think about the next request, or hang up. All of it happens in the
thread of the poller.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from app.kit.host.connections import LONGEST_WRITE_S, Connection, Seats

NEW_S = 10.0
"""A browser opens connections ahead of time."""
LONGEST_REQUEST_S = 30.0
LEAST_BYTES_PER_S = 20_000
"""Whose body comes at least so fast is given the time for it."""
HANGING_UP_S = 5.0
"""Who still sends gets so long to read the answer, and to hang up."""
MOST_READ_AWAY_BYTES = 64 * 2**20
STOPPING_S = 2.0
LEAST_WAITING_BYTES = 64 * 2**20
LOOK_S = 0.25
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(eq=False, slots=True)
class Client:
    """A connection on its way through requests, answers and the end."""

    connection: Connection
    gunicorns: Any = None
    """What gunicorn calls the connection."""
    events: int = 0
    until: float = 0.0
    is_leaving: bool = False
    counted_bytes: int = 0
    read_away_bytes: int = 0


def most_connections(open_files: int) -> int:
    """Say how many clients may be connected: half of the files that this process may open, for it opens others."""
    return max(16, min(1000, open_files // 2))


class Clients:
    """All clients of one of gunicorn's workers."""

    def __init__(
        self,
        worker: Any,
        wrap: Callable[[Connection, Any, Any], Any],
        most_body_bytes: int,
        seats: Callable[[], Seats],
    ) -> None:
        self._worker, self._wrap, self._seats = worker, wrap, seats
        self._most_body_bytes = most_body_bytes
        self._most_bytes = max(LEAST_WAITING_BYTES, 4 * most_body_bytes)
        self._bytes = 0
        self._waiting: dict[Client, None] = {}
        """Those in the poller, the one that waits longest first."""
        self._served: dict[Connection, Client] = {}
        self._next_look_at = 0.0
        self._stop_at: float | None = None

    def accept(self, listener: socket.socket) -> None:
        """Let a client in; when there are too many, the one that waits longest goes."""
        try:
            accepted, address = listener.accept()
        except OSError as error:
            if error.errno in OUT_OF_FILES:
                if not self._make_room():
                    time.sleep(LOOK_S)  # else this thread would do nothing but try
            elif error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR):
                raise
            return
        self._worker.nr_conns += 1
        if self._worker.nr_conns >= self._worker.worker_connections:
            self._make_room()
        client = Client(Connection(accepted, self._most_body_bytes, self._seats))
        client.gunicorns = self._wrap(client.connection, address, listener.getsockname())
        client.until = time.monotonic() + NEW_S
        self._read(client)

    def finish(self, connection: Connection, may_go_on: bool) -> None:
        """Take a connection back from its thread; with the rest of its answer sent, the next request may come."""
        client = self._served.pop(connection)
        # One that stops goes on, too, where it has promised to; it promises no more.
        client.is_leaving = not may_go_on or connection.is_cut_short
        self._count(client)
        self._write(client)
        self._keep_bounds()

    def let_go(self) -> None:
        """In a fork of this process: let go of the clients, or they would not hear when it hangs up."""
        for client in (*self._waiting, *self._served.values()):
            client.connection.socket.close()

    def look_at_the_time(self) -> None:
        """End what has taken too long."""
        now = time.monotonic()
        if now < self._next_look_at:
            return
        self._next_look_at = now + LOOK_S
        if self._stop_at is None and not self._worker.alive:
            self._stop_at = now + STOPPING_S
        for client in list(self._waiting):
            is_over = self._stop_at is not None and now >= self._stop_at and client.events == EVENT_READ
            if now < client.until and not is_over:
                continue
            if client.connection.request_end.has_head and not client.is_leaving:
                self._hand_over(client, None)  # it hears that it took too long
            else:
                self._close(client)

    # What can happen to one that waits

    def _on_event(self, client: Client, _socket: object) -> None:
        if not client.events:
            return  # it had to make room a moment ago
        if client.events == EVENT_WRITE:
            self._write(client)
        elif client.is_leaving:
            self._read_away(client)
        else:
            self._read(client)

    def _read(self, client: Client) -> None:
        was_empty = not client.connection.incoming
        try:
            received_bytes = client.connection.receive()
        except BlockingIOError:
            self._wait(client, EVENT_READ)
            return
        except OSError:
            self._close(client)
            return
        if was_empty:
            client.until = time.monotonic() + LONGEST_REQUEST_S
        elif client.connection.request_end.has_head:
            client.until += received_bytes / LEAST_BYTES_PER_S
        self._count(client)
        self._look_for_request(client)
        self._keep_bounds()

    def _look_for_request(self, client: Client) -> None:
        connection = client.connection
        end = connection.request_end.look(connection.incoming)
        if end is not None or connection.request_end.is_hopeless:
            self._hand_over(client, end)
        elif connection.has_hung_up:
            if connection.request_end.has_head:
                self._hand_over(client, None)
            else:
                self._close(client)
        else:
            if connection.request_end.has_head and connection.request_end.expects_continue:
                connection.request_end.expects_continue = False
                connection.outgoing += CONTINUE
                connection.flush()
            self._wait(client, EVENT_READ)

    def _hand_over(self, client: Client, end: int | None) -> None:
        self._leave_poller(client)
        client.connection.take_request(end)
        self._served[client.connection] = client
        self._worker.enqueue_req(client.gunicorns)

    def _write(self, client: Client) -> None:
        connection = client.connection
        had_bytes = len(connection.outgoing)
        connection.flush()
        self._count(client)
        if connection.is_broken:
            self._close(client)
        elif connection.outgoing:
            if len(connection.outgoing) < had_bytes or client.events != EVENT_WRITE:
                client.until = time.monotonic() + LONGEST_WRITE_S
            self._wait(client, EVENT_WRITE)
        elif client.is_leaving:
            self._hang_up(client)
        else:
            client.until = time.monotonic() + (
                LONGEST_REQUEST_S if connection.incoming else self._worker.cfg.keepalive
            )
            self._look_for_request(client)

    def _hang_up(self, client: Client) -> None:
        # Closed at once, a connection on which more comes would be reset, and its answer lost.
        client.connection.incoming.clear()
        client.until = time.monotonic() + HANGING_UP_S
        try:
            client.connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(client)
            return
        self._read_away(client)

    def _read_away(self, client: Client) -> None:
        try:
            received_bytes = client.connection.receive()
        except BlockingIOError:
            self._wait(client, EVENT_READ)
            return
        except OSError:
            self._close(client)
            return
        client.read_away_bytes += received_bytes
        client.until += received_bytes / LEAST_BYTES_PER_S
        client.connection.incoming.clear()
        if client.connection.has_hung_up or client.read_away_bytes > MOST_READ_AWAY_BYTES:
            self._close(client)
        else:
            self._wait(client, EVENT_READ)

    # The poller, and what it holds

    def _wait(self, client: Client, events: int) -> None:
        poller, sock = self._worker.poller, client.connection.socket
        if not client.events:
            poller.register(sock, events, partial(self._on_event, client))
        elif client.events != events:
            poller.modify(sock, events, partial(self._on_event, client))
        client.events = events
        self._waiting.setdefault(client)

    def _leave_poller(self, client: Client) -> None:
        if client.events:
            self._worker.poller.unregister(client.connection.socket)
            client.events = 0
            del self._waiting[client]

    def _close(self, client: Client) -> None:
        self._leave_poller(client)
        self._bytes -= client.counted_bytes
        self._worker.nr_conns -= 1
        with suppress(OSError):
            client.connection.socket.close()

    def _count(self, client: Client) -> None:
        """Keep count of the bytes that wait in memory, for a thread or for a client."""
        held_bytes = len(client.connection.incoming) + len(client.connection.outgoing)
        self._bytes += held_bytes - client.counted_bytes
        client.counted_bytes = held_bytes

    def _keep_bounds(self) -> None:
        while self._bytes > self._most_bytes and self._make_room(holding_bytes=True):
            pass

    def _make_room(self, holding_bytes: bool = False) -> bool:
        """Close the connection that waits longest; return whether there was one."""
        for client in self._waiting:
            if client.counted_bytes or not holding_bytes:
                self._close(client)
                return True
        return False
