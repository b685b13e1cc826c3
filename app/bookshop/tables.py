"""The catalogue's tables, its search index and the books it starts with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.kit.database.setup import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database as Tables

MAX_TEXT = 200
NOW = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"

GENRES = ("Cookery", "Mystery", "Poetry", "Science fiction", "Travel")
FIRST_BOOKS = (
    ("Soup for the Night Shift", "Bruno Okafor", "Cookery"),
    ("The Undelivered Parcel of Pell Street", "Ines Marlow", "Mystery"),
    ("By Milk Train to the Salt Coast", "Hanne Fisk", "Travel"),
    ("Dead Letters from Ganymede Post", "Oskar Vane", "Science fiction"),
    ("Postcards to a Thunderstorm", "Lune Abara", "Poetry"),
    ("Nine Stamps and a Lie", "Tobias Wren", "Mystery"),
    ("Bread That Waits Its Turn", "Bruno Okafor", "Cookery"),
    ("The Slow Mail to Proxima", "Priya Sandoval", "Science fiction"),
    ("A Suitcase Full of Timetables", "Hanne Fisk", "Travel"),
    ("Forty Ways to Fold a Page", "Lune Abara", "Poetry"),
    ("The Sorting Clerk's Alibi", "Ines Marlow", "Mystery"),
    ("Retry, Said the Moon", "Oskar Vane", "Science fiction"),
)

migrations = Migrations("catalogue")


@migrations()
def create_books(db: Tables) -> None:
    """Create genres, books and the index their search uses."""
    db.execute(
        "CREATE TABLE genres (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE) STRICT"
    )
    db.execute(
        f"""
        CREATE TABLE books (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            title TEXT NOT NULL CHECK (length(title) BETWEEN 1 AND {MAX_TEXT}),
            author TEXT NOT NULL CHECK (length(author) BETWEEN 1 AND {MAX_TEXT}),
            genre_id INTEGER NOT NULL REFERENCES genres (id),
            added_at TEXT NOT NULL DEFAULT ({NOW})
        ) STRICT"""
    )
    db.execute("CREATE INDEX books_by_genre ON books (genre_id)")
    db.execute(
        "CREATE VIRTUAL TABLE books_search USING fts5(title, author, "
        "content = 'books', content_rowid = 'id', prefix = '1 2 3', "
        "tokenize = 'unicode61 remove_diacritics 2')"
    )
    add = "INSERT INTO books_search (rowid, title, author) VALUES (new.id, new.title, new.author);"
    remove = (
        "INSERT INTO books_search (books_search, rowid, title, author) "
        "VALUES ('delete', old.id, old.title, old.author);"
    )
    db.execute(f"CREATE TRIGGER books_added AFTER INSERT ON books BEGIN {add} END")
    db.execute(f"CREATE TRIGGER books_removed AFTER DELETE ON books BEGIN {remove} END")
    db.execute(f"CREATE TRIGGER books_changed AFTER UPDATE ON books BEGIN {remove} {add} END")


@migrations()
def create_subscriptions(db: Tables) -> None:
    """Create the readers' subscriptions; capital letters make no second reader."""
    db.execute(
        f"""
        CREATE TABLE subscriptions (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            email TEXT NOT NULL COLLATE NOCASE CHECK (email LIKE '%_@_%'),
            genre_id INTEGER NOT NULL REFERENCES genres (id),
            subscribed_at TEXT NOT NULL DEFAULT ({NOW}),
            UNIQUE (email, genre_id)
        ) STRICT"""
    )
    db.execute("CREATE INDEX subscriptions_by_genre ON subscriptions (genre_id)")


@migrations()
def add_first_books(db: Tables) -> None:
    """Put a few invented books on the shelf, so that the first page is not empty."""
    for name in GENRES:
        db.execute("INSERT INTO genres (name) VALUES (?)", (name,))
    for title, author, genre in FIRST_BOOKS:
        db.execute(
            "INSERT INTO books (title, author, genre_id) SELECT ?, ?, id FROM genres WHERE name = ?",
            (title, author, genre),
        )


@migrations()
def create_sales(db: Tables) -> None:
    """Create the sales: beside the books, so that counting one does not renew its book's place in the search."""
    db.execute(
        "CREATE TABLE sales (book_id INTEGER PRIMARY KEY REFERENCES books (id), count INTEGER NOT NULL) STRICT"
    )


@migrations()
def add_confirmations(db: Tables) -> None:
    """Let a subscription count only once it is confirmed by mail, and keep its row when it ends."""
    for column in (
        "state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'confirmed', 'unsubscribed'))",
        "asked_at TEXT",  # when the mail left that asks to confirm it
        "confirmed_at TEXT CHECK (state <> 'confirmed' OR confirmed_at IS NOT NULL)",
        "unsubscribed_at TEXT CHECK (state <> 'unsubscribed' OR unsubscribed_at IS NOT NULL)",
    ):
        db.execute(f"ALTER TABLE subscriptions ADD COLUMN {column}")
    # Nobody could confirm anything before: who was subscribed is not to be lost by an update of the site.
    db.execute("UPDATE subscriptions SET state = 'confirmed', confirmed_at = subscribed_at")


@migrations()
def index_unanswered(db: Tables) -> None:
    """Find those who were asked lately and have not answered, however many readers there are."""
    db.execute("CREATE INDEX subscriptions_unanswered ON subscriptions (asked_at) WHERE state = 'pending'")
