"""Addresses as SMTP carries them: checked, and in ASCII."""

from __future__ import annotations

from collections.abc import Sequence

from email_validator import EmailNotValidError, validate_email

from app.kit.errors import InvalidInputError

MAX_ADDRESS = 254
"""Characters. Looking at a longer one takes seconds. Source: RFC 5321 4.5.3.1.3, less its < and >"""

MAX_ADDRESSES = 20
"""In cc, in bcc and in reply_to of one mail."""

Addresses = str | Sequence[str]
"""One address or several."""


def wire_addresses(addresses: Addresses, field: str) -> list[str]:
    """Return each of some addresses once, as SMTP carries it.

    Raises: InvalidInputError naming the `field`.
    """
    listed = [addresses] if isinstance(addresses, str) else list(addresses)
    if len(listed) > MAX_ADDRESSES:
        raise InvalidInputError(
            f"{field} has {len(listed)} addresses, at most {MAX_ADDRESSES}: send_emails() is for many.", field
        )
    return list({(wire := wire_address(address, field)).lower(): wire for address in listed}.values())


def wire_address(address: str, field: str = "to") -> str:
    """Return an address as SMTP carries it: an international domain becomes ASCII.

    Raises: InvalidInputError naming the `field`.
    """
    if not isinstance(address, str) or len(address) > MAX_ADDRESS:
        found = f"{len(address)} characters" if isinstance(address, str) else f"a {type(address).__name__}"
        raise InvalidInputError(
            f"No mail can go to {found}: an address is text of at most {MAX_ADDRESS} characters.", field
        )
    try:
        ascii_form = validate_email(address, check_deliverability=False).ascii_email
    except EmailNotValidError as error:
        raise InvalidInputError(f"No mail can go to {address!r}: {error}", field) from error
    if ascii_form is None:
        raise InvalidInputError(
            f"No mail can go to {address!r}: before the @ only ASCII is allowed, few servers take more.",
            field,
        )
    return ascii_form


def mailbox(address: str) -> str:
    """Name the mailbox that an address most likely leads to: capitals and what follows a + do not matter.

    For counts and bounds alone: at a few providers cleo+a@example.com is somebody else's than cleo@example.com.
    """
    local, _, domain = address.lower().rpartition("@")
    return f"{local.partition('+')[0] or local}@{domain}"
