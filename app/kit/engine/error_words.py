"""What an error says, in words that can be stored: even if it cannot say so itself."""

from __future__ import annotations

import traceback

MAX_ERROR_CHARS = 16_384


def storable(text: str) -> str:
    """Replace what SQLite cannot keep as text: halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def message_of(error: BaseException) -> str:
    """Return what an error says."""
    try:
        return "".join(str(error))  # a plain str, whatever its class has made of it
    except BaseException:
        return "(it cannot say what it is)"


def words_of(error: BaseException) -> str:
    """Say what an error is, in bounds."""
    return storable(f"{type(error).__name__}: {message_of(error)}"[:MAX_ERROR_CHARS])


def trace_of(error: BaseException) -> str:
    """Say where an error was raised, even if Python cannot write it, or what it followed upon."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:
        frames = traceback.format_tb(BaseException.__dict__["__traceback__"].__get__(error))
        return "".join([*frames, words_of(error)])
