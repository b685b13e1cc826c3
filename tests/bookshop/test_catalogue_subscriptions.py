"""Subscriptions: what may come in, what confirms them, what ends them, what is forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlite_utils import Database as Tables

from app.bookshop import books as catalogue
from app.bookshop.books import Subscription
from app.kit.database.file import database
from app.kit.errors import InvalidInputError, NotFoundError

pytestmark = pytest.mark.usefixtures("app")

Subscribe = Callable[[str, str], Subscription]
WEEK = timedelta(days=7)


def genres_of(email: str, *states: str) -> list[str]:
    return [subscription.genre for subscription in catalogue.subscriptions_of(email, *states)]


def ask(email: str, genre: str) -> list[str]:
    """Subscribe a reader and return the genres that a mail is to ask about."""
    asked = catalogue.ask(catalogue.subscribe(email, genre).id, again_after=WEEK)
    return [subscription.genre for subscription in asked]


def pass_time(passed: timedelta) -> None:
    """Make it so that everything happened that much earlier."""
    days = passed / timedelta(days=1)
    columns = ("subscribed_at", "asked_at", "confirmed_at", "unsubscribed_at")
    moved = ", ".join(
        f"{column} = strftime('%Y-%m-%dT%H:%M:%fZ', {column}, '-{days} days')" for column in columns
    )
    database.write(lambda connection: connection.execute(f"UPDATE subscriptions SET {moved}").rowcount)


# What may come in


@pytest.mark.parametrize(
    "email",
    ["", " ", "cleo", "cleo@", "@example.com", "cleo@example", "zoë@example.com",
     "cleo@example.com\r\nBcc: ada@example.com", "Cleo <cleo@example.com>",
     "cleo@example.com, ada@example.com", "\ud800@example.com", "x" * 300 + "@example.com"],
)  # fmt: skip
def test_what_is_no_address_is_refused(email: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        catalogue.subscribe(email, "Poetry")
    assert refused.value.field == "email"


def test_a_genre_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InvalidInputError, match="Cookery, Mystery") as refused:
        catalogue.subscribe("cleo@example.com", "Gardening")
    assert refused.value.field == "genre"


# Before it is confirmed


def test_nobody_is_subscribed_who_has_not_confirmed() -> None:
    assert catalogue.subscribe("cleo@example.com", "Poetry").state == "pending"
    assert catalogue.subscribers("Poetry") == []
    assert catalogue.subscriber_count("Poetry") == 0


def test_subscribing_twice_keeps_one_subscription() -> None:
    first = catalogue.subscribe("cleo@example.com", "Poetry")
    assert catalogue.subscribe(" Cleo@EXAMPLE.com ", "poetry") == first
    assert genres_of("cleo@example.com", "pending") == ["Poetry"]


def test_one_mail_at_a_time_asks_whatever_is_asked_for() -> None:
    assert ask("cleo@example.com", "Poetry") == ["Poetry"]
    for email in ("cleo@example.com", "CLEO@Example.COM"):
        for genre in catalogue.genres():
            assert ask(email, genre) == []
    assert genres_of("cleo@example.com", "pending") == catalogue.genres()
    assert ask("ada@example.com", "Poetry") == ["Poetry"]


def test_a_mail_that_nobody_answered_is_followed_by_another_only_after_its_time() -> None:
    ask("cleo@example.com", "Poetry")
    pass_time(WEEK - timedelta(minutes=1))
    assert ask("cleo@example.com", "Travel") == []
    pass_time(timedelta(minutes=2))
    assert ask("cleo@example.com", "Travel") == ["Poetry", "Travel"]
    assert ask("cleo@example.com", "Poetry") == []


def test_asking_again_and_again_does_not_put_off_the_next_mail() -> None:
    ask("cleo@example.com", "Poetry")
    for genre in catalogue.genres():
        pass_time(WEEK / 6)
        assert ask("cleo@example.com", genre) == []
    pass_time(WEEK / 6)
    assert ask("cleo@example.com", "Poetry") == catalogue.genres()


def test_after_a_mail_was_answered_the_next_wish_gets_its_own() -> None:
    ask("cleo@example.com", "Poetry")
    catalogue.confirm(catalogue.subscribe("cleo@example.com", "Poetry").id)
    assert ask("cleo@example.com", "Travel") == ["Travel"]


def test_who_is_subscribed_is_not_asked() -> None:
    catalogue.confirm(catalogue.subscribe("cleo@example.com", "Poetry").id)
    assert ask("cleo@example.com", "Poetry") == []
    assert genres_of("cleo@example.com", "confirmed") == ["Poetry"]


def test_unsubscribing_from_what_was_never_confirmed_makes_no_room_for_another_mail() -> None:
    ask("cleo@example.com", "Poetry")
    catalogue.unsubscribe(catalogue.subscribe("cleo@example.com", "Poetry").id)
    assert ask("cleo@example.com", "Poetry") == []
    assert genres_of("cleo@example.com", "pending") == ["Poetry"]


# Confirming and unsubscribing


def test_confirming_one_confirms_all_that_wait_for_the_same_address() -> None:
    first = catalogue.subscribe("cleo@example.com", "Poetry")
    catalogue.subscribe("Cleo@example.com", "Travel")
    catalogue.subscribe("ada@example.com", "Travel")
    assert [one.genre for one in catalogue.confirm(first.id)] == ["Poetry", "Travel"]
    assert catalogue.confirm(first.id) == []
    assert [len(catalogue.subscribers(genre)) for genre in catalogue.genres()] == [0, 0, 1, 0, 1]


def test_confirming_does_not_bring_back_what_was_ended() -> None:
    first = catalogue.subscribe("cleo@example.com", "Poetry")
    catalogue.confirm(first.id)
    catalogue.unsubscribe(first.id)
    assert catalogue.confirm(first.id) == []
    assert catalogue.subscribers("Poetry") == []


def test_what_was_ended_is_the_same_subscription_when_it_is_wanted_again(subscribe: Subscribe) -> None:
    first = subscribe("cleo@example.com", "Poetry")
    for _ in range(2):
        catalogue.unsubscribe(first.id)
        assert catalogue.subscription(first.id).state == "unsubscribed"
    assert ask("cleo@example.com", "Poetry") == ["Poetry"]
    assert catalogue.subscribers("Poetry") == []
    catalogue.confirm(first.id)
    assert [one.id for one in catalogue.subscribers("Poetry")] == [first.id]


def test_unsubscribing_from_one_genre_leaves_the_others(subscribe: Subscribe) -> None:
    poetry, travel = (subscribe("cleo@example.com", genre) for genre in ("Poetry", "Travel"))
    catalogue.unsubscribe(poetry.id)
    assert catalogue.subscribers("Travel") == [travel]


@pytest.mark.parametrize("number", [0, 999, 10**30])
def test_an_unknown_subscription_is_not_found(number: int) -> None:
    with pytest.raises(NotFoundError):
        catalogue.subscription(number)


def test_subscribers_come_oldest_first_and_page_by_page(subscribe: Subscribe) -> None:
    readers = ["cleo@example.com", "ada@example.com", "bruno@example.com"]
    for email in readers:
        subscribe(email, "Poetry")
    catalogue.subscribe("omar@example.com", "Poetry")
    first = catalogue.subscribers("Poetry", limit=2)
    rest = catalogue.subscribers("Poetry", after_id=first[-1].id)
    assert [subscription.email for subscription in first + rest] == readers
    assert catalogue.subscriber_count("Poetry") == 3


# Forgetting


def test_what_nobody_confirmed_is_forgotten_and_nothing_else() -> None:
    for email in ("old@example.com", "reader@example.com", "gone@example.com"):
        ask(email, "Poetry")
    catalogue.confirm(catalogue.subscribe("reader@example.com", "Poetry").id)
    gone = catalogue.subscribe("gone@example.com", "Poetry").id
    catalogue.confirm(gone)
    catalogue.unsubscribe(gone)
    pass_time(WEEK + timedelta(minutes=1))
    ask("new@example.com", "Poetry")
    assert catalogue.forget_unconfirmed(datetime.now(UTC) - WEEK) == 1
    assert catalogue.subscriptions_of("old@example.com", "pending", "unsubscribed") == []
    assert genres_of("reader@example.com", "confirmed") == ["Poetry"]
    assert genres_of("gone@example.com", "unsubscribed") == ["Poetry"]
    assert genres_of("new@example.com", "pending") == ["Poetry"]


def test_what_joined_a_mail_late_is_forgotten_with_that_mail() -> None:
    ask("cleo@example.com", "Poetry")
    pass_time(WEEK - timedelta(minutes=1))
    ask("cleo@example.com", "Travel")
    pass_time(timedelta(minutes=2))
    assert catalogue.forget_unconfirmed(datetime.now(UTC) - WEEK) == 2


def test_who_was_subscribed_once_keeps_the_row_that_links_in_old_mails_name(subscribe: Subscribe) -> None:
    reader = subscribe("cleo@example.com", "Poetry")
    catalogue.unsubscribe(reader.id)
    pass_time(timedelta(days=1))
    ask("cleo@example.com", "Poetry")
    pass_time(WEEK + timedelta(minutes=1))
    assert catalogue.forget_unconfirmed(datetime.now(UTC) - WEEK) == 1
    assert catalogue.subscription(reader.id).state == "unsubscribed"


# The table


def test_who_subscribed_before_there_were_confirmations_stays_subscribed() -> None:
    connection = sqlite3.connect(":memory:")
    tables, migrations = Tables(connection), catalogue.migrations.of_sqlite_utils()
    migrations.apply(tables, stop_before="add_confirmations")
    connection.execute("INSERT INTO subscriptions (email, genre_id) VALUES ('cleo@example.com', 1)")
    connection.commit()
    migrations.apply(tables)
    found = connection.execute("SELECT state, confirmed_at = subscribed_at, asked_at FROM subscriptions")
    assert found.fetchall() == [("confirmed", 1, None)]
    connection.close()


@pytest.mark.parametrize("state", ["confirmed", "unsubscribed", "maybe"])
def test_the_database_itself_refuses_a_state_without_its_moment(state: str) -> None:
    insert = "INSERT INTO subscriptions (email, genre_id, state) VALUES ('cleo@example.com', 1, ?)"
    with pytest.raises(sqlite3.IntegrityError):
        database.write(lambda connection: connection.execute(insert, (state,)).rowcount)
