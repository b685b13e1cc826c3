"""Text as it can be shown anywhere: what cannot be written, or would command a terminal, stands as an escape."""

from __future__ import annotations

import json
import re

NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters but tab and line break; half characters, such as those in a file's name, which UTF-8 lacks."""


def printable(text: str) -> str:
    """Write as escapes what is no text."""
    return NOT_TEXT.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def for_terminal(text: str, encoding: str) -> str:
    """Write lines for a terminal with an encoding: what it lacks, and what it would obey, as escapes of JSON."""
    return "\n".join(one_line(line, encoding) for line in text.split("\n"))


def one_line(text: str, encoding: str = "utf-8") -> str:
    """Write a text as one line, its line breaks as escapes."""
    if _is_plain(text, encoding):
        return text
    return "".join(letter if _is_plain(letter, encoding) else json.dumps(letter)[1:-1] for letter in text)


def _is_plain(text: str, encoding: str) -> bool:
    if not text.isprintable():
        return False
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
