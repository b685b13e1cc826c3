"""Subscriptions and their mail: asked for by anybody, confirmed by mail, ended by a link of every mail."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from datetime import timedelta

from flask import current_app

from app.bookshop import books as catalogue, links as tokens
from app.bookshop.books import Subscription
from app.kit.database.file import database
from app.kit.errors import InvalidInputError
from app.kit.host.clock import clock
from app.kit.mail import history, suppressions
from app.kit.mail.addresses import wire_address
from app.kit.mail.message import MailingList
from app.kit.mail.sending import URGENT, send_email

MAX_LIST_NAME = 60
DAY_S = 24 * 3600
CONFIRMATION = "confirm_subscription"
MOST_PLUS_ADDRESSES = 5
"""Of one mailbox that are asked in a day without an answer: cleo+1@example.com, cleo+2@example.com, ..."""


class NotNeededError(Exception):
    """A mail that was just written down is not to go: its savepoint is rolled back."""


def ask_to_confirm(email: str, genre: str) -> Subscription:
    """Note a reader's wish, and mail them the link that confirms it, unless such a mail is out already.

    Raises: InvalidInputError naming the field; QueueFullError. Then nothing is kept.
    """
    ttl_s = current_app.extensions["settings"].confirm_ttl_s
    catalogue.email_address(email)  # before the transaction: nobody waits while a strange one is looked at
    with database.transaction():
        subscription = catalogue.subscribe(email, genre)
        again_after_s = 0 if _never_came(subscription.email) else ttl_s
        if _is_flooded(subscription.email):
            asked = []
        else:
            asked = catalogue.ask(subscription.id, again_after=timedelta(seconds=again_after_s))
        # Who needs no mail costs the same work, undone: or the time an answer takes would tell who is subscribed.
        with suppress(NotNeededError), database.transaction():
            _send(subscription, asked)
            if not asked:
                raise NotNeededError
    return subscription


def _send(subscription: Subscription, asked: list[Subscription]) -> None:
    asked_at = asked[0].asked_at if asked else clock.utc()
    settings = current_app.extensions["settings"]
    ttl_s = settings.confirm_ttl_s
    try:
        send_email(
            subscription.email,
            CONFIRMATION,
            dedup_key=f"confirm:{subscription.id}/{asked_at}",
            priority=URGENT,
            policy="retry",
            expires_in_s=min(ttl_s, settings.mail_expires_s),
            genres=[one.genre for one in asked or [subscription]],
            confirm_url=tokens.confirm_url(subscription),
            days=max(1, ttl_s // DAY_S),
        )
    except InvalidInputError as error:
        field = "email" if error.field == "to" else error.field  # as the form calls it
        raise InvalidInputError(str(error), field) from error


def _is_flooded(email: str) -> bool:
    """Say whether a mailbox has had enough mails to addresses with a + that nobody answers."""
    local, _, domain = email.rpartition("@")
    stem, plus, _ = local.partition("+")
    if not plus:
        return False  # it gets its one mail, whoever played with the others
    escaped = str.maketrans({sign: f"\\{sign}" for sign in "%_\\"})
    like = f"{stem.translate(escaped)}+%@{domain.translate(escaped)}"
    return catalogue.unanswered(timedelta(days=1), like) >= MOST_PLUS_ADDRESSES


def _never_came(email: str) -> bool:
    """Say whether the mail that asks to confirm was not sent, so that asking again is no second mail."""
    try:
        return history.last_state(wire_address(email), CONFIRMATION) in ("failed", "cancelled")
    except InvalidInputError:
        return False  # sending says what is wrong with it


def confirm(subscription: Subscription) -> list[Subscription]:
    """Confirm all that was asked for a subscription's address; return what it is subscribed to now."""
    with database.transaction():
        for confirmed in catalogue.confirm(subscription.id):
            suppressions.lift(confirmed.email, list_name(confirmed.genre))
        return catalogue.subscriptions_of(subscription.email, "confirmed")


def unsubscribe(subscription: Subscription) -> None:
    """End a subscription; its mails that wait to be sent are not sent any more."""
    with database.transaction():
        catalogue.unsubscribe(subscription.id)
        suppressions.add(subscription.email, "unsubscribed", list_name(subscription.genre))


def mailing_list(subscription: Subscription) -> MailingList:
    """Return what a subscription's mails say of the list they belong to, and how to leave it."""
    return MailingList(
        name=list_name(subscription.genre),
        title=f"New books: {subscription.genre}",
        unsubscribe_url=tokens.unsubscribe_url(subscription),
    )


def list_name(genre: str) -> str:
    """Name a genre's mailing list: genre-science-fiction; no two genres share one."""
    words = re.findall("[a-z0-9]+", genre.lower())
    name = "-".join(["genre", *words])
    if " ".join(words) == genre.lower() and len(name) <= MAX_LIST_NAME:
        return name
    # Something of it was lost, so that "Sci-Fi" and "Sci Fi" would be one.
    return f"{name[:MAX_LIST_NAME].strip('-')}-{hashlib.sha256(genre.encode()).hexdigest()[:8]}"
