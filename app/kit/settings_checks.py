"""Settings that are held against more than their own variable: secrets, names of hosts, names of the settings."""

from __future__ import annotations

import difflib
import re
import secrets
from collections.abc import Collection, Mapping

from app.kit.errors import SettingError

LEAST_SECRET_CHARS = 16
"""In production: the world may try all shorter ones."""

HOST_NAME = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"

LOOKS_LIKE = 0.82
"""From what likeness on (1: the same) a variable is taken for one of ours with a mistake in it."""


def host_names(variable: str, text: str) -> tuple[str, ...]:
    """Read names of hosts.

    Raises: SettingError.
    """
    names = tuple(name.strip().lower() for name in text.split(","))
    if not all(re.fullmatch(rf"\*|\.?{HOST_NAME}", name) for name in names):
        raise SettingError(variable, text, "names separated by commas, such as www.example.com,.example.org")
    return names


def check_secrets(chosen: Mapping[str, str]) -> None:
    """Refuse secrets that can be guessed; an empty one is made at the start.

    Raises: SettingError.
    """
    for variable, secret in chosen.items():
        if 0 < len(secret) < LEAST_SECRET_CHARS:
            proposed = secrets.token_urlsafe(24)
            expected = f"{LEAST_SECRET_CHARS} characters or more in production, such as {proposed}"
            raise SettingError(variable, "...", expected)


def misspelt(environ: Collection[str], ours: Collection[str]) -> list[tuple[str, str]]:
    """Return the variables that look like one of ours with a mistake in it, each with ours."""
    found = [(name, difflib.get_close_matches(name.upper(), ours, 1, LOOKS_LIKE)) for name in sorted(environ)]
    return [(name, like[0]) for name, like in found if like and name not in ours]
