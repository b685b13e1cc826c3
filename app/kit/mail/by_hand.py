"""What the operator does about a mail, and what he sees: its state, each try, the server's words."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from app.kit.database.file import database
from app.kit.errors import ConflictError, NotFoundError
from app.kit.mail import suppressions
from app.kit.mail.ledger import STATES, move
from app.kit.mail.replies import Reply
from app.kit.mail.tables import NOW, as_new

SHOWN = (
    "id, to_address, subject, template, state, policy, priority, list_name, dedup_key, message_id, job, tries,"
    " created_at, expires_at, sending_at, sent_at, answered_at, stage, code, enhanced, words"
)
MAX_FOUND = 100


def counts(states: Iterable[str] = STATES, up_to: int | None = None) -> dict[str, int]:
    """Count the mails in each state; none further than `up_to`, so that a long ledger costs no more than that."""
    sql = (
        "SELECT value AS state,"
        " (SELECT COUNT(*) FROM (SELECT 1 FROM postroom_emails WHERE state = value LIMIT ?)) AS n"
        " FROM json_each(?)"
    )
    rows = database.read(sql, (-1 if up_to is None else up_to, json.dumps(list(states))))
    return {row["state"]: row["n"] for row in rows}


def find(
    state: str | None = None, to: str | None = None, limit: int = MAX_FOUND, before_id: int | None = None
) -> list[dict[str, Any]]:
    """Return mails, newest first, each with its attempts; moments as the ledger writes them.

    `before_id` is the last id of the page before this one.
    """
    where = ["id < ?"]
    values: list[object] = [2**63 - 1 if before_id is None else before_id]
    for column, value in (("state", state), ("to_address", to)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    sql = f"SELECT {SHOWN} FROM postroom_emails WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"
    return [_with_attempts(row) for row in database.read(sql, (*values, limit))]


def details(email_id: int) -> dict[str, Any]:
    """Return one mail with its attempts.

    Raises: NotFoundError.
    """
    row = database.read_one(f"SELECT {SHOWN} FROM postroom_emails WHERE id = ?", (email_id,))
    if row is None:
        raise NotFoundError(f"There is no mail number {email_id}.")
    return _with_attempts(row)


def _with_attempts(row: sqlite3.Row) -> dict[str, Any]:
    sql = (
        "SELECT outcome, began_at, ended_at, stage, code, enhanced, words FROM postroom_email_attempts"
        " WHERE email_id = ? ORDER BY rowid"
    )
    return dict(row) | {"attempts": [dict(attempt) for attempt in database.read(sql, (row["id"],))]}


def mark_sent(email_id: int) -> None:
    """unknown -> sent: somebody looked, and it arrived.

    Raises: NotFoundError, ConflictError.
    """
    change = f"state = 'sent', sent_at = {NOW}"
    _move(email_id, change, ("unknown",), "the operator says that it arrived")


def cancel(email_id: int) -> None:
    """queued -> cancelled; unknown, if an earlier try may have sent it.

    Raises: NotFoundError, ConflictError.
    """
    change = (
        "state = CASE WHEN maybe_sent_at IS NULL THEN 'cancelled' ELSE 'unknown' END,"
        " sending_at = maybe_sent_at"
    )
    _move(email_id, change, ("queued",), "cancelled by the operator")


def send_again(email_id: int, job: str) -> float:
    """unknown, failed, suppressed, cancelled -> queued, for the job of that uuid; return its priority.

    An address held back since its server refused it gets another chance; who unsubscribed does not.
    Raises: NotFoundError, ConflictError.
    """
    with database.transaction() as connection:
        mail = details(email_id)
        if mail["message_id"] is None:
            raise ConflictError(f"Mail {email_id} cannot be sent: it could not be made ({mail['words']}).")
        suppressions.lift(mail["to_address"])
        reason = suppressions.reason_for(mail["to_address"], mail["list_name"])
        if reason is not None:
            raise ConflictError(f"Mail {email_id} is not sent: {mail['to_address']} {reason}.")
        states = ("unknown", "failed", "suppressed", "cancelled")
        _move(email_id, as_new(), states, "sent again by the operator")
        connection.execute("UPDATE postroom_emails SET job = ? WHERE id = ?", (job, email_id))
    return float(mail["priority"])


def _move(email_id: int, change: str, states: tuple[str, ...], words: str) -> None:
    tried = ("by hand", Reply("operator", None, "", words), None)
    if not database.write(lambda connection: move(connection, email_id, change, states, tried)):
        state = details(email_id)["state"]
        raise ConflictError(
            f"Mail {email_id} is {state}; this can only be done to one that is {_or(states)}."
        )


def _or(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
