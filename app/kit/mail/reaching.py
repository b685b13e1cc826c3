"""Reaches a server by whichever of its addresses answers."""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

_last_good: dict[tuple[str, int], Any] = {}
"""The address of each server that took the last connection: it has the first turn."""
_shunned: dict[tuple[str, int], Any] = {}
"""The one that took a connection and then said nothing: it has the last turn."""


def reach(host: str, port: int, limit_s: float, tls: ssl.SSLContext | None = None) -> socket.socket:
    """Connect to a server (and encrypt, with `tls`), each of its addresses in turn.

    An address may lead nowhere, as IPv6 does on many hosts: none gets more than its share of the time. (To look
    the name up takes as long as the system lets it.)
    Units: `limit_s`, for all addresses together, in seconds.
    Raises: OSError, the last address's; UnicodeError for a name that is none.
    """
    places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    good, shunned = _last_good.get((host, port)), _shunned.get((host, port))
    places.sort(key=lambda place: (place[4] == shunned, place[4] != good))
    deadline = time.monotonic() + limit_s
    fault = OSError("the name has no address")
    for left, (family, kind, protocol, _, address) in zip(range(len(places), 0, -1), places, strict=True):
        turn_ends = time.monotonic() + (deadline - time.monotonic()) / left
        try:
            found = _connect(socket.socket(family, kind, protocol), address, turn_ends, tls, host)
        except OSError as error:
            fault = error
        else:
            _last_good[host, port] = address
            return found
    raise fault


def shun(host: str, port: int) -> None:
    """Begin with another address of a server, if it has one: the last one took the connection, but is no use."""
    _shunned[host, port] = _last_good.pop((host, port), None)


def _connect(
    sock: socket.socket, address: Any, deadline: float, tls: ssl.SSLContext | None, host: str
) -> socket.socket:
    try:
        sock.settimeout(left_s(deadline))
        sock.connect(address)
        sock.settimeout(left_s(deadline))
        return tls.wrap_socket(sock, server_hostname=host) if tls else sock
    except BaseException:
        sock.close()
        raise


def left_s(deadline: float) -> float:
    """Return how much time is left.

    Raises: TimeoutError when there is none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
