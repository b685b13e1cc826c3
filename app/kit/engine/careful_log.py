"""Log lines that never raise: a filter, a handler or an odd error must not end the thread that says something."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

HUEYS = ("huey", "huey.consumer", "huey.consumer.Worker", "huey.consumer.Clock")


class CarefulLogger(logging.Logger):
    """A logger that says on stderr that it could not log a line, where others raise."""

    def _log(self, level: int, msg: object, *args: Any, **options: Any) -> None:
        # The caller is one step further off: its place in the code is what a format may show.
        options["stacklevel"] = options.get("stacklevel", 1) + 1
        try:
            super()._log(level, msg, *args, **options)
        except Exception as error:
            with suppress(Exception):  # without its arguments: they may be what cannot be said
                why = type(error).__name__
                sys.stderr.write(f"{self.name}: {msg} (this line could not be logged in full: {why})\n")


def careful(name: str) -> logging.Logger:
    """Return a logger whose lines never raise; it stays the one that logging has by this name."""
    logger = logging.getLogger(name)
    if type(logger) is logging.Logger:  # else the project has a class of its own
        logger.__class__ = CarefulLogger
    return logger


for hueys in HUEYS:
    careful(hueys)
