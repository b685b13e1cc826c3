"""The data folder is nobody else's: it holds mails, addresses and the key that signs links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
OURS = ("postroom.db*", "secret_key*", "*.lock", "instances/*.lock")
"""In a folder that somebody shares with other things, only the kit's files are touched."""


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner can look into, if it is not there."""
    folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)


def make_file(path: Path) -> None:
    """Make an empty file that only its owner can read, if it is not there."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))


def tighten(folder: Path) -> None:
    """Take what others may do to a data folder and the kit's files in it away."""
    if os.name != "posix" or not folder.is_dir():
        return
    for path in [folder, *_ours(folder)]:
        with suppress(OSError):  # somebody else's, or gone meanwhile
            mode = path.stat().st_mode & 0o7777
            # A folder with the sticky bit, such as /tmp, is everybody's on purpose.
            if mode & 0o077 and not mode & 0o1000:
                path.chmod(mode & FOLDER_MODE)


def _ours(folder: Path) -> Iterator[Path]:
    for pattern in OURS:
        yield from folder.glob(pattern)
    yield folder / "instances"
