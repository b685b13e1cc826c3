"""Subscriptions and their mail: asked for by anybody, confirmed by mail, ended by a link of every mail."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta

from flask import current_app

from app import catalogue
from app.catalogue import Subscription
from app.database import database
from app.errors import InvalidInputError
from app.mail import suppressions, tokens
from app.mail.message import MailingList
from tasks.emails import URGENT, send_email

MAX_LIST_NAME = 60
DAY_S = 24 * 3600


def ask_to_confirm(email: str, genre: str) -> Subscription:
    """Note a reader's wish, and mail them the link that confirms it, unless such a mail is out already.

    Raises: InvalidInputError naming the field; QueueFullError. Then nothing is kept.
    """
    settings = current_app.extensions["settings"]
    ttl_s = settings.confirm_ttl_s
    with database.transaction():
        subscription = catalogue.subscribe(email, genre)
        asked = catalogue.ask(subscription.id, again_after=timedelta(seconds=ttl_s))
        if asked:
            try:
                send_email(
                    subscription.email,
                    "confirm_subscription",
                    dedup_key=f"confirm:{subscription.id}/{asked[0].asked_at}",
                    priority=URGENT,
                    policy="retry",
                    expires_in_s=min(ttl_s, settings.mail_expires_s),
                    genres=[one.genre for one in asked],
                    confirm_url=tokens.confirm_url(subscription),
                    days=max(1, ttl_s // DAY_S),
                )
            except InvalidInputError as error:
                field = "email" if error.field == "to" else error.field  # as the form calls it
                raise InvalidInputError(str(error), field) from error
    return subscription


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
