"""Addresses as SMTP carries them: checked, and in ASCII."""

from __future__ import annotations

from email_validator import EmailNotValidError, validate_email

from app.errors import InvalidInputError


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
