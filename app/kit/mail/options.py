"""What a mail may be told: each value is looked at before anything is written."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from app.kit.errors import InvalidInputError
from app.kit.mail.message import MailingList

MOST_PRIORITY = 2**53
MOST_EXPIRES_S = 10**9
MAX_DEDUP_KEY = 1000
"""Characters."""


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _is_key(value: Any) -> bool:
    return value is None or (isinstance(value, str) and 0 < len(value) <= MAX_DEDUP_KEY)


def _is_listed(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes))


ADDRESSES = (lambda value: isinstance(value, str) or _is_listed(value), "an address or a list of addresses")
WILL_DO: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "policy": (lambda value: value in ("retry", "hold"), "'retry' or 'hold'"),
    "priority": (
        lambda value: _is_number(value, -MOST_PRIORITY, MOST_PRIORITY),
        "a number, such as 10; 0 is usual",
    ),
    "expires_in_s": (
        lambda value: value is None or (_is_number(value, 0, MOST_EXPIRES_S) and value > 0),
        f"seconds above 0, at most {MOST_EXPIRES_S}, or None for MAIL_EXPIRES_S",
    ),
    "dedup_key": (_is_key, f"text of 1 to {MAX_DEDUP_KEY} characters, such as 'welcome/7', or None"),
    "mailing_list": (lambda value: value is None or isinstance(value, MailingList), "a MailingList, or None"),
    "attachments": (_is_listed, "a list of files, such as ['terms.pdf']"),
    "cc": ADDRESSES,
    "bcc": ADDRESSES,
    "reply_to": ADDRESSES,
}
"""Of each option what will do, and how to say so."""


def check_options(**options: object) -> None:
    """Refuse a value that will not do.

    Raises: InvalidInputError naming the option, what was found and what is expected.
    """
    for name, value in options.items():
        will_do, expected = WILL_DO[name]
        if not will_do(value):
            raise InvalidInputError(f"{name}= is {reprlib.repr(value)}, expected {expected}.", name)
