"""Several apps made in one process: they share the queue, and the database if it is the same file."""

from __future__ import annotations

import os
from typing import Any

from huey.exceptions import ConfigurationError

from app.kit.database.file import Database


def settle(huey: Any, wanted: Database) -> tuple[Database, bool]:
    """Return the database a queue is to use, and whether jobs run here already, which keep all they have.

    One process opens a file once: a second writer would wait for the first one's transaction, for itself that is.
    Raises: ConfigurationError when jobs of another file run in this process.
    """
    known: Database | None = huey._database
    if known is None:
        return wanted, False
    runs_here = huey.consumer_pid == os.getpid()
    if known.is_like(wanted):
        return known, runs_here or huey.is_in_child
    if runs_here:
        raise ConfigurationError(
            f"This process runs the jobs of {known.path}, and found an app made for {wanted.path}. Make that one "
            "in a process of its own."
        )
    return wanted, False
