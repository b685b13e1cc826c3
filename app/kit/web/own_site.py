"""Which site this is: the names it answers to (the header Host), and the paths that lead to no other."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from flask import Flask, request

from app.kit.errors import InvalidInputError, UnknownHostError
from app.kit.web.client_address import ip_address

if TYPE_CHECKING:
    from app.settings import Settings

ALIKE_FOR_ALL = ("status.up", "static", "kit.static", "favicon")
"""What does not look at who asks, nor by what name: the health check of a host, the style of the error pages."""

HOST = re.compile(
    r"(?P<name>\[[0-9a-f:.]+\]|(?!.{254})[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?)(:(?P<port>[0-9]{0,5}))?",
    re.IGNORECASE,
)

REFUSED_HOST = "postroom.refused_host"
NOBODY = "unknown.invalid"
"""What Flask sees in place of a name that is not ours: of some it can write no address, on error pages neither."""


class OwnSite:
    """WSGI: let no name and no prefix through that is not ours, so that no link is made of them."""

    def __init__(self, wsgi_app: Callable[..., Iterable[bytes]], names: Collection[str]) -> None:
        self.wsgi_app = wsgi_app
        self._is_own = lru_cache(maxsize=16)(lambda host: is_own(host, names))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Look at the name and the prefix, then go on."""
        host = environ.get("HTTP_HOST")
        if host is not None and not self._is_own(host):  # no browser leaves it out
            environ |= {"HTTP_HOST": NOBODY, REFUSED_HOST: host}
        environ["SCRIPT_NAME"] = own_path(environ.get("SCRIPT_NAME")) or ""
        return self.wsgi_app(environ, start_response)


def register(app: Flask, settings: Settings) -> None:
    """Answer under our own names alone.

    A page of another site may let its name lead to this machine and would then read what we answer: the inbox, say
    (DNS rebinding). It cannot do that with an IP address, or with a name that its owner keeps.
    """
    app.wsgi_app = OwnSite(app.wsgi_app, own_names(settings))  # type: ignore[method-assign]

    @app.before_request
    def must_be_asked_by_our_name() -> None:
        host = request.environ.get(REFUSED_HOST)
        if host is None:
            return
        found = HOST.fullmatch(host)
        if found is None:
            raise InvalidInputError("The Host header names no host.")
        if request.endpoint not in ALIKE_FOR_ALL:
            raise UnknownHostError(found["name"].rstrip("."))


def own_names(settings: Settings) -> list[str]:
    """Return the names the site answers to; one that begins with a dot stands for all below it, * for all."""
    machine, public = socket.gethostname().lower(), urlsplit(settings.public_url).hostname or ""
    short = machine.partition(".")[0]  # a Mac in many a network is told mac.lan, and calls itself mac.local
    return ["localhost", ".localhost", machine, short, f"{short}.local", public, *settings.trusted_hosts]


def is_own(host: str, names: Collection[str]) -> bool:
    """Say whether a Host, with a port or without, is one of these names or an IP address."""
    found = HOST.fullmatch(host)
    if found is None:
        return False
    name = found["name"].lower().removesuffix(".")
    if name[0] == "[" or ip_address(name):
        return ip_address(name.strip("[]")) is not None
    try:
        name.encode().decode("idna")  # or Flask could not write it into an address
    except UnicodeError:
        return False
    return any(name == own or own == "*" or (own[:1] == "." and name.endswith(own)) for own in names)


def own_path(path: str | None) -> str | None:
    """Return a path of this site as it came, and None for whatever might lead to another one."""
    if not path:
        return None
    # Browsers drop control characters and take \ for /; a server in between may decode once more.
    for reading in (path, unquote(path), unquote(unquote(path))):
        route = re.split("[?#]", reading)[0]
        if not route.startswith("/") or "//" in route or "\\" in reading or not reading.isprintable():
            return None
    return path
