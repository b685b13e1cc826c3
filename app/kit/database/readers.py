"""Connections to read: one for each thread, read-only in the file's own mode."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path


class Readers:
    """Opens a connection for each thread that reads, and closes those of threads that have gone."""

    def __init__(self, path: Path, wait_s: float) -> None:
        self._path = path
        self._wait_s = wait_s
        self._mutex = threading.Lock()
        self._open: dict[threading.Thread, sqlite3.Connection] = {}
        self._local = threading.local()

    def __len__(self) -> int:
        return len(self._open)

    def mine(self) -> sqlite3.Connection | None:
        """Return the present thread's connection, if it has one."""
        found: sqlite3.Connection | None = getattr(self._local, "reader", None)
        return found

    def add(self) -> sqlite3.Connection:
        """Open a connection for the present thread."""
        # A connection that merely promises not to write would still checkpoint when it closes last.
        reader = sqlite3.connect(
            f"{self._path.as_uri()}?mode=ro",
            uri=True, timeout=self._wait_s, isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        reader.row_factory = sqlite3.Row
        self._local.reader = reader
        with self._mutex:
            for thread in [thread for thread in self._open if not thread.is_alive()]:
                self._open.pop(thread).close()
            self._open[threading.current_thread()] = reader
        return reader

    def close(self) -> None:
        """Close them all."""
        with self._mutex:
            for reader in self._open.values():
                reader.close()
            self._open.clear()
