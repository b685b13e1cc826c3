"""Addresses that get no mail: none of one mailing list (unsubscribed), or none at all (no such mailbox)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from app.kit.database.file import database
from app.kit.mail.addresses import wire_address

EVERYTHING = ""


@dataclass(frozen=True)
class Suppression:
    """An address that gets no mail of a list, or none at all (`list_name` is empty)."""

    address: str
    list_name: str
    reason: str
    created_at: datetime


def add(address: str, reason: str, list_name: str = EVERYTHING) -> None:
    """Send nothing to an address any more: of one list, or at all; the first reason stays."""
    values = (wire_address(address), list_name, reason)
    sql = "INSERT OR IGNORE INTO postroom_suppressions (address, list_name, reason) VALUES (?, ?, ?)"
    database.write(lambda connection: connection.execute(sql, values))


def lift(address: str, list_name: str = EVERYTHING, reason: str | None = None) -> bool:
    """Let mail go to an address again (if that was the reason); False when nothing held it back."""
    sql = (
        "DELETE FROM postroom_suppressions"
        " WHERE address = ?1 AND list_name = ?2 AND reason = COALESCE(?3, reason)"
    )
    values = (wire_address(address), list_name, reason)
    return database.write(lambda connection: connection.execute(sql, values).rowcount == 1)


def reason_for(address: str, list_name: str = EVERYTHING) -> str | None:
    """Return why no mail (of that list) goes to an address as it stands in the ledger, or None if it may."""
    row = database.read_one(
        "SELECT reason FROM postroom_suppressions WHERE address = ? AND list_name IN ('', ?)",
        (address, list_name),
    )
    return row["reason"] if row else None


def find(limit: int = 100) -> list[Suppression]:
    """Return the newest suppressions."""
    rows = database.read("SELECT * FROM postroom_suppressions ORDER BY created_at DESC LIMIT ?", (limit,))
    return [
        Suppression(
            row["address"], row["list_name"], row["reason"], datetime.fromisoformat(row["created_at"])
        )
        for row in rows
    ]
