"""A job born in a transaction: the process dies before or after the commit, never in between (P3)."""

from __future__ import annotations

import contextlib
from http.client import HTTPException

import pytest

from tests.kit.site_process import Site

pytestmark = pytest.mark.slow


def add_book_and_die(site: Site, moment: str) -> None:
    """Add a book and die at the moment; then start the site again."""
    with contextlib.suppress(OSError, HTTPException):
        site.post("/api/test/book", {"die": moment})
        pytest.fail("the site did not die")
    site.kill()
    site.start()


def found(site: Site) -> list[str]:
    """Return the titles of the books of the test."""
    return [book["title"] for book in site.get("/api/books?q=neither")[1]["books"]]


def test_dying_before_the_commit_leaves_neither_book_nor_job(site: Site) -> None:
    add_book_and_die(site, "before")
    assert found(site) == []
    assert sum(site.counts().values()) == 0


def test_dying_after_the_commit_keeps_the_book_and_runs_its_job(site: Site) -> None:
    site.subscribe("cleo@example.com", "Mystery")
    add_book_and_die(site, "after")
    assert found(site) == ["Both or Neither"]
    while len(emails := site.get("/api/inbox")[1]["emails"]) < 2:
        assert site.counts()["failed"] == 0
    assert [email["to"] for email in emails] == ["cleo@example.com"] * 2
    assert "Both or Neither" in emails[0]["subject"]
