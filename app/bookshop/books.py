"""Books, genres and who wants to hear of which: the demo's own data. Owns their tables and their search."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.bookshop.input import (
    email_address as email_address,
    encodable,
    genres as genres,
    known_genre,
    one_line,
)
from app.bookshop.subscriptions import (
    Subscription as Subscription,
    ask as ask,
    confirm as confirm,
    forget_unconfirmed as forget_unconfirmed,
    subscribe as subscribe,
    subscriber_count as subscriber_count,
    subscribers as subscribers,
    subscription as subscription,
    subscriptions_of as subscriptions_of,
    unanswered as unanswered,
    unsubscribe as unsubscribe,
)
from app.bookshop.tables import migrations as migrations
from app.kit.database.file import database
from app.kit.errors import NotFoundError

MAX_SEARCH = 200
MAX_SEARCH_TERMS = 8
"""Words that are looked for, each once: among 100 000 books each costs milliseconds. The rest is passed over."""
MAX_ID = 2**63 - 1


@dataclass(frozen=True)
class Book:
    """One book of the catalogue."""

    id: int
    title: str
    author: str
    genre: str
    added_at: datetime


def add_book(title: str, author: str, genre: str) -> Book:
    """Add a book to the catalogue.

    Raises: InvalidInputError naming the field.
    """
    title, author = one_line(title, "title"), one_line(author, "author")
    genre_id, genre = known_genre(genre)
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
        values["genre"] = encodable(genre)
    if q.strip():
        where.append("books.id IN (SELECT rowid FROM books_search WHERE books_search MATCH :match)")
        values["match"] = _match_all_words(q)
    return _select_books(" AND ".join(where) + " ORDER BY books.id DESC LIMIT :limit", values)


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


def _match_all_words(q: str) -> str:
    # Each word is quoted, so that none can be an operator of FTS5's query language.
    # Source: sqlite.org/fts5.html#full_text_query_syntax
    words, room = [], MAX_SEARCH_TERMS
    for word in dict.fromkeys(unicodedata.normalize("NFC", encodable(q[:MAX_SEARCH])).lower().split()):
        terms = re.findall(r"[^\W_]+", word)[:room]  # "nine-stamps" is a phrase of two
        room -= len(terms)
        if terms:
            words.append(f'"{" ".join(terms)}"*')
    return " ".join(words) or '""'


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
