"""What may come into the catalogue; what may not is refused with the name of its field."""

from __future__ import annotations

import unicodedata

from email_validator import EmailNotValidError, validate_email

from app.bookshop.tables import MAX_TEXT
from app.kit.database.file import database
from app.kit.errors import InvalidInputError

MAX_ADDRESS = 254
"""Characters of an email address. Source: RFC 5321 4.5.3.1.3, less its < and >"""

UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories that break a line, a mail header or UTF-8 itself."""


def genres() -> list[str]:
    """List the genres by name."""
    return [row["name"] for row in database.read("SELECT name FROM genres ORDER BY name")]


def known_genre(name: str) -> tuple[int, str]:
    """Return the id and the name of a genre, however its capitals are written.

    Raises: InvalidInputError.
    """
    row = database.read_one("SELECT id, name FROM genres WHERE name = ?", (encodable(name.strip()),))
    if row is None:
        raise InvalidInputError("Choose a genre: " + ", ".join(genres()) + ".", "genre")
    return row["id"], row["name"]


def one_line(text: str, field: str) -> str:
    """Return a text without the spaces around it, if it is one line of something.

    Raises: InvalidInputError.
    """
    text = text.strip()
    if not text:
        raise InvalidInputError(f"The {field} is missing.", field)
    if len(text) > MAX_TEXT:
        raise InvalidInputError(f"The {field} has {len(text)} characters; at most {MAX_TEXT} fit.", field)
    if any(unicodedata.category(character) in UNPRINTABLE for character in text):
        raise InvalidInputError(f"The {field} must be one line of plain text.", field)
    return text


def email_address(text: str) -> str:
    """Return an address as it is kept: its domain in small letters, and in its own script.

    Raises: InvalidInputError.
    """
    text = text.strip()
    if not text:
        raise InvalidInputError("The email address is missing.", "email")
    if len(text) > MAX_ADDRESS:  # looking at it would take seconds
        raise InvalidInputError(
            f"The email address has {len(text)} characters; at most {MAX_ADDRESS} fit.", "email"
        )
    try:
        checked = validate_email(text, check_deliverability=False)
    except EmailNotValidError as error:
        raise InvalidInputError(f"This email address cannot be used: {error}", "email") from error
    if checked.ascii_email is None:
        raise InvalidInputError("The part before the @ must be plain letters, digits and signs.", "email")
    return checked.normalized


def encodable(text: str) -> str:
    """Return a text that SQLite can look for."""
    return text.encode("utf-8", "replace").decode("utf-8")
