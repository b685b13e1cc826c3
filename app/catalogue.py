"""Books, genres and who wants to hear of which: the demo's own data. Owns their tables and their search."""

from __future__ import annotations

import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from email_validator import EmailNotValidError, validate_email

from app.catalogue_tables import MAX_TEXT
from app.catalogue_tables import migrations as migrations
from app.database import database
from app.errors import InvalidInputError, NotFoundError

MAX_SEARCH = 200
MAX_ID = 2**63 - 1

UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories that break a line, a mail header or UTF-8 itself."""


@dataclass(frozen=True)
class Book:
    """One book of the catalogue."""

    id: int
    title: str
    author: str
    genre: str
    added_at: datetime


@dataclass(frozen=True)
class Subscription:
    """One reader's wish to hear of every new book of one genre."""

    id: int
    email: str
    genre: str
    subscribed_at: datetime


def genres() -> list[str]:
    """List the genres by name."""
    return [row["name"] for row in database.read("SELECT name FROM genres ORDER BY name")]


def add_book(title: str, author: str, genre: str) -> Book:
    """Add a book to the catalogue.

    Raises: InvalidInputError naming the field.
    """
    title, author = _one_line(title, "title"), _one_line(author, "author")
    genre_id, genre = _genre(genre)
    row = _insert(
        "INSERT INTO books (title, author, genre_id) VALUES (?, ?, ?) RETURNING *", title, author, genre_id
    )
    return Book(row["id"], title, author, genre, datetime.fromisoformat(row["added_at"]))


def book(book_id: int) -> Book:
    """Return one book.

    Raises: NotFoundError.
    """
    found = _select_books("books.id = :id", {"id": book_id}) if 0 < book_id <= MAX_ID else []
    if not found:
        raise NotFoundError(f"There is no book number {book_id}.")
    return found[0]


def find_books(q: str = "", genre: str = "", limit: int = 50, before: int | None = None) -> list[Book]:
    """Return books, newest first: those whose title or author has words that begin like the words of `q`.

    `before` is the id of the last book of the page before this one.
    """
    where = ["books.id < :before"]
    values: dict[str, Any] = {"before": before or MAX_ID, "limit": limit}
    if genre:
        where.append("genres.name = :genre")
        values["genre"] = _encodable(genre)
    if q.strip():
        where.append("books.id IN (SELECT rowid FROM books_search WHERE books_search MATCH :match)")
        values["match"] = _match_all_words(q)
    return _select_books(" AND ".join(where) + " ORDER BY books.id DESC LIMIT :limit", values)


def subscribe(email: str, genre: str) -> Subscription:
    """Subscribe a reader to a genre; who is subscribed already stays so, unchanged.

    Raises: InvalidInputError naming the field.
    """
    address = _address(email)
    genre_id, genre = _genre(genre)
    # Nothing to update, but a row that stands already is returned only if it is touched.
    row = _insert(
        "INSERT INTO subscriptions (email, genre_id) VALUES (?, ?) "
        "ON CONFLICT (email, genre_id) DO UPDATE SET email = email RETURNING *",
        address, genre_id,
    )  # fmt: skip
    return Subscription(row["id"], row["email"], genre, datetime.fromisoformat(row["subscribed_at"]))


def subscribers(genre: str, after_id: int = 0, limit: int = 1000) -> list[Subscription]:
    """Return the subscriptions to a genre, oldest first.

    `after_id` is the id of the last subscription of the page before this one.
    """
    rows = database.read(
        "SELECT subscriptions.*, genres.name AS genre FROM subscriptions JOIN genres ON genres.id = genre_id "
        "WHERE genres.name = ? AND subscriptions.id > ? ORDER BY subscriptions.id LIMIT ?",
        (genre, after_id, limit),
    )
    return [
        Subscription(row["id"], row["email"], row["genre"], datetime.fromisoformat(row["subscribed_at"]))
        for row in rows
    ]


def subscriber_count(genre: str) -> int:
    """Count the readers who are subscribed to a genre."""
    row = database.read_one(
        "SELECT count(*) FROM subscriptions WHERE genre_id = (SELECT id FROM genres WHERE name = ?)", (genre,)
    )
    return int(row[0]) if row else 0


def count_sales(book_ids: Iterable[int]) -> None:
    """Count sales, all in one transaction, or none when one of the books is unknown.

    Raises: NotFoundError.
    """
    with database.transaction() as connection:
        for book_id, sold in Counter(book_ids).items():
            counted = connection.execute(
                "INSERT INTO sales SELECT id, ? FROM books WHERE id = ? "
                "ON CONFLICT (book_id) DO UPDATE SET count = count + excluded.count",
                (sold, book_id),
            )
            if counted.rowcount == 0:
                raise NotFoundError(f"There is no book number {book_id}.")


def best_sellers(limit: int = 5) -> list[tuple[Book, int]]:
    """Return the books that sell best, each with its sales."""
    rows = database.read("SELECT book_id, count FROM sales ORDER BY count DESC, book_id LIMIT ?", (limit,))
    return [(book(row["book_id"]), row["count"]) for row in rows]


# What may come in


def _one_line(text: str, field: str) -> str:
    text = text.strip()
    if not text:
        raise InvalidInputError(f"The {field} is missing.", field)
    if len(text) > MAX_TEXT:
        raise InvalidInputError(f"The {field} has {len(text)} characters; at most {MAX_TEXT} fit.", field)
    if any(unicodedata.category(character) in UNPRINTABLE for character in text):
        raise InvalidInputError(f"The {field} must be one line of plain text.", field)
    return text


def _address(email: str) -> str:
    email = email.strip()
    if not email:
        raise InvalidInputError("The email address is missing.", "email")
    try:
        checked = validate_email(email, check_deliverability=False)
    except EmailNotValidError as error:
        raise InvalidInputError(f"This email address cannot be used: {error}", "email") from error
    if checked.ascii_email is None:
        raise InvalidInputError("The part before the @ must be plain letters, digits and signs.", "email")
    return checked.normalized


def _genre(name: str) -> tuple[int, str]:
    row = database.read_one("SELECT id, name FROM genres WHERE name = ?", (_encodable(name.strip()),))
    if row is None:
        raise InvalidInputError("Choose a genre: " + ", ".join(genres()) + ".", "genre")
    return row["id"], row["name"]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _match_all_words(q: str) -> str:
    # Each word is quoted, so that none can be an operator of FTS5's query language.
    # Source: sqlite.org/fts5.html#full_text_query_syntax
    words = _encodable(q[:MAX_SEARCH]).replace('"', " ").replace("\0", " ").split()
    return " ".join(f'"{word}"*' for word in words) or '""'


# Rows


def _insert(sql: str, *values: Any) -> sqlite3.Row:
    row: sqlite3.Row = database.write(lambda connection: connection.execute(sql, values).fetchone())
    return row


def _select_books(where: str, values: dict[str, Any]) -> list[Book]:
    rows = database.read(
        "SELECT books.id, title, author, genres.name AS genre, added_at "
        f"FROM books JOIN genres ON genres.id = genre_id WHERE {where}",
        values,
    )
    return [
        Book(row["id"], row["title"], row["author"], row["genre"], datetime.fromisoformat(row["added_at"]))
        for row in rows
    ]
