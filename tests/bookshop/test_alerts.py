"""The main job: a reader subscribes to a genre, somebody adds a book, each subscriber gets one mail."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from flask import Flask

import tasks
from app.bookshop import books as catalogue, mailing as subscriptions
from app.bookshop.books import Book, Subscription
from app.kit.database.file import database
from app.kit.mail import inbox, ledger
from tasks import bookshop as alerts
from tasks.bookshop import alert_subscribers
from tests.conftest import RunJobs

Subscribe = Callable[[str, str], Subscription]
AddBook = Callable[..., Book]


@pytest.fixture
def add_book(app: Flask, subscribe: Subscribe) -> AddBook:
    """A function that adds a book of a genre to which these readers are subscribed."""

    def add(*readers: str) -> Book:
        for reader in readers:
            subscribe(f"{reader}@example.com", "Mystery")
        subscribe("poet@example.com", "Poetry")
        return catalogue.add_book("Nine Stamps & a Lie", "Tobias Wren", "Mystery")

    return add


def rows() -> list[tuple[str, str, str]]:
    sql = "SELECT to_address, policy, list_name FROM postroom_emails ORDER BY id"
    return [tuple(row) for row in database.read(sql)]


def test_each_subscriber_of_the_genre_gets_one_mail(add_book: AddBook, run_jobs: RunJobs) -> None:
    alert_subscribers(add_book("cleo", "omar").id)
    run_jobs()
    assert sorted(mail.to for mail in inbox.mails()) == ["cleo@example.com", "omar@example.com"]


def test_mail_names_the_book_its_author_and_the_site(add_book: AddBook, run_jobs: RunJobs) -> None:
    alert_subscribers(add_book("cleo").id)
    run_jobs()
    mail = inbox.mails()[0]
    assert mail.subject == "New in Mystery: Nine Stamps & a Lie"
    assert "Nine Stamps & a Lie\n    by Tobias Wren" in mail.text
    assert "http://books.test/?genre=Mystery" in mail.text
    assert mail.html is not None
    assert "Nine Stamps &amp; a Lie" in mail.html


def test_mail_is_held_when_nobody_knows_and_can_be_left_with_one_click(
    add_book: AddBook, run_jobs: RunJobs
) -> None:
    alert_subscribers(add_book("cleo").id)
    run_jobs()
    assert rows() == [("cleo@example.com", "hold", "genre-mystery")]
    mail = inbox.mails()[0]
    headers = dict(mail.headers)
    link = headers["List-Unsubscribe"].strip("<>")
    assert link.startswith("http://books.test/unsubscribe/")
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert "genre-mystery" in headers["List-Id"]
    assert link in mail.text
    assert mail.html is not None
    assert link in mail.html


def test_who_unsubscribes_is_not_mailed_what_waits(
    add_book: AddBook, subscribe: Subscribe, run_jobs: RunJobs
) -> None:
    book = add_book("cleo", "omar")
    assert alert_subscribers.call_local(book.id) == 2
    cleo = subscribe("cleo@example.com", "Mystery")
    subscriptions.unsubscribe(cleo)
    run_jobs()
    assert [mail.to for mail in inbox.mails()] == ["omar@example.com"]
    assert alert_subscribers.call_local(book.id) == 1


def test_who_has_not_confirmed_is_told_nothing(add_book: AddBook) -> None:
    catalogue.subscribe("ines@example.com", "Mystery")
    assert alert_subscribers.call_local(add_book("cleo").id) == 1
    assert [to for to, _, _ in rows()] == ["cleo@example.com"]


def test_alert_that_runs_again_mails_nobody_twice(add_book: AddBook, subscribe: Subscribe) -> None:
    book = add_book("cleo", "omar")
    assert alert_subscribers.call_local(book.id) == 2
    subscribe("ines@example.com", "Mystery")
    assert alert_subscribers.call_local(book.id) == 3
    queued = database.read("SELECT 1 FROM postroom_emails WHERE state = 'queued'")
    assert len(queued) == 3


def test_many_subscribers_are_told_in_parts(add_book: AddBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "PART", 2)
    book = add_book("cleo", "omar", "ines", "hanne", "bruno")
    commits = database.writer.commits
    assert alert_subscribers.call_local(book.id) == 5
    assert database.writer.commits == commits + 3
    keys = {f"book:{book.id}/reader:{reader.id}" for reader in catalogue.subscribers("Mystery")}
    assert ledger.known_keys(keys) == keys


def test_a_mailing_larger_than_the_room_left_fills_it_and_goes_on_by_itself(
    add_book: AddBook, run_jobs: RunJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "ROOM_LOOK_S", 0.01)
    monkeypatch.setattr(tasks.huey, "max_pending_jobs", 3)
    readers = [f"reader{number}" for number in range(8)]
    job = alert_subscribers(add_book(*readers).id)
    finished = run_until_done(job.id, run_jobs)
    assert finished["result"] == 8
    assert finished["attempt"] == 1  # waiting for room burns no attempt
    run_jobs()
    assert sorted(mail.to for mail in inbox.mails()) == [f"{reader}@example.com" for reader in readers]


def run_until_done(uuid: str, run_jobs: RunJobs) -> dict[str, object]:
    for _ in range(200):
        run_jobs()
        job = tasks.huey.job(uuid)
        assert job is not None
        if job["state"] == "done":
            return job
        assert job["state"] in ("ready", "scheduled"), json.dumps(job, default=str)
    raise AssertionError("it does not come to its end")


@pytest.mark.usefixtures("app")
def test_genre_without_subscribers_is_no_work() -> None:
    assert alert_subscribers.call_local(catalogue.add_book("Soup", "Bruno Okafor", "Cookery").id) == 0
