"""Who wants to hear of which genre, and who has said so by mail.

    (no row), unsubscribed -> pending       subscribe: anybody may ask it, in anybody's name
    pending                -> confirmed     confirm: whoever reads the address's mail says yes
    pending, confirmed     -> unsubscribed  unsubscribe
    pending                -> (no row)      forget_unconfirmed; if it was confirmed once -> unsubscribed

A row that was confirmed once stays for good: links in the mails that were sent for it name its id.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from app.bookshop.input import email_address, known_genre
from app.bookshop.tables import NOW
from app.kit.database.file import database
from app.kit.errors import NotFoundError
from app.kit.host.clock import clock

MAX_ID = 2**63 - 1

SELECT = (
    "SELECT subscriptions.*, genres.name AS genre FROM subscriptions JOIN genres ON genres.id = genre_id "
)


@dataclass(frozen=True)
class Subscription:
    """One reader's wish to hear of every new book of one genre.

    Its mails may go out once `state` is confirmed. `asked_at` is when the mail left that asks to confirm it.
    """

    id: int
    email: str
    genre: str
    state: Literal["pending", "confirmed", "unsubscribed"]
    subscribed_at: datetime
    asked_at: datetime | None


def subscribe(email: str, genre: str) -> Subscription:
    """Note that a reader is to be subscribed, once they confirm it; who has confirmed stays subscribed.

    Raises: InvalidInputError naming the field.
    """
    address = email_address(email)
    genre_id, _ = known_genre(genre)
    # Nothing may change, but a row that stands already is returned only if it is touched.
    sql = (
        "INSERT INTO subscriptions (email, genre_id, state) VALUES (?, ?, 'pending') "
        "ON CONFLICT (email, genre_id) DO UPDATE SET "
        "state = CASE state WHEN 'confirmed' THEN 'confirmed' ELSE 'pending' END RETURNING id"
    )
    row = database.write(lambda connection: connection.execute(sql, (address, genre_id)).fetchone())
    return subscription(row["id"])


def ask(subscription_id: int, again_after: timedelta) -> list[Subscription]:
    """Note that a mail now asks a reader to confirm; return what it asks about, nothing if none is to go.

    None goes while one is out: asked for less than `again_after` ago, and not answered yet. That mail's link
    confirms what was asked for later, too, so nobody can have an address mailed twice.
    """
    with database.transaction() as connection:
        asked = subscription(subscription_id)
        if asked.state != "pending":
            return []
        last: str | None = connection.execute(
            "SELECT max(asked_at) FROM subscriptions WHERE email = ? AND asked_at > coalesce(confirmed_at, '')",
            (asked.email,),
        ).fetchone()[0]
        now = clock.utc()
        must_ask = last is None or datetime.fromisoformat(last) <= now - again_after
        connection.execute(
            "UPDATE subscriptions SET asked_at = ? WHERE email = ? AND state = 'pending'",
            (_as_text(now) if must_ask else last, asked.email),
        )
        return subscriptions_of(asked.email, "pending") if must_ask else []


def unanswered(within: timedelta, like: str = "%") -> int:
    """Count the addresses that were asked to confirm within this time, and have not; `like` is a LIKE of SQL's."""
    row = database.read_one(
        "SELECT count(DISTINCT email) FROM subscriptions "
        "WHERE state = 'pending' AND asked_at > ? AND email LIKE ? ESCAPE '\\'",
        (_as_text(clock.utc() - within), like),
    )
    return int(row[0]) if row else 0


def confirm(subscription_id: int) -> list[Subscription]:
    """Confirm all that was asked for a reader's address; return what that changed.

    Raises: NotFoundError.
    """
    with database.transaction() as connection:
        email = subscription(subscription_id).email
        confirmed = connection.execute(
            f"UPDATE subscriptions SET state = 'confirmed', confirmed_at = {NOW} "
            "WHERE email = ? AND state = 'pending' RETURNING id",
            (email,),
        ).fetchall()
        return [subscription(row["id"]) for row in confirmed]


def unsubscribe(subscription_id: int) -> None:
    """End one subscription; one that has ended stays so."""
    sql = (
        f"UPDATE subscriptions SET state = 'unsubscribed', unsubscribed_at = {NOW} "
        "WHERE id = ? AND state <> 'unsubscribed'"
    )
    database.write(lambda connection: connection.execute(sql, (subscription_id,)).rowcount)


def forget_unconfirmed(before: datetime) -> int:
    """Forget what nobody confirmed since `before`; return how many that were."""
    old = "state = 'pending' AND coalesce(asked_at, subscribed_at) < ?"
    with database.transaction() as connection:
        # Who was subscribed once is so again after yes only, but the links in old mails stay good.
        kept = connection.execute(
            f"UPDATE subscriptions SET state = 'unsubscribed' WHERE {old} AND confirmed_at IS NOT NULL",
            (_as_text(before),),
        )
        gone = connection.execute(f"DELETE FROM subscriptions WHERE {old}", (_as_text(before),))
        return kept.rowcount + gone.rowcount


def subscription(subscription_id: int) -> Subscription:
    """Return one subscription, in whatever state.

    Raises: NotFoundError.
    """
    row = database.read_one(SELECT + "WHERE subscriptions.id = ?", (min(subscription_id, MAX_ID),))
    if row is None:
        raise NotFoundError(f"There is no subscription number {subscription_id}.")
    return _as_subscription(row)


def subscriptions_of(email: str, *states: str) -> list[Subscription]:
    """Return the subscriptions of an address that are in one of these states, by genre."""
    marks = ", ".join("?" for _ in states)
    rows = database.read(SELECT + f"WHERE email = ? AND state IN ({marks}) ORDER BY genre", (email, *states))
    return [_as_subscription(row) for row in rows]


def subscribers(genre: str, after_id: int = 0, limit: int = 1000) -> list[Subscription]:
    """Return the confirmed subscriptions to a genre, oldest first.

    `after_id` is the id of the last subscription of the page before this one.
    """
    where = "WHERE genres.name = ? AND state = 'confirmed' AND subscriptions.id > ? "
    rows = database.read(SELECT + where + "ORDER BY subscriptions.id LIMIT ?", (genre, after_id, limit))
    return [_as_subscription(row) for row in rows]


def subscriber_count(genre: str) -> int:
    """Count the readers whose subscription to a genre is confirmed."""
    row = database.read_one(
        "SELECT count(*) FROM subscriptions "
        "WHERE genre_id = (SELECT id FROM genres WHERE name = ?) AND state = 'confirmed'",
        (genre,),
    )
    return int(row[0]) if row else 0


def _as_subscription(row: sqlite3.Row) -> Subscription:
    return Subscription(
        id=row["id"],
        email=row["email"],
        genre=row["genre"],
        state=row["state"],
        subscribed_at=datetime.fromisoformat(row["subscribed_at"]),
        asked_at=datetime.fromisoformat(row["asked_at"]) if row["asked_at"] else None,
    )


def _as_text(moment: datetime) -> str:
    """Write a moment as SQLite's NOW does, so that the two compare."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
