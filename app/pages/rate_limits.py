"""How often strangers may do what costs something: subscribe, add books, guess the operator's token.

The counts are in the memory of this process: a restart forgets them, and several processes count each for
themselves. RATELIMIT_ENABLED=0 switches all of it off. The operator is not limited.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, request
from flask_limiter import Limiter
from limits import parse

from app.errors import TooManyRequestsError
from app.pages import front_door
from app.pages.rate_counts import CountsInMemory

SUBSCRIBING_PER_CLIENT = "20 per hour"
SUBSCRIBING_PER_ADDRESS = "5 per hour"
CHANGING_BOOKS_PER_CLIENT = "120 per hour"
WRONG_TOKENS_PER_CLIENT = parse("20 per hour")
WRONG_TOKENS_OF_ALL = parse("500 per hour")


def client() -> str:
    """Name the client: its network address, which behind a proxy the proxy tells (BEHIND_PROXY)."""
    told = (request.remote_addr or "unknown").partition("%")[0]
    try:
        address = ipaddress.ip_address(told)
    except ValueError:
        return told[:64]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        # Whoever has one address of IPv6 has 2**64 of them.
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)


def address_to_subscribe() -> str:
    """Name the mail address of a request to subscribe, so that nobody's is asked for over and over."""
    fields = request.get_json(silent=True) if request.is_json else request.form
    email = fields.get("email") if isinstance(fields, Mapping) else None
    return "address " + str(email or "").strip().lower()[:254]


limiter = Limiter(client, storage_uri=f"{CountsInMemory.STORAGE_SCHEME[0]}://", strategy="fixed-window")
limiter.logger.setLevel("WARNING")  # it would write a line, with the mail address, for each refusal

_subscribing_per_client = limiter.shared_limit(
    SUBSCRIBING_PER_CLIENT, "subscribing", exempt_when=front_door.is_operator
)
_subscribing_per_address = limiter.shared_limit(
    SUBSCRIBING_PER_ADDRESS, "subscribing", key_func=address_to_subscribe, exempt_when=front_door.is_operator
)

limit_changing_books = limiter.shared_limit(
    CHANGING_BOOKS_PER_CLIENT, "changing books", exempt_when=front_door.is_operator
)
"""A decorator of views that add books or count sales."""


def limit_subscribing(view: Callable[..., Any]) -> Callable[..., Any]:
    """Let a view subscribe only so many readers an hour, by client and by mail address."""
    return _subscribing_per_client(_subscribing_per_address(view))


def guess_is_right(token: str) -> bool:
    """Compare with ADMIN_TOKEN; who was wrong too often is not told any more, not even the truth.

    Raises: TooManyRequestsError.
    """
    if not limiter.enabled:
        return front_door.token_is_right(token)
    guesses = (
        (WRONG_TOKENS_PER_CLIENT, f"wrong tokens of {client()}"),
        (WRONG_TOKENS_OF_ALL, "wrong tokens"),
    )
    for limit, key in guesses:
        if not limiter.limiter.test(limit, key):
            ends_at = limiter.limiter.get_window_stats(limit, key).reset_time
            raise _too_many(ends_at - time.time(), "Too many wrong tokens.")
    is_right = front_door.token_is_right(token)
    if not is_right:
        for limit, key in guesses:
            limiter.limiter.hit(limit, key)
    return is_right


def refusal() -> TooManyRequestsError:
    """Say in the site's own way what Flask-Limiter has refused."""
    exceeded = limiter.current_limit
    wait_s = exceeded.reset_at - time.time() if exceeded else 60.0
    return _too_many(wait_s, "That was asked for too often.")


def _too_many(wait_s: float, what: str) -> TooManyRequestsError:
    minutes = max(1, round(wait_s / 60))
    when = "in a minute" if minutes == 1 else f"in {minutes} minutes"
    return TooManyRequestsError(f"{what} Try again {when}.", wait_s)


def register(app: Flask, enabled: bool) -> None:
    """Limit what is marked in the pages, and the guesses at the token, with counts of the app's own."""
    app.config["RATELIMIT_ENABLED"] = enabled
    # Known already, so it adds no hooks: they would look at every request, and only the marked views are limited.
    app.extensions["limiter"] = {limiter}
    limiter.init_app(app)

    @app.before_request
    def look_at_the_token() -> None:
        # Here, for a page may look different to the operator, so that every address tells whether it was right.
        token = front_door.bearer()
        if token is not None:
            guess_is_right(token)
