"""Files of a mail, kept by name and hash: they join it when it goes out, the same to the byte on every try."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import os
import re
import secrets
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from app.errors import InvalidInputError, PostroomError

MAX_NAME_BYTES = 150
"""Of a file's name in UTF-8: with three characters for each it still fits into one line."""

ANY_TYPE = "application/octet-stream"


class AttachmentChangedError(PostroomError):
    """A file is not what it was when the mail was made, or is gone; the mail must not go without it."""

    code = "attachment_changed"


@dataclass(frozen=True)
class Attachment:
    """A file to attach, under another name or as another type than its own."""

    path: str | Path
    name: str | None = None
    content_type: str | None = None


Source = str | Path | Attachment
"""What may be given as an attachment; a path is relative to the folder the site was started in."""


@dataclass(frozen=True)
class Attached:
    """A file as it was when the mail was made; `placeholder` is the line of the mail that stands for it."""

    path: str
    name: str
    content_type: str
    size_bytes: int
    sha256: str
    placeholder: str

    def as_json(self) -> dict[str, Any]:
        """Return what `Attached(**...)` takes, in types that JSON knows."""
        return asdict(self)

    @property
    def added_bytes(self) -> int:
        """Say how much longer the mail gets when the file takes its place."""
        return 4 * -(-self.size_bytes // 3) + 2 * -(-self.size_bytes // 57) - len(self.placeholder) - 2


def attach(mail: EmailMessage, sources: Sequence[Source], most_bytes: int) -> tuple[Attached, ...]:
    """Give the mail a part for each file, with a placeholder for its content.

    Raises: InvalidInputError for what is no readable file, or more than `most_bytes` in all.
    """
    files: list[Attached] = []
    for source in sources:
        wanted = source if isinstance(source, Attachment) else Attachment(source)
        left_bytes = most_bytes - sum(file.size_bytes for file in files)
        files.append(_look_at(wanted, left_bytes))
        maintype, _, subtype = files[-1].content_type.partition("/")
        mail.add_attachment(
            base64.b64decode(files[-1].placeholder), maintype, subtype, filename=files[-1].name
        )
    return tuple(files)


def complete(message: bytes, attachments: Sequence[Attached]) -> bytes:
    """Put the files in the places of their placeholders; return the bytes that go over the wire.

    Raises: AttachmentChangedError when a file is gone or another than it was.
    """
    parts, rest = [], message
    for file in attachments:
        before, line, rest = rest.partition(f"\r\n{file.placeholder}\r\n".encode())
        if not line:
            raise AttachmentChangedError(f"The mail has no place for its attachment {file.name!r}.")
        parts += [before, b"\r\n", base64.encodebytes(_unchanged(file)).replace(b"\n", b"\r\n")]
    return b"".join([*parts, rest])


def _look_at(wanted: Attachment, most_bytes: int) -> Attached:
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
    digest = hashlib.sha256(content).hexdigest()
    # Nobody who writes into the mail can know the line beforehand. Base64, as the part's header says.
    placeholder = base64.b64encode(b"postroom attachment " + secrets.token_hex(16).encode()).decode()
    return Attached(str(path), name, content_type, len(content), digest, placeholder)


def _unchanged(file: Attached) -> bytes:
    expected = f"expected {file.size_bytes} bytes with sha256 {file.sha256[:12]}..."
    advice = "bring the file back as it was and send the mail again, or make a new one."
    try:
        content = _read(file.path, file.size_bytes)
    except (OSError, ValueError) as error:
        raise AttachmentChangedError(
            f"The attachment {file.path!r}: {_reason(error)}, {expected}: {advice}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != file.sha256:
        found = f"{len(content)} bytes with sha256 {digest[:12]}..."
        if len(content) > file.size_bytes:
            found = "more bytes than that"
        raise AttachmentChangedError(
            f"The attachment {file.path!r} has changed: found {found}, {expected}: {advice}"
        )
    return content


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
    name = re.sub(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/\\:*?"<>|]', "_", name)
    # Marks of writing direction make fdp.exe look like exe.pdf.
    name = re.sub("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", "", name)
    name = " ".join(name.split()).strip(" .")
    stem, dot, ending = name.rpartition(".")
    if not dot or len(ending.encode()) > 20:
        stem, dot, ending = name, "", ""
    room_bytes = MAX_NAME_BYTES - len(f"{dot}{ending}".encode())
    return (stem.encode()[:room_bytes].decode(errors="ignore") + dot + ending) or "attachment"
