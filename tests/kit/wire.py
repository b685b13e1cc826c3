"""What every mail's bytes must be, whoever wrote its text."""

from __future__ import annotations

import re
from email import message_from_bytes, policy
from email.message import EmailMessage


def read(source: bytes) -> EmailMessage:
    """Read a mail as a mail program does."""
    return message_from_bytes(source, policy=policy.default)


def header_lines(source: bytes) -> list[bytes]:
    """Return a mail's header as it went over the wire, one entry a header, its line breaks taken out."""
    return source.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").split(b"\r\n")


def assert_legal(source: bytes) -> None:
    """Every server takes these bytes. Source: RFC 5321 4.5.3.1.6 and 2.3.8, RFC 5322 2.2, RFC 2047 2"""
    assert source.isascii()
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", source)
    assert max(len(line) for line in source.split(b"\r\n")) <= 998
    header = source.partition(b"\r\n\r\n")[0]
    assert all(re.fullmatch(rb"([!-9;-~]+:| )[ -~]*", line) for line in header.split(b"\r\n"))
    assert all(len(word) <= 75 for word in re.findall(rb"=\?utf-8\?[bq]\?[^? ]*\?=", header))
