"""Links made outside a request, as in a body, begin with PUBLIC_URL; those of a request with its own host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, render_template, url_for

import tasks
from app import create_app
from app.settings import Settings


@pytest.mark.parametrize(
    ("public_url", "link"),
    [
        ("https://books.example", "https://books.example/books"),
        ("http://books.test:8000", "http://books.test:8000/books"),
        ("", "http://localhost:5000/books"),
    ],
)
def test_a_link_outside_a_request_begins_with_the_public_url(
    tmp_path: Path, public_url: str, link: str
) -> None:
    app = create_app(Settings(data_dir=tmp_path, public_url=public_url))
    app.add_url_rule("/books", "all_books", lambda: url_for("all_books", _external=True))
    with app.app_context():
        assert url_for("all_books") == link
    answer = app.test_client().get("/books", base_url="http://127.0.0.1:8000")
    assert answer.text == "http://127.0.0.1:8000/books"


def test_a_body_makes_links_and_renders_pages(app: Flask, run_jobs: Callable[[], None]) -> None:
    link = tasks.huey.task(name="link")(lambda: url_for("jobs.page", uuid="x"))
    page = tasks.huey.task(name="page")(
        lambda: render_template("kit/error.html", status=404, message="None", code="x", back=None)
    )
    try:
        results = link(), page()
        run_jobs()
    finally:
        link.unregister()
        page.unregister()
    assert results[0].get() == "http://books.test/jobs/x"
    assert 'href="http://books.test/' in results[1].get()
