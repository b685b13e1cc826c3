"""Header lines, folded by us: the standard library's own folding encodes, breaks or changes what it must not."""

from __future__ import annotations

import re
from email import policy
from email.header import Header
from email.headerregistry import BaseHeader, HeaderRegistry, UnstructuredHeader
from typing import Any, ClassVar, Literal, NamedTuple

from app.kit.settings_mail import NOT_ONE_LINE

MAX_LINE = 998
"""Octets, without the line's end. Source: RFC 5321 4.5.3.1.6"""

SOFT_LINE = 76
"""Characters at which lines are broken where they may be. Source: RFC 2045 6.7, RFC 2047 2"""

PLAIN_NAME = 60
"""Characters up to which a display name in plain letters goes out as it is."""


class Named(NamedTuple):
    """A name and what it stands for: a sender with their address, a mailing list with its id."""

    display_name: str  # not `name`: the standard library takes what has one for a finished header
    address: str


class _Line(UnstructuredHeader, BaseHeader):
    """Plain text that goes out as it is, broken nowhere but after ", ".

    The standard library encodes a List-Unsubscribe that is longer than a line, so that no mail program finds
    the button, and looks for line breaks in headers from Python 3.13 on only.
    Source: github.com/python/cpython/issues/85725
    """

    max_count: ClassVar[Literal[1] | None] = 1

    @classmethod
    def parse(cls, value: Any, kwds: dict[str, Any]) -> None:
        text = cls.read(value)
        if not cls.is_legal(text):
            raise ValueError(f"a header holds control characters or foreign letters: {text[:200]!r}")
        kwds["decoded"] = text
        kwds["parse_tree"] = cls.value_parser("")  # not used: we fold

    @classmethod
    def read(cls, value: Any) -> str:
        return str(value)

    @classmethod
    def is_legal(cls, text: str) -> bool:
        return text.isascii() and text.isprintable()

    def fold(self, *, policy: policy.Policy) -> str:
        header = f"{self.name}: {self.written()}"
        lines = header.split("\r\n ")
        if any(len(line) > MAX_LINE or not (line.isascii() and line.isprintable()) for line in lines):
            raise ValueError(f"{self.name} cannot be written in lines of at most {MAX_LINE} plain characters")
        return header.replace("\r\n", policy.linesep) + policy.linesep

    def written(self) -> str:
        """Return the value as it goes over the wire; continuation lines follow CR LF and a space."""
        is_short = len(self.name) + len(self) + 2 <= SOFT_LINE
        return str(self) if is_short else self.replace(", ", ",\r\n ")


class _Text(_Line):
    """Text of people, such as a subject, that reads the same at the other end.

    The standard library's own folding drops spaces between encoded words, and takes "=?utf-8?..." in a
    book's title for its own encoding. Source: github.com/python/cpython/issues/92081
    """

    @classmethod
    def is_legal(cls, text: str) -> bool:
        return not NOT_ONE_LINE.search(text)

    def written(self) -> str:
        # A word that fills a line would leave the first one empty, which reads as a space too many.
        has_long_word = max(map(len, self.split(" "))) > SOFT_LINE - len(self.name) - 4
        is_plain = self.isascii() and "=?" not in self and not has_long_word
        header = Header(str(self), "us-ascii" if is_plain else "utf-8", SOFT_LINE, self.name)
        return header.encode(linesep="\r\n")


class _Named(_Text):
    """`Name <address>`, where the address is never encoded or broken.

    The standard library's folding loses the quotes of a name it breaks, and encodes parts of a long address.
    Source: github.com/python/cpython/issues/121284
    """

    @classmethod
    def read(cls, value: Any) -> str:
        name, address = value
        if not re.fullmatch("[ -;=?-~]+", address):
            raise ValueError(
                f"an address holds <, >, control characters or foreign letters: {address[:200]!r}"
            )
        return f"{name} <{address}>" if name else f"<{address}>"

    def written(self) -> str:
        name, _, address = str(self).rpartition("<")
        phrase = self._phrase(name.rstrip())
        if not phrase:
            return address.removesuffix(">") if "@" in address else f"<{address}"
        last_line = len(phrase.rpartition("\r\n")[2]) + (0 if "\r\n" in phrase else len(self.name) + 2)
        gap = " " if last_line + len(address) + 2 <= SOFT_LINE else "\r\n "
        return f"{phrase}{gap}<{address}"

    def _phrase(self, name: str) -> str:
        if name.isascii() and "=?" not in name and len(name) <= PLAIN_NAME:
            quoted = name.replace("\\", "\\\\").replace('"', '\\"')
            return name if re.fullmatch(r"[\w!#$%&'*+/=?^`{|}~ -]*", name) else f'"{quoted}"'
        return Header(name, "utf-8", SOFT_LINE, self.name).encode(linesep="\r\n")


_HEADERS = HeaderRegistry(default_class=_Line)
_HEADERS.map_to_type("subject", _Text)
for _name in ("from", "to", "list-id"):
    _HEADERS.map_to_type(_name, _Named)

# 7bit: bodies are encoded so that any server takes them, not only those that offer 8BITMIME.
WIRE_POLICY = policy.SMTP.clone(cte_type="7bit", max_line_length=SOFT_LINE, header_factory=_HEADERS)
"""How a mail is written: legal bytes for every server, and the same text at the other end."""
