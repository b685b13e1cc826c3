"""Links in mails that need no sign-in: a token says which subscription is meant, and that we wrote it."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol, TypeVar

from flask import current_app
from itsdangerous import Signer, TimestampSigner

from app.kit.errors import NotFoundError, PostroomError
from app.kit.host.secret_key import secret_key
from app.settings import Settings

MOST_DIGITS = 19
UNKNOWN = (
    "This link is not known here. Perhaps a part of it is missing: copy all of it from the mail. "
    "Or it was for a subscription that nobody confirmed in time."
)


class LinkExpiredError(PostroomError):
    """The link was good for a while, and that is over."""

    code = "link_expired"
    status = 410


class Subscription(Protocol):
    """What a link is about: a row that keeps its number, and whose it is."""

    @property
    def id(self) -> int: ...

    @property
    def email(self) -> str: ...


@dataclass(frozen=True)
class Nobody:
    """A subscription that there is not."""

    id: int = 0
    email: str = ""


T = TypeVar("T", bound=Subscription)


def confirm_url(subscription: Subscription) -> str:
    """Return the link that confirms a subscription, good for CONFIRM_TTL_S."""
    return _url("confirm", _signer("confirm", subscription, TimestampSigner).sign(str(subscription.id)))


def unsubscribe_url(subscription: Subscription) -> str:
    """Return the link that ends a subscription, good for ever: mails are kept for years."""
    return _url("unsubscribe", _signer("unsubscribe", subscription, Signer).sign(str(subscription.id)))


def read_confirm(token: str, find: Callable[[int], T]) -> T:
    """Return the subscription that a token of `confirm_url` is about; `find` finds it by its number.

    Raises: NotFoundError, LinkExpiredError.
    """
    subscription = _named(token, find)
    signer = _signer("confirm", subscription, TimestampSigner)
    _check(signer, token)
    made_at = signer.unsign(token, return_timestamp=True)[1]
    good_for = timedelta(seconds=_settings().confirm_ttl_s)
    # Not by max_age=, which calls a token expired, too, if the clock was set back since it was made.
    if datetime.fromtimestamp(signer.get_timestamp(), UTC) - made_at > good_for:
        raise LinkExpiredError("This link is too old. Subscribe again, and a new mail comes.")
    return subscription


def read_unsubscribe(token: str, find: Callable[[int], T]) -> T:
    """Return the subscription that a token of `unsubscribe_url` is about; `find` finds it by its number.

    Raises: NotFoundError.
    """
    subscription = _named(token, find)
    _check(_signer("unsubscribe", subscription, Signer), token)
    return subscription


def _settings() -> Settings:
    settings: Settings = current_app.extensions["settings"]
    return settings


def _url(page: str, token: bytes) -> str:
    # In a job there is no request, so no url_for.
    return f"{_settings().public_url}/{page}/{token.decode()}"


S = TypeVar("S", bound=Signer)


def _signer(purpose: str, subscription: Subscription, kind: type[S]) -> S:
    # The address is signed though it is not in the token: the same number may be somebody else's in another
    # database with this key, such as the one of development or one that was begun anew.
    salt = f"postroom/{_settings().environment}/{purpose}/{subscription.email}"
    return kind(secret_key(_settings()), salt=salt)


def _named(token: str, find: Callable[[int], T]) -> T:
    number = token.partition(".")[0]
    if not (number.isascii() and number.isdigit()) or len(number) > MOST_DIGITS:
        raise NotFoundError(UNKNOWN)
    try:
        return find(int(number))
    except NotFoundError as error:
        # As much work as for a number that is known, or the time it takes would tell how many subscribe.
        _check(_signer("nothing", Nobody(), Signer), token)
        raise NotFoundError(UNKNOWN) from error


def _check(signer: Signer, token: str) -> None:
    value, _, signature = token.rpartition(".")
    # The signature is compared as it is written. Compared as bytes (as itsdangerous does it) a token has more
    # than one spelling, for base64 ignores some bits of its last letter.
    if not hmac.compare_digest(signer.get_signature(value), signature.encode()):
        raise NotFoundError(UNKNOWN)
