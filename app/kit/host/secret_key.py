"""The key that signs cookies and the links in mails: SECRET_KEY, or one that is kept in the data folder."""

from __future__ import annotations

import logging
import os
import secrets
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from app.kit.errors import PostroomError
from app.kit.host import private_files

if TYPE_CHECKING:
    from app.settings import Settings

LEAST_CHARACTERS = 32
WAIT_S = 10.0

log = logging.getLogger("postroom")
_of_this_process = secrets.token_hex(32)


class SecretKeyError(PostroomError):
    """The file that keeps the key cannot be used, and is not ours to throw away."""

    code = "bad_secret_key"


def secret_key(settings: Settings) -> str:
    """Return SECRET_KEY; where it is unset, the key of the data folder, which the first to ask makes.

    Every process of a site has the same, also after a restart: links in mails outlive both.
    Raises: SecretKeyError.
    """
    return settings.secret_key or _kept_key(settings.data_dir / "secret_key")


@cache
def _kept_key(path: Path) -> str:
    try:
        return _read(path) or _make(path)
    except OSError as error:
        log.warning(
            "No key can be kept in %s (%s): links in the mails of this process end with it. Make the folder "
            "writable, or set SECRET_KEY to a long random text.",
            path, error,
        )  # fmt: skip
        return _of_this_process


def _read(path: Path) -> str:
    """Return the key of the file, or nothing if there is none."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise SecretKeyError(
            f"{path} cannot be read: {error}. Let this user read it, or set SECRET_KEY."
        ) from error
    key = content.decode("ascii", "replace").strip(" \t\r\n\0")
    if key and (len(key) < LEAST_CHARACTERS or not key.isascii() or not key.isprintable()):
        raise SecretKeyError(
            f"{path} holds no key, expected one line of {LEAST_CHARACTERS} or more plain characters. Restore it "
            "from a copy; or delete it: a new key is made, and links in mails already sent stop working."
        )
    return key


def _make(path: Path) -> str:
    private_files.make_folder(path.parent)
    # Of processes that start together one makes it, and the others read what that one made.
    with FileLock(path.with_name(path.name + ".lock"), timeout=WAIT_S, fallback_to_soft=False, mode=0o600):
        if made_meanwhile := _read(path):
            return made_meanwhile
        if path.exists():
            log.warning("%s is empty, so a new key is made: links in mails already sent stop working.", path)
        key, draft = secrets.token_hex(32), path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)  # the whole key or none: nobody ever reads half of it
        return key
