"""Who is alive: every process that opens the queue holds a lock file for as long as it lives.

Liveness is a lock, not a clock: a slow process is never taken for dead, a killed one is known at once.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from app.kit.database.file import Database
from app.kit.engine.careful_log import careful
from app.kit.engine.jobs import queries
from app.kit.host import private_files

FOLDER = "instances"

log = careful("postroom.instances")


def file_lock(path: Path) -> FileLock:
    """Make a lock that the system drops when its process dies, however it dies."""
    # thread_local=False: whichever thread stops the process may let go of it. No soft fallback: a soft lock
    # outlives its process.
    return FileLock(path, thread_local=False, fallback_to_soft=False, preserve_lock_file=True, mode=0o600)


def try_lock(lock: FileLock) -> bool:
    """Take a lock if nobody has it."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


def living(data_dir: Path) -> list[str]:
    """Name the processes that have the queue of a data folder open."""
    names = []
    for path in sorted((data_dir / FOLDER).glob("*.lock")):
        lock = file_lock(path)
        if try_lock(lock):
            lock.release()
        else:
            names.append(f"process {path.name.partition('-')[0]}")
    return names


class Instance:
    """This process's entry among the instances."""

    def __init__(self, database: Database, clock: Callable[[], float], free: Callable[[str], int]) -> None:
        self.id = ""
        self._database = database
        self._now = clock
        self._free = free
        self._folder = database.path.parent / FOLDER
        self._lock: FileLock | None = None

    def join(self, threads: int, tasks: Iterable[str] = ()) -> None:
        """Take the lock, then appear in the table: nobody ever sees an entry whose lock is free but lives.

        `tasks` are those that the code of this process has.
        """
        self.id = f"{os.getpid()}-{secrets.token_hex(4)}"  # made after the fork, so that no two share it
        self._database.open()  # says best what is wrong with the folder, if anything is
        private_files.make_folder(self._folder)
        self._lock = file_lock(self._path(self.id))
        self._lock.acquire()
        row = (self.id, os.getpid(), threads, "running", 0, self._now())
        has = [(task, self.id) for task in tasks]

        def appear(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO postroom_instances VALUES (?, ?, ?, ?, ?, ?)", row)
            connection.executemany("INSERT INTO postroom_instance_tasks VALUES (?, ?)", has)

        self._database.write(appear)

    def set_threads(self, threads: int) -> None:
        """Say how many jobs this instance runs at once."""
        self._update("threads = ?", threads)

    def take_clock(self) -> None:
        """Say that this instance holds the clock, and that nobody else does any more."""
        self._database.write(
            lambda connection: connection.execute(
                "UPDATE postroom_instances SET clock = (id = ?)", (self.id,)
            )
        )

    def set_stopping(self) -> None:
        """Say that this instance takes no more jobs: what it leaves unfinished was cut off, not killed."""
        self._update("state = ?", "stopping")

    def leave(self) -> None:
        """Disappear, freeing what is still claimed; only when no body of this process runs any more."""
        self._free(self.id)
        if self._lock is not None:
            self._lock.release()
            self._path(self.id).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Free the claims of every instance whose lock is free; return how many jobs came back."""
        return sum(self._free_if_dead(other) for other in self.others())

    def others(self) -> list[str]:
        """Name the other instances in the table, dead ones not yet swept included."""
        rows = self._database.read(queries.INSTANCE_IDS)
        return [row["id"] for row in rows if row["id"] != self.id]

    def _free_if_dead(self, other: str) -> int:
        path = self._path(other)
        lock = file_lock(path)
        if not try_lock(lock):
            return 0
        try:
            freed = self._free(other)
            path.unlink(missing_ok=True)
        finally:
            lock.release()
        if freed:
            log.warning("Instance %s is gone: %d of its jobs are free again", other, freed)
        return freed

    def _update(self, assignment: str, value: object) -> None:
        def update(connection: sqlite3.Connection) -> None:
            connection.execute(f"UPDATE postroom_instances SET {assignment} WHERE id = ?", (value, self.id))

        self._database.write(update)

    def _path(self, instance: str) -> Path:
        return self._folder / f"{instance}.lock"
