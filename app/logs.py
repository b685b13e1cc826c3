"""Where log lines go: stderr, one line each, quiet enough to be read, and without the secrets of the settings."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class DiscreetFormatter(logging.Formatter):
    """Writes *** for each secret, also in traces: an error's message may hold what a program was called with."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(FORMAT)
        self._secrets = sorted(secrets, key=len, reverse=True)  # one may be a part of another

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line, and its trace below."""
        text = super().format(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def is_news(record: logging.LogRecord) -> bool:
    """Say no to a trace of an error that has been logged already, in words, by whoever knew more about it."""
    error = record.exc_info[1] if record.exc_info else None
    try:
        return not getattr(error, "is_logged", False)
    except Exception:  # an error that hands unknown attributes on to what it wraps
        return True


def configure(level: str, secrets: Iterable[str] = ()) -> None:
    """Send this process's log lines of `level` and above to stderr, without the secrets."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(DiscreetFormatter(secrets))
    handler.addFilter(is_news)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if level != "DEBUG":
        logging.getLogger("huey").setLevel(logging.WARNING)  # two lines a job otherwise
