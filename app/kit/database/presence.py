"""Whether the files that are open are still those at their paths: one may be removed or replaced under the site."""

from __future__ import annotations

import os
import time
from pathlib import Path

from app.kit.errors import DatabaseUnwritableError

SUFFIXES = ("", "-wal", "-shm")
"""SQLite deletes none of them while somebody has the database open."""

LOOK_S = 0.005
"""What is written within so short a time of a removal is lost no more than what was written just before it."""

Identity = tuple[int, int]


class Presence:
    """Remembers which files a database was opened from."""

    def __init__(self, path: Path) -> None:
        self._next_look_at = 0.0
        found = {f"{path}{suffix}": _identity(f"{path}{suffix}") for suffix in SUFFIXES}
        self._seen = [(name, identity) for name, identity in found.items() if identity is not None]

    def check(self) -> None:
        """Refuse to go on in a file that nobody would find again.

        Raises: DatabaseUnwritableError.
        """
        now = time.monotonic()
        if now < self._next_look_at:
            return
        for name, identity in self._seen:
            if _identity(name) != identity:
                raise DatabaseUnwritableError(
                    f"the file {os.path.basename(name)} was removed or replaced under the site: nothing is kept. "
                    "Stop the site, put the file back (python3 main.py restore FILE), and start it again."
                )
        self._next_look_at = now + LOOK_S


def _identity(name: str) -> Identity | None:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino
