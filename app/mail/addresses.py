"""Addresses as SMTP carries them: checked, and in ASCII."""

from __future__ import annotations

from email.errors import MessageError
from email.headerregistry import Address
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

from app.errors import InvalidInputError, SettingError
from app.mail.headers import NOT_TEXT


def wire_address(address: str, field: str = "to") -> str:
    """Return an address as SMTP carries it: an international domain becomes ASCII.

    Raises: InvalidInputError naming the `field`.
    """
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


@lru_cache(maxsize=8)
def parse_sender(mail_from: str) -> Address:
    """Split MAIL_FROM into name and address.

    Raises: SettingError.
    """
    expected = "Name <address@your-domain.example>"
    if NOT_TEXT.search(mail_from):
        raise SettingError("MAIL_FROM", mail_from, f"{expected} on one line")
    name, bracket, address = mail_from.strip().rpartition("<")
    address = address.removesuffix(">") if bracket else address
    try:
        # The default sender is at localhost, which the validator refuses: it looks at foreign letters only.
        return Address(name.strip(' "'), addr_spec=address if address.isascii() else wire_address(address))
    except (ValueError, IndexError, MessageError, InvalidInputError) as error:
        raise SettingError("MAIL_FROM", mail_from, expected) from error
