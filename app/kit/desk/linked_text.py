"""Plain text as HTML, with its web addresses made links."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

ADDRESS = re.compile(r"https?://[^\W_][^\s<>\"'`\\{}|^\x00-\x20\x7f]*", re.IGNORECASE)
"""Only these two schemes: a link of another one could run a script or start a program."""

AFTER_AN_ADDRESS = ".,;:!?*_~"
"""What ends a sentence around an address, not the address."""


def linked(text: str, own_url: str = "") -> Markup:
    """Write text as HTML with its links; those to the site itself (`own_url`) stay on the way it was reached by."""
    pieces, last = [], 0
    for found in ADDRESS.finditer(text):
        address = _trimmed(found[0])
        href = own_path(address, own_url) or address
        pieces += [
            escape(text[last : found.start()]),
            Markup('<a href="{}" rel="noopener noreferrer">{}</a>').format(href, address),
        ]
        last = found.start() + len(address)
    pieces.append(escape(text[last:]))
    return Markup("").join(pieces)


def own_path(address: str, own_url: str) -> str | None:
    """Return the path of an address of the site itself, None for any other."""
    path = address.removeprefix(own_url) or "/"
    # With two slashes it would be the name of another site.
    return path if path != address and path.startswith("/") and not path.startswith("//") else None


def _trimmed(address: str) -> str:
    """Leave off what belongs to the sentence: its full stop, and a bracket that was opened before."""
    while True:
        if address[-1] in AFTER_AN_ADDRESS or (
            address[-1] == ")" and address.count(")") > address.count("(")
        ):
            address = address[:-1]
        else:
            return address
