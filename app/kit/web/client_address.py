"""The visitor's own network address, which behind proxies only they know."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

WITH_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?|([\d.]+):\d+")
"""As some proxies write an address: [2001:db8::1]:4711, 192.0.2.1:4711."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ClientAddress:
    """WSGI: put into REMOTE_ADDR what X-Forwarded-For says, of which the last `proxies` entries are our proxies'.

    Where a proxy writes no address there, REMOTE_ADDR stays that of the nearest proxy: one client, not many.
    """

    def __init__(self, wsgi_app: Callable[..., Iterable[bytes]], proxies: int) -> None:
        self.wsgi_app, self.proxies = wsgi_app, proxies

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Name the client, then go on."""
        told = [part.strip() for part in environ.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        told = [part for part in told if part][-self.proxies :]
        if told and (address := ip_address(told[0])):
            environ["REMOTE_ADDR"] = str(address)
        return self.wsgi_app(environ, start_response)


def ip_address(text: str) -> Address | None:
    """Read an address, with a port or a zone or without; None if it is none. ::ffff:192.0.2.1 is 192.0.2.1."""
    if found := WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
