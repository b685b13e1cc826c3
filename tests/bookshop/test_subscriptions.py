"""Asking, confirming, unsubscribing: the mail and the subscription come to be together, and one mail at most."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from flask import Flask

import tasks
from app.bookshop import books as catalogue, links as tokens, mailing as subscriptions
from app.bookshop.books import Subscription
from app.kit.database.file import database
from app.kit.errors import InvalidInputError, QueueFullError
from app.kit.mail import inbox, ledger, suppressions
from app.kit.mail.replies import Reply
from tasks.bookshop import alert_subscribers

pytestmark = pytest.mark.usefixtures("app")

RunJobs = Callable[[], None]
Subscribe = Callable[[str, str], Subscription]
EMAIL = "cleo@example.com"


def mails() -> list[tuple[str, str, int, str]]:
    """Return (address, template, priority, policy) of every mail of the ledger."""
    rows = database.read("SELECT to_address, template, priority, policy FROM postroom_emails ORDER BY id")
    return [tuple(row) for row in rows]


def rows_of(table: str) -> int:
    found = database.read_one(f"SELECT count(*) FROM {table}")
    assert found is not None
    return int(found[0])


def states() -> dict[str, str]:
    rows = database.read("SELECT to_address, state FROM postroom_emails WHERE template = 'book_alert'")
    return {row["to_address"]: row["state"] for row in rows}


def change_settings(app: Flask, **changes: object) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], **changes)


# Asking


def test_a_reader_is_asked_by_a_mail_that_goes_before_others_and_is_tried_again(run_jobs: RunJobs) -> None:
    asked = subscriptions.ask_to_confirm(EMAIL, "Mystery")
    assert mails() == [(EMAIL, "confirm_subscription", 10, "retry")]
    run_jobs()
    (mail,) = inbox.mails()
    assert "Mystery" in mail.text
    assert "7 days" in mail.text
    links = [word for word in mail.text.split() if "confirm/" in word]
    assert len(links) == 1
    assert tokens.read_confirm(links[0].rpartition("/")[2], catalogue.subscription).id == asked.id
    assert "List-Unsubscribe" not in dict(mail.headers)


def test_however_often_and_in_whatever_spelling_a_stranger_asks_one_mail_goes() -> None:
    for genre in catalogue.genres():
        for email in (EMAIL, "CLEO@example.com", " cleo@EXAMPLE.com "):
            subscriptions.ask_to_confirm(email, genre)
    assert len(mails()) == 1


def test_addresses_with_a_plus_bring_a_mailbox_few_mails_and_take_none_from_it() -> None:
    for number in range(20):
        subscriptions.ask_to_confirm(f"cleo+{number}@example.com", "Mystery")
    subscriptions.ask_to_confirm("cleo_other+1@example.com", "Mystery")
    subscriptions.ask_to_confirm("cleo+a@other.example", "Mystery")
    subscriptions.ask_to_confirm(EMAIL, "Mystery")
    flooded, *others = [to for to, *_ in mails()][4:]
    assert flooded == "cleo+4@example.com"
    assert others == ["cleo_other+1@example.com", "cleo+a@other.example", EMAIL]
    subscriptions.confirm(catalogue.subscription(1))
    subscriptions.ask_to_confirm("cleo+19@example.com", "Mystery")
    assert mails()[-1][0] == "cleo+19@example.com"


def test_who_needs_no_mail_costs_the_same_work(monkeypatch: pytest.MonkeyPatch, run_jobs: RunJobs) -> None:
    """Or a stranger could tell by the clock who is subscribed."""
    asked: list[str] = []
    send_email = subscriptions.send_email
    monkeypatch.setattr(
        subscriptions,
        "send_email",
        lambda to, *args, **rest: asked.append(to) or send_email(to, *args, **rest),
    )
    subscriptions.confirm(subscriptions.ask_to_confirm(EMAIL, "Mystery"))
    subscriptions.ask_to_confirm("ada@example.com", "Mystery")
    before = rows_of("postroom_jobs"), mails()
    for email in (EMAIL, "ada@example.com"):
        subscriptions.ask_to_confirm(email, "Mystery")
    assert asked == [EMAIL, "ada@example.com"] * 2
    assert (rows_of("postroom_jobs"), mails()) == before
    run_jobs()
    assert len(inbox.mails()) == 2


def test_of_many_who_ask_for_one_address_at_once_one_causes_a_mail(app: Flask) -> None:
    together = Barrier(20)

    def ask(number: int) -> str:
        with app.app_context():
            together.wait(30)
            genres = catalogue.genres()
            return subscriptions.ask_to_confirm(EMAIL, genres[number % len(genres)]).email

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(ask, range(20))) == {EMAIL}
    assert len(mails()) == 1
    assert len(catalogue.subscriptions_of(EMAIL, "pending")) == 5


def test_another_mail_goes_once_the_link_of_the_first_has_expired(app: Flask) -> None:
    subscriptions.ask_to_confirm(EMAIL, "Mystery")
    change_settings(app, confirm_ttl_s=10**9)
    subscriptions.ask_to_confirm(EMAIL, "Mystery")
    assert len(mails()) == 1
    long_ago = "UPDATE subscriptions SET asked_at = '1970-01-01T00:00:00.000Z'"
    database.write(lambda connection: connection.execute(long_ago).rowcount)
    subscriptions.ask_to_confirm(EMAIL, "Travel")
    assert len(mails()) == 2


def test_a_mail_that_never_came_may_be_asked_for_again(app: Flask) -> None:
    subscriptions.ask_to_confirm(EMAIL, "Mystery")
    subscriptions.ask_to_confirm(EMAIL, "Mystery")
    (first,) = database.read("SELECT id FROM postroom_emails")
    ledger.mark_failed(first["id"], Reply("rcpt", 550, "5.7.1", "not today"))
    subscriptions.ask_to_confirm(EMAIL, "Mystery")
    subscriptions.ask_to_confirm(EMAIL, "Mystery")
    states = [row["state"] for row in database.read("SELECT state FROM postroom_emails ORDER BY id")]
    assert states == ["failed", "queued"]


def test_the_mail_is_not_tried_longer_than_its_link_is_good(app: Flask) -> None:
    change_settings(app, confirm_ttl_s=3600)
    subscriptions.ask_to_confirm(EMAIL, "Mystery")
    row = database.read_one("SELECT expires_at FROM postroom_emails")
    assert row is not None
    assert datetime.fromisoformat(row["expires_at"]) <= datetime.now(UTC) + timedelta(seconds=3600)


def test_a_full_queue_keeps_neither_subscription_nor_mail(app: Flask) -> None:
    tasks.huey.attach(database, replace(app.extensions["settings"], max_pending_jobs=1), app.app_context)
    subscriptions.ask_to_confirm("ada@example.com", "Mystery")
    with pytest.raises(QueueFullError):
        subscriptions.ask_to_confirm(EMAIL, "Mystery")
    assert catalogue.subscriptions_of(EMAIL, "pending") == []
    assert (rows_of("subscriptions"), rows_of("postroom_emails")) == (1, 1)


@pytest.mark.parametrize(
    ("email", "genre", "field"), [("cleo@", "Mystery", "email"), (EMAIL, "Gardening", "genre")]
)
def test_what_is_refused_is_named_and_leaves_nothing(email: str, genre: str, field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        subscriptions.ask_to_confirm(email, genre)
    assert refused.value.field == field
    assert (rows_of("subscriptions"), rows_of("postroom_emails")) == (0, 0)


def test_an_address_that_only_the_mail_side_refuses_is_named_too_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> int:
        raise InvalidInputError("No mail can go to this address", "to")

    monkeypatch.setattr(subscriptions, "send_email", refuse)
    with pytest.raises(InvalidInputError, match="No mail can go") as refused:
        subscriptions.ask_to_confirm(EMAIL, "Mystery")
    assert refused.value.field == "email"
    assert rows_of("subscriptions") == 0


# Confirming and unsubscribing


def test_unsubscribing_stops_the_mails_that_wait_already(run_jobs: RunJobs, subscribe: Subscribe) -> None:
    cleo, _ = subscribe(EMAIL, "Mystery"), subscribe("ada@example.com", "Mystery")
    book = catalogue.add_book("Nine Stamps", "Tobias Wren", "Mystery")
    alert_subscribers.call_local(book.id)
    assert states() == {EMAIL: "queued", "ada@example.com": "queued"}
    subscriptions.unsubscribe(cleo)
    run_jobs()
    assert states() == {EMAIL: "suppressed", "ada@example.com": "sent"}


def test_unsubscribing_from_one_genre_lets_the_mails_of_others_through(
    run_jobs: RunJobs, subscribe: Subscribe
) -> None:
    subscriptions.unsubscribe(subscribe(EMAIL, "Mystery"))
    subscribe(EMAIL, "Travel")
    alert_subscribers.call_local(catalogue.add_book("Timetables", "Hanne Fisk", "Travel").id)
    run_jobs()
    assert states() == {EMAIL: "sent"}


def test_who_comes_back_gets_mail_again_and_only_after_confirming(run_jobs: RunJobs) -> None:
    first = subscriptions.ask_to_confirm(EMAIL, "Mystery")
    assert [one.genre for one in subscriptions.confirm(first)] == ["Mystery"]
    subscriptions.unsubscribe(first)
    again = subscriptions.ask_to_confirm(EMAIL, "Mystery")
    assert again.id == first.id
    assert suppressions.reason_for(EMAIL, "genre-mystery") == "unsubscribed"
    subscriptions.confirm(again)
    assert suppressions.reason_for(EMAIL, "genre-mystery") is None
    alert_subscribers.call_local(catalogue.add_book("Nine Stamps", "Tobias Wren", "Mystery").id)
    run_jobs()
    assert states() == {EMAIL: "sent"}


def test_confirming_lifts_nothing_that_it_does_not_confirm(subscribe: Subscribe) -> None:
    subscriptions.unsubscribe(subscribe(EMAIL, "Travel"))
    subscriptions.confirm(subscriptions.ask_to_confirm(EMAIL, "Mystery"))
    assert suppressions.reason_for(EMAIL, "genre-travel") == "unsubscribed"


def test_both_may_be_done_twice() -> None:
    asked = subscriptions.ask_to_confirm(EMAIL, "Mystery")
    assert subscriptions.confirm(asked) == subscriptions.confirm(asked) != []
    subscriptions.unsubscribe(asked)
    subscriptions.unsubscribe(asked)
    assert catalogue.subscription(asked.id).state == "unsubscribed"


def test_an_international_address_is_stopped_under_the_name_its_mails_carry(
    run_jobs: RunJobs, subscribe: Subscribe
) -> None:
    reader = subscribe("cleo@bücher.example", "Mystery")
    alert_subscribers.call_local(catalogue.add_book("Nine Stamps", "Tobias Wren", "Mystery").id)
    subscriptions.unsubscribe(reader)
    run_jobs()
    assert states() == {"cleo@xn--bcher-kva.example": "suppressed"}


# The mailing list


def test_a_mailing_list_has_a_name_a_title_and_a_way_out(subscribe: Subscribe) -> None:
    reader = subscribe(EMAIL, "Science fiction")
    mailing_list = subscriptions.mailing_list(reader)
    assert (mailing_list.name, mailing_list.title) == ("genre-science-fiction", "New books: Science fiction")
    token = mailing_list.unsubscribe_url.rpartition("/")[2]
    assert tokens.read_unsubscribe(token, catalogue.subscription) == reader


def test_no_two_genres_share_a_list() -> None:
    genres = ["Mystery", "Sci-Fi", "Sci Fi", "Sci  Fi", "東京", "大阪", "!", "x" * 200, "x" * 199, "Krimi 2"]
    names = [subscriptions.list_name(genre) for genre in genres]
    assert len(set(names)) == len(genres)
    assert max(map(len, names)) < 100
    assert (names[0], names[2], names[-1]) == ("genre-mystery", "genre-sci-fi", "genre-krimi-2")


@pytest.mark.parametrize("genre", ["東京", "C++ & friends", "Sci-Fi", "-", "ünï", "x" * 300])
def test_every_genre_a_student_may_think_of_makes_a_mailing_list(genre: str, subscribe: Subscribe) -> None:
    add = "INSERT INTO genres (name) VALUES (?)"
    database.write(lambda connection: connection.execute(add, (genre,)).rowcount)
    assert genre in subscriptions.mailing_list(subscribe(EMAIL, genre)).title
