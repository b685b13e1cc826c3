"""Books and subscriptions as JSON, and the one shape of every error under /api."""

from __future__ import annotations

import re

import pytest

from app.bookshop import books as catalogue
from app.kit.errors import QueueFullError

BOOK = {"title": "A Parrot at the Counter", "author": "Cleo Finch", "genre": "Mystery"}
READER = {"email": "cleo@example.com", "genre": "Mystery"}


def error_of(response):
    assert response.mimetype == "application/json"
    assert list(response.json) == ["error"]
    return response.json["error"]


def test_adding_a_book_answers_with_the_book_and_its_job(client):
    response = client.post("/api/books", json=BOOK)
    assert response.status_code == 201
    book, job = response.json["book"], response.json["job"]
    assert {name: book[name] for name in BOOK} == BOOK
    assert job["url"] == f"/api/jobs/{job['id']}"
    assert client.get(job["url"]).json["id"] == job["id"]


def test_moments_are_written_in_iso_8601_with_z(client):
    book = client.post("/api/books", json=BOOK).json["book"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", book["added_at"])


def test_books_are_found_by_word_and_by_genre(client):
    books = client.get("/api/books", query_string={"q": "moon", "genre": "science fiction"}).json["books"]
    assert [book["title"] for book in books] == ["Retry, Said the Moon"]
    assert client.get("/api/books?q=*").json == {"books": []}


def test_subscribing_answers_with_what_was_sent_and_nothing_that_was_known(client, subscribe):
    answers = [client.post("/api/subscriptions", json=READER) for _ in range(2)]
    subscribe(**READER)
    answers.append(client.post("/api/subscriptions", json=READER))
    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert [answer.json for answer in answers] == [{"subscription": READER}] * 3
    shouted = client.post("/api/subscriptions", json={"email": "CLEO@EXAMPLE.com", "genre": "mystery"})
    assert shouted.json == {"subscription": {"email": "CLEO@example.com", "genre": "Mystery"}}


def test_fields_nobody_knows_do_not_matter(client):
    assert client.post("/api/books", json=BOOK | {"colour": "red", "id": 1}).status_code == 201


@pytest.mark.parametrize(
    "body", [b"", b"{", b"nonsense", b"\xff", b"[1]", b'"text"', b"null", b"[" * 100_000]
)
def test_a_body_that_is_no_json_object_is_refused(client, body):
    response = client.post("/api/books", data=body, content_type="application/json")
    assert response.status_code == 400
    assert error_of(response)["code"] == "invalid_input"


def test_a_body_that_does_not_claim_to_be_json_is_refused(client):
    response = client.post("/api/books", data=BOOK)
    assert response.status_code == 415
    assert "Content-Type: application/json" in error_of(response)["message"]


@pytest.mark.parametrize("value", [None, "", " ", 7, 1.5, True, [], {}, "x" * 201, "two\nlines", "\ud800"])
@pytest.mark.parametrize("field", ["title", "author", "genre"])
def test_a_wrong_field_of_a_book_is_named(client, field, value):
    response = client.post("/api/books", json=BOOK | {field: value})
    assert response.status_code == 400
    assert error_of(response)["field"] == field


@pytest.mark.parametrize("field", ["email", "genre"])
def test_a_missing_field_of_a_subscription_is_named(client, field):
    response = client.post(
        "/api/subscriptions", json={name: READER[name] for name in READER if name != field}
    )
    assert response.status_code == 400
    assert error_of(response) == {
        "code": "invalid_input", "message": f"The {field} is missing.", "field": field,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "address", "status", "code"),
    [
        ("GET", "/api/nowhere", 404, "not_found"),
        ("GET", "/api/", 404, "not_found"),
        ("GET", "/api/jobs/no-such-job", 404, "not_found"),
        ("DELETE", "/api/books", 405, "method_not_allowed"),
        ("POST", "/api/inbox", 405, "method_not_allowed"),
        ("GET", "/api/books?before=x", 400, "invalid_input"),
    ],
)
def test_every_error_has_the_one_shape(client, method, address, status, code):
    response = client.open(address, method=method)
    assert response.status_code == status
    assert error_of(response)["code"] == code


def test_a_body_that_is_too_large_is_refused(client):
    response = client.post("/api/books", json=BOOK | {"title": "x" * 2_000_000})
    assert response.status_code == 413
    assert error_of(response)["code"] == "request_entity_too_large"


def test_a_full_queue_keeps_neither_book_nor_job(client, monkeypatch):
    def full(_book_id):
        raise QueueFullError("100 jobs are pending, which is all that MAX_PENDING_JOBS allows.")

    monkeypatch.setattr("app.bookshop.book_pages.alert_subscribers", full)
    response = client.post("/api/books", json=BOOK)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert error_of(response)["code"] == "queue_full"
    assert catalogue.find_books(q="parrot") == []


def test_an_unexpected_error_tells_no_more_than_that(app, client, monkeypatch, caplog):
    def broken(*_args):
        raise RuntimeError("the secret is 42")

    app.config["PROPAGATE_EXCEPTIONS"] = False
    monkeypatch.setattr("app.bookshop.books.find_books", broken)
    response = client.get("/api/books")
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_server_error"
    assert "secret" not in response.get_data(as_text=True)
    assert "the secret is 42" in caplog.text
