"""The main job: a reader subscribes to a genre, somebody adds a book, each subscriber gets one mail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app import catalogue
from app.database import database
from app.mail import ledger
from tasks import alerts, example
from tasks.alerts import alert_subscribers

pytestmark = pytest.mark.usefixtures("app")


def add_book(*readers: str) -> catalogue.Book:
    for reader in readers:
        catalogue.subscribe(f"{reader}@example.com", "Mystery")
    catalogue.subscribe("poet@example.com", "Poetry")
    return catalogue.add_book("Nine Stamps & a Lie", "Tobias Wren", "Mystery")


def recipients() -> list[str]:
    return sorted(email.to for email in ledger.inbox())


def test_each_subscriber_of_the_genre_gets_one_mail(run_jobs: Callable[[], None]) -> None:
    alert_subscribers(add_book("cleo", "omar").id)
    run_jobs()
    assert recipients() == ["cleo@example.com", "omar@example.com"]


def test_mail_names_the_book_its_author_and_the_site(run_jobs: Callable[[], None]) -> None:
    alert_subscribers(add_book("cleo").id)
    run_jobs()
    email = ledger.inbox()[0]
    assert email.subject == "New in Mystery: Nine Stamps & a Lie"
    assert "    Nine Stamps & a Lie\n    by Tobias Wren\n" in email.text
    assert "http://books.test/?genre=Mystery\n" in email.text
    assert email.html is not None
    assert "Nine Stamps &amp; a Lie" in email.html
    assert 'href="http://books.test/?genre=Mystery"' in email.html


def test_alert_that_runs_again_mails_nobody_twice(run_jobs: Callable[[], None]) -> None:
    book = add_book("cleo", "omar")
    assert alert_subscribers.call_local(book.id) == 2
    catalogue.subscribe("ines@example.com", "Mystery")
    assert alert_subscribers.call_local(book.id) == 3
    run_jobs()
    assert recipients() == ["cleo@example.com", "ines@example.com", "omar@example.com"]


def test_many_subscribers_are_told_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "PART", 2)
    book = add_book("cleo", "omar", "ines", "hanne", "bruno")
    commits = database.writer.commits
    assert alert_subscribers.call_local(book.id) == 5
    assert database.writer.commits == commits + 3
    keys = {f"book:{book.id}/reader:{reader.id}" for reader in catalogue.subscribers("Mystery")}
    assert ledger.known_keys(keys) == keys


def test_genre_without_subscribers_is_no_work() -> None:
    assert alert_subscribers.call_local(catalogue.add_book("Soup", "Bruno Okafor", "Cookery").id) == 0


def test_example_counts_words(immediate: None) -> None:
    assert example.count_words("to be or not to be")() == 6
