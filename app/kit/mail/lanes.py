"""A lane is the way mail leaves by: it pauses while the server is at fault, and holds to mails a minute.

What a lane knows is a row, so a restart forgets neither its faults nor what it has sent in this minute.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from app.kit.database.file import database
from app.kit.host.clock import clock
from app.kit.mail.replies import MAX_RETRY_AFTER_S, Reply

NEARLY = 1e-6
"""A token that lacks so little is one: a wait too short for the clock to move would never end."""


@dataclass(frozen=True)
class Lane:
    """A lane as it stands; `paused_at` and `paused_until` in unix seconds."""

    name: str
    faults: int
    paused_until: float
    reason: str
    paused_at: float = 0.0

    def left_s(self, now: float) -> float:
        """Return for how long mail waits still; a pause from the future was made by a wrong clock, and is over."""
        return max(0.0, self.paused_until - now) if self.paused_at <= now else 0.0


def find(name: str) -> Lane:
    """Return a lane; one that never had trouble has no row."""
    row = database.read_one("SELECT * FROM postroom_mail_lanes WHERE name = ?", (name,))
    return _lane(row) if row else Lane(name, 0, 0.0, "")


def find_all() -> list[Lane]:
    """Return every lane that has a row, by name."""
    return [_lane(row) for row in database.read("SELECT * FROM postroom_mail_lanes ORDER BY name")]


def _lane(row: sqlite3.Row) -> Lane:
    return Lane(row["name"], row["faults"], row["paused_until"], row["reason"], row["paused_at"])


def note_fault(name: str, reply: Reply, delays_s: Sequence[float], now: float | None = None) -> float:
    """Count a fault of the lane's server; return for how long the lane pauses.

    Each fault in a row takes the next of `delays_s`, the last of them again and again; the server's own wish
    goes before. Mails that fail together, while the lane is paused already, are one fault.
    Units: seconds.
    """
    moment = clock() if now is None else now

    def note(connection: sqlite3.Connection) -> float:
        row = _row(connection, name)
        if left_s := _lane(row).left_s(moment):
            return left_s
        delay_s = delays_s[min(row["faults"], len(delays_s) - 1)]
        if reply.retry_after_s is not None:
            delay_s = min(max(delay_s, reply.retry_after_s), MAX_RETRY_AFTER_S)
        connection.execute(
            "UPDATE postroom_mail_lanes SET faults = faults + 1, paused_at = ?, paused_until = ?, reason = ?"
            " WHERE name = ?",
            (moment, moment + delay_s, str(reply), name),
        )
        return float(delay_s)

    return database.write(note)


def note_success(name: str) -> None:
    """Forget the lane's faults: the next one starts with the shortest pause."""
    if find(name).faults:
        change = "faults = 0, paused_at = 0, paused_until = 0, reason = ''"
        sql = f"UPDATE postroom_mail_lanes SET {change} WHERE name = ?"
        database.write(lambda connection: connection.execute(sql, (name,)))


def open_all(now: float | None = None) -> bool:
    """End the pauses of all lanes; their faults stay counted until a mail has gone. False when none paused."""
    moment = clock() if now is None else now
    if database.read_one("SELECT 1 FROM postroom_mail_lanes WHERE paused_until > ?", (moment,)) is None:
        return False
    sql = "UPDATE postroom_mail_lanes SET paused_until = 0 WHERE paused_until > ?"
    return database.write(lambda connection: connection.execute(sql, (moment,)).rowcount > 0)


def take_token(name: str, per_minute: int, now: float | None = None) -> float:
    """Take a mail's token from the lane's bucket; return 0, or how long it takes until there is one.

    The bucket holds the tokens of one second, but at least one: a minute's mails go out evenly.
    Units: seconds.
    """
    if not per_minute:
        return 0.0
    moment = clock() if now is None else now
    per_second = per_minute / 60

    def take(connection: sqlite3.Connection) -> float:
        row, most = _row(connection, name), max(1.0, per_second)
        # A clock that was set back refills nothing.
        passed_s = max(0.0, moment - row["refilled_at"])
        tokens = most if row["tokens"] is None else min(most, row["tokens"] + passed_s * per_second)
        wait_s = 0.0 if tokens > 1 - NEARLY else (1 - tokens) / per_second
        connection.execute(
            "UPDATE postroom_mail_lanes SET tokens = ?, refilled_at = ? WHERE name = ?",
            (tokens if wait_s else tokens - 1, moment, name),
        )
        return wait_s

    return database.write(take)


def _row(connection: sqlite3.Connection, name: str) -> sqlite3.Row:
    connection.execute("INSERT OR IGNORE INTO postroom_mail_lanes (name) VALUES (?)", (name,))
    row: sqlite3.Row = connection.execute(
        "SELECT * FROM postroom_mail_lanes WHERE name = ?", (name,)
    ).fetchone()
    return row
