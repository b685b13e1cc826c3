"""Requests as no browser writes them: answered in a line, by every address, with the site's headers."""

from __future__ import annotations

import io
import socket
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.bookshop import mailing as subscriptions
from app.kit.database.file import Database
from app.kit.errors import InvalidInputError
from app.kit.web.odd_requests import MAX_FIELDS
from tests.kit.forms import Browser
from tests.kit.site_process import Site

ADDRESSES = ("/up", "/", "/static/kit/site.css", "/api/books", "/nowhere", "/jobs/x", "/api/nowhere")


def multipart(head: str, field: str = "") -> dict[str, Any]:
    body = f"--b\r\n{head}\r\n\r\n{field}\r\n--b--\r\n".encode()
    return {
        "input_stream": io.BytesIO(body),
        "content_length": len(body),
        "content_type": "multipart/form-data; boundary=b",
    }


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("value", ["Basic \xff", "Basic ===", "Bearer \xe9", "Digest a", "\xff"])
def test_strange_authorization_is_that_of_a_stranger(client: Browser, address: str, value: str) -> None:
    plain = client.get(address)
    answer = client.get(address, environ_overrides={"HTTP_AUTHORIZATION": value})
    plain.close()
    answer.close()
    assert answer.status_code == plain.status_code < 500
    assert answer.headers["Content-Security-Policy"] == plain.headers["Content-Security-Policy"]


@pytest.mark.parametrize("referrer", ["http://[", "http://[::1", "http://a]b/"])
def test_strange_referrer_leads_nowhere(client: Browser, referrer: str) -> None:
    for method in ("GET", "POST"):
        assert client.open("/nowhere", method=method, headers={"Referer": referrer}).status_code == 404


@pytest.mark.parametrize("body", ["[" * 2000, '{"a":' * 2000, "[" * 500_000, "9" * 5000, "{", "\ud800"])
@pytest.mark.parametrize("address", ["/api/subscriptions", "/api/books"])
def test_json_that_cannot_be_read_is_the_clients_fault(client: Browser, address: str, body: str) -> None:
    data = body.encode("utf-8", "surrogatepass")
    assert client.post(address, data=data, content_type="application/json").status_code == 400


@pytest.mark.parametrize(
    "head",
    ["Content-Disposition: form-data", "Content-Disposition: form-data; name*=utf-8''%ff", "X: y", "",
     "Content-Disposition: form-data; filename=x"],
)  # fmt: skip
@pytest.mark.parametrize("address", ["/subscriptions", "/sign-in", "/books"])
def test_form_whose_field_has_no_name_is_the_clients_fault(client: Browser, address: str, head: str) -> None:
    assert client.post(address, **multipart(head, "x")).status_code == 400


def test_form_or_query_of_too_many_fields_is_refused(client: Browser) -> None:
    fields = "a=&" * MAX_FIELDS
    answer = client.post("/sign-in", data=fields, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 413
    assert client.get("/?" + fields).status_code == 400
    assert client.get("/?" + "a=&" * (MAX_FIELDS - 1)).status_code == 200


def test_path_longer_than_any_is_refused(client: Browser) -> None:
    assert client.get("/books/" + "9" * 5000 + "/sales").status_code == 400


def test_error_page_that_fails_itself_is_answered_for(app: Flask, client: Browser) -> None:
    app.context_processor(lambda: {"operator": 1 / 0})
    answer = client.get("/nowhere")
    assert answer.status_code == 500
    assert "Content-Security-Policy" in answer.headers
    assert "went wrong on our side" in answer.text


@pytest.mark.usefixtures("app")
def test_address_is_looked_at_before_the_writer_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "transaction", lambda _: pytest.fail("the writer is held"))
    for address in ("cleo", "a" + " " * 10**6 + "@example.com", "a." * 10**6 + "@example.com"):
        with pytest.raises(InvalidInputError) as caught:
            subscriptions.ask_to_confirm(address, "Mystery")
        assert caught.value.field == "email"


@pytest.mark.slow
def test_stranger_cannot_fill_the_log_or_read_a_token_in_it(tmp_path: Path) -> None:
    odd = (
        b"GET /unsubscribe/1.SECRET\x01 HTTP/1.1\r\n\r\n",
        b"GET /" + b"\x01" * 4000 + b" x HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"\x01" * 8000 + b": 1\r\n\r\n",
        b"GET /unsubscribe/1.SECRET HTTP/1.1\r\nHost: a\r\nAuthorization: Basic \xff\r\nConnection: close\r\n\r\n",
    )
    with Site(tmp_path) as site:
        before = len(site.log)
        for _ in range(100):
            for request in odd:
                with socket.create_connection(("127.0.0.1", site.port), 10) as connection:
                    connection.sendall(request)
                    assert connection.recv(12).startswith(b"HTTP/1.1 4")
        written = "".join(site.log[before:])
    assert len(written) < 200_000
    assert "SECRET" not in written
    assert "Traceback" not in written
    assert "/unsubscribe/***" in written
