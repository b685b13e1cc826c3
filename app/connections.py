"""A client's connection as gunicorn's threads read it: no client can hold a thread for as long as it likes.

gunicorn itself waits for ever for the next byte of a request, and closes a connection on which more than 64 KB
are still to come, so that the client is cut off before it reads its answer.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from threading import BoundedSemaphore
from typing import Any, Protocol

QUICK_S = 2.0
"""A request that takes longer to arrive is slow, and only half of the threads serve those."""
LONGEST_REQUEST_S = 30.0
LONGEST_WAIT_S = 60.0
MOST_READ_AWAY_BYTES = 64 * 2**20
PIECE_BYTES = 64 * 2**10


class Body(Protocol):
    """What is left to read of a request."""

    def read(self, size: int) -> bytes:
        """Return up to so many bytes, none at the end."""


class PatientSocket(socket.socket):
    """A connection that ends for its reader when a request does not arrive in time."""

    def __init__(self, accepted: socket.socket, seats: BoundedSemaphore) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._seats = seats
        self._has_seat = False
        self._began_at: float | None = None

    def begin_request(self) -> None:
        """Count the time of a request from now on."""
        self._began_at = time.monotonic()

    def end_request(self) -> None:
        """Stop counting, and give the seat of a slow request to another."""
        self._began_at = None
        if self._has_seat:
            self._has_seat = False
            self._seats.release()

    def setblocking(self, flag: bool) -> None:
        """Wait for bytes if told so, but never for ever."""
        self.settimeout(LONGEST_WAIT_S if flag else 0)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Return the next bytes, or none once the time is up: to whoever reads, the client has hung up."""
        patience_s = self.gettimeout()
        if self._began_at is None or not patience_s:
            return super().recv(bufsize, flags)
        try:
            while (left_s := self._left_s(self._began_at)) > 0:
                self.settimeout(left_s)
                with suppress(TimeoutError):
                    return super().recv(bufsize, flags)
            return b""
        finally:
            self.settimeout(patience_s)

    def _left_s(self, began_at: float) -> float:
        passed_s = time.monotonic() - began_at
        if passed_s >= QUICK_S and not self._has_seat:
            self._has_seat = self._seats.acquire(blocking=False)
        return (LONGEST_REQUEST_S if self._has_seat else QUICK_S) - passed_s


def read_away(body: Body | None) -> bool:
    """Read what the site did not want of a request, so that the client gets to read its answer.

    Returns whether the connection may take another request, for all of this one was read.
    """
    read_bytes = 0
    while body is not None and read_bytes < MOST_READ_AWAY_BYTES:
        try:
            piece = body.read(PIECE_BYTES)
        except (OSError, ValueError):
            return False
        if not piece:
            return True
        read_bytes += len(piece)
    return body is None


def slow_seats(threads: int) -> BoundedSemaphore:
    """Make the seats that slow requests share."""
    return BoundedSemaphore(max(1, threads // 2))


def patient(connection: Any, seats: BoundedSemaphore) -> PatientSocket:
    """Return a connection's socket, made a patient one the first time it is asked for."""
    if not isinstance(connection.sock, PatientSocket):
        connection.sock = PatientSocket(connection.sock, seats)
    return connection.sock
