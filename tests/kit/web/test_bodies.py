"""Bodies that are too long, break off, or come in pieces: refused before a page sees a part of them."""

from __future__ import annotations

import io
from typing import Any

import pytest

from app.bookshop import books as catalogue
from tests.kit.forms import Browser, hidden_fields


class Broken:
    """A body whose pieces are not in the format."""

    def read(self, size: int) -> bytes:
        raise RuntimeError("Invalid chunk size: b'zz'")


def post(client: Browser, body: bytes, length: int | None = None, **options: Any) -> Any:
    """Post a body to the API; `length` is what it says of itself."""
    environ = {"wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True}
    environ |= options.pop("environ", {})
    if length is not None:
        environ["CONTENT_LENGTH"] = str(length)
    return client.post("/api/books", environ_overrides=environ, content_type="application/json", **options)


BOOK = b'{"title": "A Parrot", "author": "Cleo Finch", "genre": "Mystery"}'


def test_a_body_in_pieces_is_read_like_any_other(client: Browser) -> None:
    assert post(client, BOOK, headers={"Transfer-Encoding": "chunked"}).status_code == 201


def test_a_body_in_pieces_that_is_too_long_is_refused_not_cut_off(client: Browser) -> None:
    for size in (2**20, 2**20 + 1, 10_000_000):
        body = BOOK + b" " * (size - len(BOOK))
        answer = post(client, body, headers={"Transfer-Encoding": "chunked"})
        assert answer.status_code == 413, "cut off after 1 MB it would still be a book"
    assert catalogue.find_books(q="parrot") == []


def test_a_body_that_breaks_off_is_refused(client: Browser) -> None:
    answer = post(client, BOOK, length=len(BOOK) + 1)
    assert (answer.status_code, answer.json["error"]["code"]) == (408, "request_timeout")
    assert catalogue.find_books(q="parrot") == []


def test_a_form_that_breaks_off_is_refused(client: Browser) -> None:
    token = hidden_fields(client.get("/").text, "/books")["csrf_token"]
    form = f"csrf_token={token}&title=A+Parrot&author=Cleo&genre=Mystery"
    answer = client.post(
        "/books",
        content_type="application/x-www-form-urlencoded",
        environ_overrides={
            "wsgi.input": io.BytesIO(form.encode()),
            "wsgi.input_terminated": True,
            "CONTENT_LENGTH": str(len(form) + 20),
        },
    )
    assert answer.status_code == 408
    assert catalogue.find_books(q="parrot") == []


@pytest.mark.parametrize("address", ["/api/books", "/unsubscribe/x", "/nowhere"])
def test_a_body_that_is_not_in_the_format_is_the_clients_fault(client: Browser, address: str) -> None:
    answer = client.post(
        address,
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input": Broken(), "wsgi.input_terminated": True},
    )
    assert answer.status_code == 400
    assert "zz" not in answer.text
