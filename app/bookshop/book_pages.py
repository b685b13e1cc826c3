"""The first page (books, search, forms, best sellers) and the same as JSON."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from uuid import UUID

import flask
from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from app.bookshop import books as catalogue
from app.bookshop.books import Book
from app.kit.database.file import database
from app.kit.desk import jobs
from app.kit.engine.wiring import huey
from app.kit.errors import InvalidInputError, NotFoundError
from app.kit.web.front_door import anybody_may_change, is_operator, operator_unless_trying_out
from app.kit.web.json_in import json_object, number_in_query, text
from app.kit.web.rate_limits import limit_changing_books
from tasks.bookshop import COUNTED_EVERY_S, alert_subscribers, record_sale

PAGE_LENGTH = 50
MADE_UP_READERS = 300

bp = Blueprint("books", __name__)


# Pages


@bp.get("/")
def index() -> str:
    """Show the books, the search and the forms."""
    return page(notice=_notice())


@bp.post("/books")
@operator_unless_trying_out
@limit_changing_books
def add_book() -> Response | tuple[str, int]:
    """Add a book from the form; a refused form comes back as it was typed."""
    try:
        book, job_id = _add_book(*(request.form.get(name, "") for name in ("title", "author", "genre")))
    except InvalidInputError as error:
        return page(book_error=error), HTTPStatus.BAD_REQUEST
    return redirect(url_for("bookshop.books.index", added=book.id, job=job_id), HTTPStatus.SEE_OTHER)


@bp.post("/books/<int:book_id>/sales")
@operator_unless_trying_out
@limit_changing_books
def sell(book_id: int) -> Response:
    """Sell a book; the best sellers on the page count it within seconds."""
    job_id = record_sale(catalogue.book(book_id).id).id
    return redirect(
        url_for("bookshop.books.index", sold=job_id, _anchor="best-sellers"), HTTPStatus.SEE_OTHER
    )


@bp.get("/best-sellers/live")
def best_sellers_live() -> flask.Response:
    """Answer with the list of best sellers once the sale that is ?sold= has been counted, or 204 after a while."""
    sale = _job_in_query("sold")
    if sale is None:
        raise NotFoundError("There is no such sale; jobs that ended are forgotten after a while.")
    return jobs.answer_with_news(
        sale["id"],
        lambda: jobs.has_ended(sale["id"]),
        lambda: render_template("best_sellers.html", **_best_sellers_facts()),
    )


@bp.post("/made-up-readers")
@operator_unless_trying_out
@limit_changing_books
def add_made_up_readers() -> Response | tuple[str, int]:
    """Subscribe readers who do not exist, so that a mailing takes long enough to be watched."""
    genre = request.form.get("genre", "")
    try:
        with database.transaction():
            for number in range(1, MADE_UP_READERS + 1):
                # Nobody can ever have an address of example.com. Source: RFC 2606
                asked = catalogue.subscribe(f"reader{number}@example.com", genre)
                catalogue.confirm(asked.id)
    except InvalidInputError as error:
        return page(subscription_error=error), HTTPStatus.BAD_REQUEST
    return redirect(url_for("bookshop.books.index", filled=genre), HTTPStatus.SEE_OTHER)


# JSON


@bp.get("/api/books")
def find_books_as_json() -> dict[str, list[Book]]:
    """Answer with the books that match ?q= and ?genre=, newest first."""
    return {"books": _find_books(PAGE_LENGTH)}


@bp.post("/api/books")
@operator_unless_trying_out
@limit_changing_books
def add_book_as_json() -> tuple[dict[str, Any], int]:
    """Add a book; the answer names the job that tells its genre's subscribers."""
    body = json_object()
    book, job_id = _add_book(text(body, "title"), text(body, "author"), text(body, "genre"))
    job = {"id": job_id, "url": url_for("jobs.job_as_json", uuid=job_id)}
    return {"book": book, "job": job}, HTTPStatus.CREATED


@bp.post("/api/books/<int:book_id>/sales")
@operator_unless_trying_out
@limit_changing_books
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
        notice=notice,
        may_change=_may_change(),
        made_up_readers=MADE_UP_READERS,
        book_error=book_error,
        subscription_error=subscription_error,
        **_best_sellers_facts(),
    )


def _may_change() -> bool:
    return anybody_may_change() or is_operator()


def _best_sellers_facts() -> dict[str, Any]:
    sale = _job_in_query("sold")
    waits = sale is not None and sale["state"] not in jobs.ENDED
    return {
        "best_sellers": catalogue.best_sellers(),
        "counted_every_s": COUNTED_EVERY_S,
        "sale": sale,
        "sale_live_url": url_for("bookshop.books.best_sellers_live", sold=sale["id"])
        if sale and waits
        else None,
    }


def _notice() -> dict[str, Any] | None:
    """Say what the form before this page did, from the address: no cookie is needed for it."""
    # Only genres, books and jobs that exist are shown: a link can put no words on the page.
    if (genre := request.args.get("subscribed", "")) in catalogue.genres():
        return {"subscribed": genre}
    if not _may_change():
        return None  # how many readers there are is told to those who may write to them
    if (genre := request.args.get("filled", "")) in catalogue.genres():
        return {"filled": genre, "count": catalogue.subscriber_count(genre)}
    added = request.args.get("added", type=int)
    if not added:
        return None
    try:
        book = catalogue.book(added)
    except NotFoundError:
        return None
    job = _job_in_query("job")
    facts = jobs.facts(job["id"], "summary") if job else {"job": None}
    return {"book": book, "readers": catalogue.subscriber_count(book.genre)} | facts


def _job_in_query(name: str) -> dict[str, Any] | None:
    uuid = request.args.get(name, type=UUID)
    return None if uuid is None else huey.job(str(uuid))
