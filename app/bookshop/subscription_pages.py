"""Subscribing, and the two pages that links in mails lead to: one confirms, the other unsubscribes.

Opening such a link changes nothing: programs that look for viruses open every link of a mail before its reader
does. Its button posts; so does the unsubscribe button of mail programs. Source: RFC 8058
"""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from app.bookshop import book_pages as books, books as catalogue, links as tokens, mailing as subscriptions
from app.bookshop.books import Subscription
from app.kit.errors import InvalidInputError, TooManyRequestsError
from app.kit.web.form_tokens import protection
from app.kit.web.json_in import json_object, text
from app.kit.web.rate_limits import limit_subscribing, limits_apply

SECRET_ADDRESS_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow",
}
"""Whoever knows the address of such a page can press its button, so nobody else is to learn it."""

AN_HOUR = timedelta(hours=1)
MOST_UNANSWERED = 500
"""Mails in an hour that ask to confirm and that nobody answers: past that somebody plays with other people's
mailboxes, from many addresses, and with our name at the mail providers."""

bp = Blueprint("subscriptions", __name__)


@bp.post("/subscriptions")
@limit_subscribing
def subscribe() -> Response | tuple[str, int]:
    """Ask a reader by mail to confirm what the form says; a refused form comes back as it was typed."""
    try:
        asked = _ask_to_confirm(request.form.get("email", ""), request.form.get("genre", ""))
    except InvalidInputError as error:
        return books.page(subscription_error=error), HTTPStatus.BAD_REQUEST
    return redirect(url_for("bookshop.books.index", subscribed=asked.genre), HTTPStatus.SEE_OTHER)


@bp.post("/api/subscriptions")
@limit_subscribing
def subscribe_as_json() -> tuple[dict[str, Any], int]:
    """Ask a reader by mail to confirm a subscription."""
    body = json_object()
    email = text(body, "email")
    asked = _ask_to_confirm(email, text(body, "genre"))
    # Only what was sent comes back: the answer must not tell strangers who is subscribed already, or since when.
    sent = {"email": catalogue.email_address(email), "genre": asked.genre}
    return {"subscription": sent}, HTTPStatus.CREATED


@bp.get("/confirm/<token>")
def ask_for_yes(token: str) -> str:
    """Show what a reader is asked to confirm, and a button."""
    subscription = _to_confirm(token)
    pending = catalogue.subscriptions_of(subscription.email, "pending")
    genres = pending or catalogue.subscriptions_of(subscription.email, "confirmed")
    return render_template("confirm.html", subscriptions=genres, is_confirmed=not pending, pressed=False)


@bp.post("/confirm/<token>")
@protection.exempt  # the token of the address is the proof
def confirm(token: str) -> str:
    """Confirm it; pressing twice does no harm."""
    confirmed = subscriptions.confirm(_to_confirm(token))
    return render_template("confirm.html", subscriptions=confirmed, is_confirmed=True, pressed=True)


@bp.get("/unsubscribe/<token>")
def ask_whether_to_end(token: str) -> str:
    """Show what ends, and a button."""
    return render_template("unsubscribe.html", genre=_to_end(token).genre, pressed=False)


@bp.post("/unsubscribe/<token>")
@protection.exempt  # a mail program posts it, without a cookie and without a token of ours
def unsubscribe(token: str) -> str:
    """End a subscription, for whoever has the link: nothing else is asked, and the body does not matter."""
    subscription = _to_end(token)
    subscriptions.unsubscribe(subscription)
    return render_template("unsubscribe.html", genre=subscription.genre, pressed=True)


@bp.after_request
def hide_addresses(response: Response) -> Response:
    """Keep addresses that hold a token out of caches, search engines and other sites' logs."""
    if "token" in (request.view_args or {}):
        response.headers.update(SECRET_ADDRESS_HEADERS)
    return response


def _ask_to_confirm(email: str, genre: str) -> Subscription:
    if limits_apply() and catalogue.unanswered(AN_HOUR) >= MOST_UNANSWERED:
        # Whoever asks hears it, also who would get no mail: it tells nobody who is subscribed.
        raise TooManyRequestsError(
            "Too many people subscribe just now. Try again in an hour.", AN_HOUR.seconds
        )
    return subscriptions.ask_to_confirm(email, genre)


def _to_confirm(token: str) -> Subscription:
    return tokens.read_confirm(token, catalogue.subscription)


def _to_end(token: str) -> Subscription:
    return tokens.read_unsubscribe(token, catalogue.subscription)
