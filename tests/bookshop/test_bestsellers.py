"""Sales: counted by a batch task, listed on the first page."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import tasks
from app.bookshop import books as catalogue
from app.kit.engine.jobs import job as jobs
from app.kit.errors import NotFoundError
from tasks.bookshop import record_sale


@pytest.fixture
def close_the_batch(app: Flask, run_jobs: Callable[[], None]) -> Callable[[], None]:
    """A function that lets the time of the batch come and runs it."""

    def close() -> None:
        later = tasks.huey.now() + 5
        app.extensions["database"].write(lambda connection: jobs.promote(connection, later))
        run_jobs()

    return close


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The lists that `count_sales` was called with."""
    lists: list[Any] = []
    count_sales = catalogue.count_sales
    monkeypatch.setattr(catalogue, "count_sales", lambda ids: (lists.append(ids), count_sales(ids)))
    return lists


def sales() -> list[tuple[int, int]]:
    return [(book.id, sold) for book, sold in catalogue.best_sellers()]


def test_sales_are_counted_together_and_best_first(
    app: Flask, close_the_batch: Callable[[], None], calls: list[Any]
) -> None:
    for book_id in (3, 1, 3, 2, 3, 2):
        record_sale(book_id)
    assert sales() == []
    close_the_batch()
    assert sales() == [(3, 3), (2, 2), (1, 1)]
    assert calls == [[3, 1, 3, 2, 3, 2]]


def test_a_sale_of_an_unknown_book_fails_alone(app: Flask, close_the_batch: Callable[[], None]) -> None:
    record_sale(1)
    unknown = record_sale(999)
    record_sale(1)
    close_the_batch()
    assert sales() == [(1, 2)]
    assert tasks.huey.job(unknown.id)["error"]["type"] == "NotFoundError"


def test_sales_are_counted_all_or_none(app: Flask) -> None:
    with pytest.raises(NotFoundError, match="number 999"):
        catalogue.count_sales([1, 2, 999])
    assert sales() == []


def test_as_many_best_sellers_are_named_as_are_asked_for(app: Flask) -> None:
    catalogue.count_sales([1, 2, 2, 3, 4, 5, 6])
    assert [book.id for book, _ in catalogue.best_sellers(2)] == [2, 1]
    assert len(catalogue.best_sellers()) == 5


def test_a_sale_is_accepted_and_names_its_job(app: Flask, client: FlaskClient) -> None:
    response = client.post("/api/books/1/sales")
    assert response.status_code == 202
    assert client.get(response.json["job"]["url"]).json["task"] == "tasks.bookshop.record_sale"


@pytest.mark.parametrize("book_id", [0, 999, 2**70])
def test_a_sale_of_a_book_that_does_not_exist_is_refused(client: FlaskClient, book_id: int) -> None:
    response = client.post(f"/api/books/{book_id}/sales")
    assert (response.status_code, response.json["error"]["code"]) == (404, "not_found")


def test_the_first_page_lists_best_sellers_once_there_are_sales(app: Flask, client: FlaskClient) -> None:
    assert "Nothing is sold yet" in client.get("/").text
    catalogue.count_sales([12, 12])
    page = html.unescape(client.get("/").text)
    assert "Nothing is sold yet" not in page
    assert "Retry, Said the Moon <span" in page
    assert "(2 sold)" in page
