"""The letter that every contestant sends, and to whom. Standard library only."""

from __future__ import annotations

SENDER = "post@example.com"
SUBJECT = "Soup"
BODY = "0123456789 and so on, until the line is full.\r\n" * 80


def reader(n: int) -> str:
    """Return the address of reader n."""
    return f"reader{n}@example.com"


def number_of(address: str) -> int:
    """Return which reader has an address."""
    return int(address.partition("@")[0].removeprefix("reader"))
