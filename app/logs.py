"""Where log lines go: stderr, one line each, quiet enough to be read."""

from __future__ import annotations

import logging
import sys


def configure(level: str) -> None:
    """Send this process's log lines of `level` and above to stderr."""
    logging.basicConfig(
        level=level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        force=True,
    )
    if level != "DEBUG":
        logging.getLogger("huey").setLevel(logging.WARNING)  # two lines a job otherwise
