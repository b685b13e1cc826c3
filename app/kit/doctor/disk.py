"""What is looked at on the disk: the data folder, the file system it is on, the database in it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import lock_descriptor

from app.kit.database.damage import find_damage
from app.kit.database.file import LARGE_WAL_BYTES
from app.kit.doctor.hosts import IN_MEMORY, LAYERS, MOUNTS, NETWORK, find_mount
from app.kit.host.known_hosts import find_host
from app.settings import Settings

State = Literal["ok", "warning", "wrong"]

LITTLE_BYTES = 500 * 1024 * 1024
TOO_LITTLE_BYTES = 50 * 1024 * 1024
DAMAGE_WAIT_S = 1.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: how it is, and a sentence about it for people."""

    name: str
    state: State
    sentence: str

    def __str__(self) -> str:
        return f"{self.state:8} {self.name}: {self.sentence}"


def check_folder(folder: Path) -> list[Check]:
    """See whether the data folder can be written, and whether SQLite's WAL and file locks work in it."""
    there = _nearest(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=there) as scratch:
            (Path(scratch) / "file").write_bytes(b"written")
            made = "" if there == folder else ", made at the first start,"
            written = Check("data folder", "ok", f"{folder}{made} can be written.")
            return [written, check_wal(Path(scratch)), check_locks(Path(scratch))]
    except OSError as error:
        if not there.is_dir():
            sentence = f"{there} is no folder. Set DATA_DIR to one, or move what stands in its place."
        else:
            sentence = (
                f"{there} cannot be written ({error.strerror}). Let this user write there, or set DATA_DIR."
            )
        return [Check("data folder", "wrong", sentence)]


def check_wal(folder: Path, vfs: str = "") -> Check:
    """Read a small database while it is written. `vfs` names another way of SQLite's to use files."""
    uri = f"{(folder / 'wal.db').as_uri()}{'?vfs=' if vfs else ''}{vfs}"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as writer:
            mode = writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            writer.execute("CREATE TABLE numbers (number INTEGER)")
            if mode != "wal":
                sentence = f"journal mode {mode} instead of WAL on this disk: pages wait for whoever writes."
                return Check("SQLite", "warning", sentence)
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("INSERT INTO numbers VALUES (1)")
            with closing(sqlite3.connect(uri, uri=True, timeout=0)) as reader:
                reader.execute("SELECT count(*) FROM numbers").fetchone()
            writer.execute("COMMIT")
    except sqlite3.Error as error:
        return Check("SQLite", "wrong", f"a database in the data folder does not work: {error}.")
    return Check("SQLite", "ok", "pages are read while something is written (WAL works).")


def check_locks(folder: Path, lock: Callable[..., bool] = lock_descriptor) -> Check:
    """See whether a file that is locked is refused to the next, who has it once the first lets go."""
    with (folder / "lock").open("w") as other, suppress(OSError):
        with (folder / "lock").open("w") as mine:
            works = lock(mine.fileno(), blocking=False) and not lock(other.fileno(), blocking=False)
        if works and lock(other.fileno(), blocking=False):
            return Check("file locks", "ok", "they work: several processes may share the data folder.")
    sentence = "they do not work on this disk. Run one process only: no worker beside the site."
    return Check("file locks", "warning", sentence)


def check_space(folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> Check:
    """See how much room the disk has left."""
    free_bytes = usage(_nearest(folder)).free
    sentence = f"{free_bytes / 1024**3:.1f} GiB are left for the data folder"
    if free_bytes < LITTLE_BYTES:
        state: State = "wrong" if free_bytes < TOO_LITTLE_BYTES else "warning"
        return Check("room", state, f"{sentence}. Make some: a full disk takes no job and no mail.")
    return Check("room", "ok", f"{sentence}.")


def check_disk(folder: Path, environ: Mapping[str, str], mounts: Path = MOUNTS) -> Check:
    """Say whether what is in the data folder outlives a restart."""
    mount, host = find_mount(_nearest(folder), mounts), find_host(environ)
    kind = mount.kind if mount else ""
    if kind in IN_MEMORY:
        sentence = (
            f"{folder} is in memory ({kind}): jobs and mails are lost when the machine stops. Set DATA_DIR."
        )
        return Check("disk", "wrong", sentence)
    own_volume = mount is not None and mount.point != "/" and kind not in LAYERS
    if host is not None and host.files and not (own_volume and host.keeps_volumes):
        return Check("disk", "warning", f"This is {host.name}, which does not keep files: {host.files}.")
    if kind in LAYERS and not environ.get("REPL_ID"):  # a Replit workspace keeps its own
        sentence = f"{folder} is inside a container and goes with it. Mount a volume there."
        return Check("disk", "warning", sentence)
    if kind in NETWORK or kind.startswith("fuse."):
        sentence = (
            f"{folder} is on a network ({kind}), where SQLite is not safe: never use it from two machines."
        )
        return Check("disk", "warning", sentence)
    return Check("disk", "ok", "it keeps files over a restart, as far as can be seen from here.")


def check_wal_size(path: Path) -> Check:
    """See whether the write-ahead log grows, since somebody reads on and on from before it."""
    wal = path.with_name(path.name + "-wal")
    size_bytes = wal.stat().st_size if wal.exists() else 0
    if size_bytes < LARGE_WAL_BYTES:
        return Check("write-ahead log", "ok", "it is small.")
    sentence = (
        f"it has {size_bytes / 1024**2:.0f} MiB. Unless much is written just now, a program or a task has the "
        "database open in a transaction that does not end. Stop it: then the log shrinks within a minute or two."
    )
    return Check("write-ahead log", "warning", sentence)


def check_database(settings: Settings) -> Check:
    """Look for damage in the database, and whether it is that of this environment; read only."""
    path = settings.database_path
    damage = find_damage(path, DAMAGE_WAIT_S)
    if damage is not None:
        then = "The site does not start" if settings.production else "The next start sets it aside"
        sentence = f"{path} is damaged ({damage}). {then}; python3 main.py restore FILE brings a backup back."
        return Check("database", "wrong", sentence)
    if not os.path.isfile(path):
        return Check("database", "ok", f"{path} is made at the first start.")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=DAMAGE_WAIT_S)) as reader:
            row = reader.execute("SELECT value FROM postroom_about WHERE key = 'environment'").fetchone()
    except sqlite3.Error as error:
        return Check("database", "wrong", f"{path} cannot be read: {error}. Is it a database of this kit?")
    if row is not None and row[0] != settings.environment:
        sentence = (
            f"{path} belongs to the {row[0]} environment, this is {settings.environment}. Set DATA_DIR."
        )
        return Check("database", "wrong", sentence)
    return Check("database", "ok", f"{path} is sound ({path.stat().st_size / 1024**2:.1f} MiB).")


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists."""
    # os.path: what may not be looked into counts as absent
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))
