"""What the tries of a mail came to so far: how often the lane failed under it, how often nobody knew."""

from __future__ import annotations

from app.kit.database.file import database


def lane_tries(email_id: int) -> int:
    """Count the tries before the present one that ended, with this mail half given, as a fault of the lane."""
    sql = (
        "SELECT COUNT(*) FROM postroom_email_attempts WHERE email_id = ? AND outcome = 'lane'"
        " AND stage IN ('rcpt', 'data', 'dot', 'http')"
    )
    row = database.read_one(sql, (email_id,))
    return max(0, row[0] - 1) if row else 0


def unknown_tries(email_id: int) -> int:
    """Count the tries after which nobody knew whether the mail was sent."""
    sql = "SELECT COUNT(*) FROM postroom_email_attempts WHERE email_id = ? AND outcome = 'unknown'"
    row = database.read_one(sql, (email_id,))
    return int(row[0]) if row else 0


def last_state(to_address: str, template: str) -> str | None:
    """Return the state of the newest mail made of a template for an address as SMTP carries it."""
    sql = "SELECT state FROM postroom_emails WHERE to_address = ? AND template = ? ORDER BY id DESC LIMIT 1"
    row = database.read_one(sql, (to_address, template))
    return row["state"] if row else None
