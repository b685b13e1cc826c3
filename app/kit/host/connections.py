"""A client's connection as gunicorn's threads use it: they get a whole request, and leave their answer to be sent.

So no client that sends or reads slowly holds a thread; connections_clients.py waits for them all.
"""

from __future__ import annotations

import errno
import io
import select
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from app.kit.host.connections_request import RequestEnd

PIECE_BYTES = 64 * 2**10
MOST_OUTGOING_BYTES = 8 * 2**20
"""So much of an answer waits for its reader in memory; the thread that writes more waits with it."""
QUICK_S = 2.0
"""A reader that lets a thread wait for longer needs one of the seats of those that wait."""
LONGEST_WRITE_S = 60.0


class Seats(Protocol):
    """The threads that may wait, whatever they wait for."""

    def wait(self, wait: Callable[[], object]) -> int | None:
        """Wait in a seat and return None, or return at once that there is none."""


class Connection:
    """What came in, and what is to go out. While no thread serves it, it belongs to the thread of the poller."""

    def __init__(self, accepted: socket.socket, most_body_bytes: int, seats: Callable[[], Seats]) -> None:
        accepted.setblocking(False)
        self.socket = accepted
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.has_hung_up = False
        """Nothing more comes from it; it may still read."""
        self.is_broken = False
        self.is_cut_short = False
        """The request was handed over before all of it was there, and nothing can follow it."""
        self.request_end = RequestEnd(most_body_bytes)
        self._most_body_bytes = most_body_bytes
        self._seats = seats
        self._request = io.BytesIO()

    def receive(self) -> int:
        """Take in what has come; return how many bytes, 0 when the client has ended.

        Raises: BlockingIOError when nothing has come, OSError when the connection is gone.
        """
        piece = self.socket.recv(PIECE_BYTES)
        self.incoming += piece
        self.has_hung_up |= not piece
        return len(piece)

    def take_request(self, end: int | None) -> None:
        """Lay the first bytes before the thread that serves them: one request, or all there is of it."""
        self.is_cut_short = end is None
        end = len(self.incoming) if end is None else end
        self._request = io.BytesIO(self.incoming[:end])
        del self.incoming[:end]
        self.request_end = RequestEnd(self._most_body_bytes)

    def flush(self) -> None:
        """Send as much as the client takes now."""
        try:
            while self.outgoing and not self.is_broken:
                del self.outgoing[: self.socket.send(self.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self.is_broken = True
            self.outgoing.clear()

    # What gunicorn's parser and its answers ask of a socket

    def recv(self, size: int) -> bytes:
        """Return the next bytes of the request, none at its end."""
        piece = self._request.read(size)
        # Who asks for more has found another end than we, and what comes next is no request.
        self.is_cut_short |= not piece
        return piece

    def sendall(self, data: bytes) -> None:
        """Send what the client takes now, and leave the rest to the poller, within bounds.

        Raises: BrokenPipeError when the client is gone, or reads too slowly.
        """
        self.outgoing += data
        self.flush()
        if len(self.outgoing) > MOST_OUTGOING_BYTES:
            self._write_for(QUICK_S)
        if len(self.outgoing) > MOST_OUTGOING_BYTES:
            self._seats().wait(lambda: self._write_for(LONGEST_WRITE_S))
        if self.is_broken or len(self.outgoing) > MOST_OUTGOING_BYTES:
            self.close()
            raise BrokenPipeError(errno.EPIPE, "the client does not read its answer")

    send = sendall

    def setblocking(self, _flag: bool) -> None:
        """Do nothing: it never blocks."""

    settimeout = setblocking

    def gettimeout(self) -> float:
        """Say that it never blocks."""
        return 0.0

    def close(self, _how: int = 0) -> None:
        """Give up the connection; the poller closes it."""
        self.is_broken = True

    shutdown = close

    def fileno(self) -> int:
        """Return the number of the socket."""
        return self.socket.fileno()

    def getsockname(self) -> Any:
        """Return the address on which the client came."""
        return self.socket.getsockname()

    def _write_for(self, seconds: float) -> None:
        """Wait until the client has read enough for the thread to go on."""
        give_up_at = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.socket, select.POLLOUT)
        while len(self.outgoing) > MOST_OUTGOING_BYTES // 2 and not self.is_broken:
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                return
            poll.poll(left_s * 1000)
            self.flush()


def read_away(body: Any) -> bool:
    """Read what the site did not want of a request that is there; return whether another can follow it."""
    try:
        while body is not None and body.read(PIECE_BYTES):
            pass
    except (OSError, ValueError):
        return False
    return True
