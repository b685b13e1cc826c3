"""The files of a mail, as its bytes hold them."""

from __future__ import annotations

import email
from dataclasses import dataclass
from email import policy
from urllib.parse import quote

NO_NAME = "attachment"


@dataclass(frozen=True)
class MailFile:
    """A file of a mail; its name is what the mail says, so it may be anything."""

    name: str
    content: bytes

    @property
    def size_bytes(self) -> int:
        """Say how large the file is."""
        return len(self.content)


def files(source: bytes) -> list[MailFile]:
    """Return the attachments of a mail, in their order."""
    mail = email.message_from_bytes(source, policy=policy.default)
    return [_file(part) for part in mail.iter_attachments()]


def disposition(name: str) -> str:
    """Write the header that makes a browser save a file, under its name and in no other folder.

    Source: RFC 6266, RFC 8187
    """
    name = "".join(
        "_" if character in '/\\"' or not character.isprintable() else character for character in name
    )
    name = name.strip(" .")[:200] or NO_NAME
    simple = name.encode("ascii", "replace").decode().replace("?", "_").replace("%", "_")
    return f"attachment; filename=\"{simple}\"; filename*=UTF-8''{quote(name.encode('utf-8', 'replace'), safe='')}"


def size_text(size_bytes: int) -> str:
    """Write a size as people say it, such as 812 bytes or 3.4 KiB."""
    if size_bytes < 1024:
        return f"{size_bytes} {'byte' if size_bytes == 1 else 'bytes'}"
    if size_bytes < 1024**2:
        return f"{size_bytes / 1024:.1f} KiB"
    return f"{size_bytes / 1024**2:.1f} MiB"


def _file(part: email.message.EmailMessage) -> MailFile:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):  # a mail inside the mail
        content = b"".join(inner.as_bytes() for inner in part.iter_parts())
    return MailFile(part.get_filename() or NO_NAME, content)
