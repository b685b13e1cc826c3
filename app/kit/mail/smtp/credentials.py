"""The user and password of a mail server, which must never be read in a log, a page or an error."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

HIDDEN = "***"
SHORTEST_PART = 6


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@dataclass(frozen=True)
class Credentials:
    """A user and a password, and the forms in which SMTP wants them."""

    user: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def plain(self) -> str:
        """Return both, as AUTH PLAIN wants them. Source: RFC 4616."""
        return _base64(f"\0{self.user}\0{self.password}")

    @property
    def login(self) -> tuple[str, str]:
        """Return user and password, as AUTH LOGIN wants them."""
        return _base64(self.user), _base64(self.password)

    def hide_in(self, words: str) -> str:
        """Return the words without user and password: there are servers that repeat what they were told."""
        for secret in sorted((self.user, self.password), key=len, reverse=True):
            if len(secret) >= SHORTEST_PART:
                words = words.replace(secret, HIDDEN)
            elif secret:
                words = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, words)
        encoded = [form.rstrip("=") for form in (self.plain, *self.login)]

        def hide(token: re.Match[str]) -> str:
            # Also a part of it: a server that repeats a command may cut it short.
            text = token[0].rstrip("=")
            known = any(text in form or (len(form) >= SHORTEST_PART and form in text) for form in encoded)
            return HIDDEN if known else token[0]

        return re.sub(rf"[A-Za-z0-9+/]{{{SHORTEST_PART},}}=*", hide, words)
