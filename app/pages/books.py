"""The first page (books, search, two forms) and the same as JSON."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from uuid import UUID

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from app import catalogue
from app.catalogue import Book
from app.database import database
from app.errors import InvalidInputError, NotFoundError
from app.pages.json_in import json_object, number_in_query, text
from tasks.alerts import alert_subscribers
from tasks.bestsellers import record_sale

PAGE_LENGTH = 50

bp = Blueprint("books", __name__)


# Pages


@bp.get("/")
def index() -> str:
    """Show the books, the search and the two forms."""
    return page(notice=_notice())


@bp.post("/books")
def add_book() -> Response | tuple[str, int]:
    """Add a book from the form; a refused form comes back as it was typed."""
    try:
        book, job_id = _add_book(*(request.form.get(name, "") for name in ("title", "author", "genre")))
    except InvalidInputError as error:
        return page(book_error=error), HTTPStatus.BAD_REQUEST
    return redirect(url_for("books.index", added=book.id, job=job_id), HTTPStatus.SEE_OTHER)


# JSON


@bp.get("/api/books")
def find_books_as_json() -> dict[str, list[Book]]:
    """Answer with the books that match ?q= and ?genre=, newest first."""
    return {"books": _find_books(PAGE_LENGTH)}


@bp.post("/api/books")
def add_book_as_json() -> tuple[dict[str, Any], int]:
    """Add a book; the answer names the job that tells its genre's subscribers."""
    body = json_object()
    book, job_id = _add_book(text(body, "title"), text(body, "author"), text(body, "genre"))
    job = {"id": job_id, "url": url_for("jobs.job_as_json", uuid=job_id)}
    return {"book": book, "job": job}, HTTPStatus.CREATED


@bp.post("/api/books/<int:book_id>/sales")
def sell_as_json(book_id: int) -> tuple[dict[str, Any], int]:
    """Count a sale of a book, within seconds; the answer names the job that does."""
    job_id = record_sale(catalogue.book(book_id).id).id
    return {"job": {"id": job_id, "url": url_for("jobs.job_as_json", uuid=job_id)}}, HTTPStatus.ACCEPTED


# What both share


def _add_book(title: str, author: str, genre: str) -> tuple[Book, str]:
    # One transaction: the book and the job that tells of it are kept together, or neither is (promise P3).
    with database.transaction():
        book = catalogue.add_book(title, author, genre)
        job = alert_subscribers(book.id)
    return book, job.id


def _find_books(limit: int) -> list[Book]:
    before = number_in_query("before", 1, catalogue.MAX_ID, int)
    return catalogue.find_books(request.args.get("q", ""), request.args.get("genre", ""), limit, before)


def page(
    notice: dict[str, Any] | None = None,
    book_error: InvalidInputError | None = None,
    subscription_error: InvalidInputError | None = None,
) -> str:
    """Render the first page, with what became of one of its forms."""
    books = _find_books(PAGE_LENGTH + 1)
    return render_template(
        "books.html",
        books=books[:PAGE_LENGTH],
        is_more=len(books) > PAGE_LENGTH,
        genres=catalogue.genres(),
        best_sellers=catalogue.best_sellers(),
        notice=notice,
        book_error=book_error,
        subscription_error=subscription_error,
    )


def _notice() -> dict[str, Any] | None:
    """Say what the form before this page did, from the address: no cookie is needed for it."""
    # Only genres and books that exist are shown, and the id of a job: a link can put no words on the page.
    genre = request.args.get("subscribed", "")
    if genre in catalogue.genres():
        return {"subscribed": genre}
    added = request.args.get("added", type=int)
    if not added:
        return None
    try:
        book = catalogue.book(added)
    except NotFoundError:
        return None
    readers = catalogue.subscriber_count(book.genre)
    return {"book": book, "readers": readers, "job": request.args.get("job", type=UUID)}
