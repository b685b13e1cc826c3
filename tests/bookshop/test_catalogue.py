"""Books and genres: what may come in, what is found again."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from app.bookshop import books as catalogue
from app.kit.database.file import database
from app.kit.errors import InvalidInputError, NotFoundError

pytestmark = pytest.mark.usefixtures("app")


def titles(**search):
    return [book.title for book in catalogue.find_books(**search)]


def test_the_shelf_is_not_empty_at_first():
    assert len(catalogue.find_books()) == 12
    assert catalogue.genres() == ["Cookery", "Mystery", "Poetry", "Science fiction", "Travel"]


def test_a_book_that_was_added_is_found_under_its_id():
    added = catalogue.add_book("  A Parrot at the Counter ", "Cleo Finch", "mystery")
    assert catalogue.book(added.id) == added
    assert (added.title, added.genre) == ("A Parrot at the Counter", "Mystery")


def test_a_book_knows_when_it_was_added():
    added_at = catalogue.add_book("A Parrot at the Counter", "Cleo Finch", "Mystery").added_at
    assert added_at.tzinfo == UTC
    assert abs(datetime.now(UTC) - added_at) < timedelta(minutes=1)


@pytest.mark.parametrize("book_id", [0, -1, 999, 2**63, 10**30])
def test_an_unknown_book_is_refused_by_name(book_id):
    with pytest.raises(NotFoundError, match="no book number"):
        catalogue.book(book_id)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (("", "Cleo Finch", "Mystery"), "title"),
        ((" \t ", "Cleo Finch", "Mystery"), "title"),
        (("x" * 201, "Cleo Finch", "Mystery"), "title"),
        (("Two\nlines", "Cleo Finch", "Mystery"), "title"),
        (("Nul\0", "Cleo Finch", "Mystery"), "title"),
        (("Half a character \ud800", "Cleo Finch", "Mystery"), "title"),
        (("A line\u2028separator", "Cleo Finch", "Mystery"), "title"),
        (("A Parrot at the Counter", "", "Mystery"), "author"),
        (("A Parrot at the Counter", "x" * 201, "Mystery"), "author"),
        (("A Parrot at the Counter", "Cleo Finch", ""), "genre"),
        (("A Parrot at the Counter", "Cleo Finch", "Gardening"), "genre"),
        (("A Parrot at the Counter", "Cleo Finch", "\ud800"), "genre"),
    ],
)
def test_a_book_is_refused_with_the_name_of_the_field(values, field):
    with pytest.raises(InvalidInputError) as refused:
        catalogue.add_book(*values)
    assert refused.value.field == field
    assert len(catalogue.find_books()) == 12


@pytest.mark.parametrize("title", ["x", "x" * 200, "東京の郵便局", "Ünï ☕ 📚", "O'Hara; DROP TABLE books--"])
def test_a_title_may_be_any_line_of_text(title):
    assert catalogue.add_book(title, "Cleo Finch", "Mystery").title == title
    assert titles()[0] == title


def test_books_come_newest_first_and_page_by_page():
    everything = catalogue.find_books()
    assert [book.id for book in everything] == sorted((book.id for book in everything), reverse=True)
    first = catalogue.find_books(limit=5)
    assert first + catalogue.find_books(limit=50, before=first[-1].id) == everything


@pytest.mark.parametrize(
    "q", ["parcel", "PARCEL", "parc", "pell parcel", "ines pell", "  marlow   undelivered "]
)
def test_a_search_finds_words_of_title_and_author_by_their_beginnings(q):
    assert "The Undelivered Parcel of Pell Street" in titles(q=q)


@pytest.mark.parametrize("q", ["arcel", "parcel moon", "cookery", '"', "*", "-", "'", "()", "\0", '" OR "'])
def test_a_search_that_fits_nothing_finds_nothing(q):
    assert titles(q=q) == []


@pytest.mark.parametrize(
    "q",
    [
        "AND", "OR NOT", "NEAR(a b)", "title:moon", "^moon", "moon*", "*moon", '"moon', 'mo"on', "moon\0",
        "{a b}:c", "\ud800", "𝔪", "a\u0301", "%", "_", "\\", ";", "moon " * 500, "x" * 100_000,
    ],
)  # fmt: skip
def test_a_search_takes_anything_anybody_types(q):
    assert isinstance(titles(q=q), list)


def test_a_search_does_not_mind_accents():
    catalogue.add_book("Café Orléans", "Cleo Finch", "Cookery")
    assert titles(q="cafe orleans") == titles(q="CAFÉ") == ["Café Orléans"]


def test_a_search_can_be_held_to_one_genre():
    assert titles(q="a", genre="mystery") == ["The Sorting Clerk's Alibi", "Nine Stamps and a Lie"]
    assert titles(genre="Gardening") == []


def test_the_search_follows_when_a_book_changes_or_goes():
    database.write(
        lambda connection: connection.execute("UPDATE books SET title = 'Gone' WHERE id = 1").rowcount
    )
    assert (titles(q="soup"), titles(q="gone")) == ([], ["Gone"])
    database.write(lambda connection: connection.execute("DELETE FROM books WHERE id = 1").rowcount)
    assert titles(q="gone") == []


def test_the_database_itself_refuses_a_book_of_no_genre():
    with pytest.raises(sqlite3.IntegrityError):
        database.write(
            lambda c: c.execute("INSERT INTO books (title, author, genre_id) VALUES ('a', 'b', 99)")
        )


def test_a_book_of_a_transaction_that_fails_was_never_added():
    def add_and_fail():
        with database.transaction():
            catalogue.add_book("A Parrot at the Counter", "Cleo Finch", "Mystery")
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError):
        add_and_fail()
    assert titles(q="parrot") == []


def test_search_looks_for_each_word_once_and_for_a_few_of_many() -> None:
    assert titles(q="slow " * 39 + "mail") == ["The Slow Mail to Proxima"]
    assert titles(q="the slow mail to proxima s m p but not this") == ["The Slow Mail to Proxima"]
    assert titles(q="milk-train") == ["By Milk Train to the Salt Coast"]
    assert titles(q="train-milk") == []
    assert len(catalogue._match_all_words("a.b.c.d.e.f.g.h.i.j.k")) < 25
