"""What a fork must not carry over, and the end of a process not leave open.

A child opens its own connections, and finds no write half done.

No write may be open at that moment: SQLite's memory in the child would believe for ever that it still is.
"""

from __future__ import annotations

import atexit
import os
import threading
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

from app.kit.database.writer import Writer
from app.kit.errors import DatabaseBusyError


class Opened(Protocol):
    """Something that writes, and is told of forks."""

    def writer_to_hold(self) -> Writer | None:
        """Return the writer that must do nothing while the process forks."""

    def start_as_child(self) -> None:
        """Forget what belongs to the parent, without closing it."""

    def close_for_good(self) -> None:
        """Close at the end of the process."""


class _Held(threading.local):
    """The writers whose turn the forking thread has taken."""

    def __init__(self) -> None:
        self.writers: list[Writer] = []


watched: WeakSet[Opened] = WeakSet()
_held = _Held()


def watch(opened: Opened) -> None:
    """Tell `opened` of every fork, for as long as it lives."""
    watched.add(opened)


def _stand_still() -> None:
    for opened in list(watched):
        writer = opened.writer_to_hold()
        if writer is not None:
            with suppress(
                DatabaseBusyError
            ):  # then it forks all the same, and the child finds the file locked
                writer.take_turn()
                _held.writers.append(writer)


def _go_on() -> None:
    while _held.writers:
        _held.writers.pop().pass_turn()


def _start_as_child() -> None:
    _held.writers.clear()
    for opened in list(watched):
        opened.start_as_child()


@atexit.register
def _close_for_good() -> None:
    for opened in list(watched):
        opened.close_for_good()


if hasattr(os, "register_at_fork"):  # not on Windows, which forks nothing
    os.register_at_fork(before=_stand_still, after_in_parent=_go_on, after_in_child=_start_as_child)
