"""Files of a mail: read when it is made and kept in its row, so nothing that befalls them later can stop it."""

from __future__ import annotations

import mimetypes
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from app.kit.errors import InvalidInputError
from app.kit.settings_mail import NOT_ONE_LINE

MAX_NAME_BYTES = 150
"""Of a file's name in UTF-8: with three characters for each it still fits into one line."""

ANY_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Attachment:
    """A file to attach, under another name or as another type than its own."""

    path: str | Path
    name: str | None = None
    content_type: str | None = None


Source = str | Path | Attachment
"""What may be given as an attachment; a path is relative to the folder the site was started in."""


def attach(mail: EmailMessage, sources: Sequence[Source], most_bytes: int) -> None:
    """Give the mail a part for each file, as it is now.

    Raises: InvalidInputError for what is no readable file, or more than `most_bytes` in all.
    """
    left_bytes = most_bytes
    for source in sources:
        wanted = source if isinstance(source, Attachment) else Attachment(source)
        name, content_type, content = _look_at(wanted, left_bytes)
        left_bytes -= len(content)
        mail.add_attachment(content, *content_type.split("/"), filename=name)


def _look_at(wanted: Attachment, most_bytes: int) -> tuple[str, str, bytes]:
    path = Path(wanted.path).absolute()
    name = _safe_name(wanted.name or path.name)
    guess, packed = mimetypes.guess_type(name)
    content_type = (wanted.content_type or (guess if guess and not packed else ANY_TYPE)).lower()
    if not re.fullmatch(r"[\w.+-]+/[\w.+-]+", content_type, re.ASCII):
        raise _refused(
            wanted, f"content_type is {content_type[:100]!r}, expected one such as application/pdf"
        )
    if content_type.startswith(("message/", "multipart/")):
        content_type = ANY_TYPE  # mails and their parts must not be encoded. Source: RFC 2045 6.4
    try:
        content = _read(path, most_bytes)
    except (OSError, ValueError) as error:
        raise _refused(wanted, f"{_reason(error)}, expected a file that can be read") from error
    if len(content) > most_bytes:
        raise _refused(wanted, f"there is room for {most_bytes} bytes only: put a link to what is large")
    return name, content_type, content


def _read(path: str | Path, most_bytes: int) -> bytes:
    """Read a file, but at most one byte more than `most_bytes`."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would keep us waiting for ever

    with open(path, "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("it is not a regular file")
        return file.read(most_bytes + 1)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _refused(wanted: Attachment, reason: str) -> InvalidInputError:
    return InvalidInputError(f"{str(wanted.path)!r} cannot be attached: {reason}.", "attachments")


def _safe_name(name: str) -> str:
    """Return a name that every system can save under, and that does not show as another."""
    name = re.sub(r'[/\\:*?"<>|]', "_", NOT_ONE_LINE.sub("_", name))
    # Marks of writing direction make fdp.exe look like exe.pdf.
    name = re.sub("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", "", name)
    name = " ".join(name.split()).strip(" .")
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending.encode()) > 20:
        stem, dot, ending = name, "", ""
    room_bytes = MAX_NAME_BYTES - len(f"{dot}{ending}".encode())
    return (stem.encode()[:room_bytes].decode(errors="ignore") + dot + ending) or "attachment"
