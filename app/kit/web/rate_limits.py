"""How often strangers may do what costs something: subscribe, add books, guess the operator's token.

The counts are in the memory of this process: a restart forgets them, and several processes count each for
themselves. RATELIMIT_ENABLED=0 switches all of it off. The operator is not limited.
"""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any

from flask import Flask, current_app, request
from flask_limiter import Limiter
from limits import RateLimitItem, parse

from app.kit.errors import TooManyRequestsError
from app.kit.mail.addresses import mailbox
from app.kit.web import front_door
from app.kit.web.client_address import ip_address
from app.kit.web.own_site import ALIKE_FOR_ALL
from app.kit.web.rate_counts import CountsInMemory

SUBSCRIBING_PER_CLIENT = "20 per hour"
SUBSCRIBING_PER_ADDRESS = parse("5 per hour")
CHANGING_BOOKS_PER_CLIENT = "120 per hour"
WRONG_TOKENS_PER_CLIENT = parse("20 per hour")


def client() -> str:
    """Name the client: its network address, which behind a proxy the proxy tells (BEHIND_PROXY)."""
    address = ip_address(request.remote_addr or "")
    if address is None:
        return "unknown"
    if address.is_private and "X-Forwarded-For" in request.headers:
        _say_that_a_proxy_is_not_told(current_app.extensions["settings"].behind_proxy)
    if isinstance(address, ipaddress.IPv6Address):
        # Whoever has one address of IPv6 has 2**64 of them.
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


@cache
def _say_that_a_proxy_is_not_told(proxies: int) -> None:
    """Say once what would otherwise show by a stranger's wrong guesses that lock everybody out."""
    if not proxies:
        log.warning(
            "It looks as if a proxy stood before the site (it sends X-Forwarded-For), but BEHIND_PROXY is 0: all "
            "visitors count as one client. Set BEHIND_PROXY to the number of proxies."
        )


def address_to_subscribe() -> str:
    """Name the mailbox of a request to subscribe, so that nobody's is asked for over and over."""
    fields = request.get_json(silent=True) if request.is_json else request.form
    email = fields.get("email") if isinstance(fields, Mapping) else None
    return "address " + mailbox(str(email or "").strip()[:254])


log = logging.getLogger("postroom.pages")
limiter = Limiter(client, storage_uri=f"{CountsInMemory.STORAGE_SCHEME[0]}://", strategy="fixed-window")
_guessing = threading.Lock()  # of guesses that come at once none slips past the bound
limiter.logger.setLevel("WARNING")  # it would write a line, with the mail address, for each refusal

_subscribing_per_client = limiter.shared_limit(
    SUBSCRIBING_PER_CLIENT, "subscribing", exempt_when=front_door.is_operator
)

limit_changing_books = limiter.shared_limit(
    CHANGING_BOOKS_PER_CLIENT, "changing books", exempt_when=front_door.is_operator
)
"""A decorator of views that add books or count sales."""


def limits_apply() -> bool:
    """Say whether who asks is limited: everybody but the operator, unless RATELIMIT_ENABLED is 0."""
    return limiter.enabled and not front_door.is_operator()


def limit_subscribing(view: Callable[..., Any]) -> Callable[..., Any]:
    """Let a view subscribe only so many readers an hour, by client and by mail address."""

    # Inside: a client past its own bound makes up no more addresses to be counted.
    @_subscribing_per_client
    @wraps(view)
    def limited(*args: Any, **kwargs: Any) -> Any:
        if limits_apply():
            address = address_to_subscribe()
            if not limiter.limiter.hit(SUBSCRIBING_PER_ADDRESS, address):
                raise _too_many(SUBSCRIBING_PER_ADDRESS, address, "That was asked for too often.")
        return current_app.ensure_sync(view)(*args, **kwargs)

    return limited


def guess_is_right(token: str) -> bool:
    """Compare with ADMIN_TOKEN; a client that was wrong too often is not told any more, not even the truth.

    By client alone: a bound for all together would let any stranger lock the operator out.
    Raises: TooManyRequestsError.
    """
    if not limiter.enabled:
        return front_door.token_is_right(token)
    key = f"wrong tokens of {client()}"
    with _guessing:
        may_know = limiter.limiter.test(WRONG_TOKENS_PER_CLIENT, key)
        is_right = may_know and front_door.token_is_right(token)
        if not is_right:
            limiter.limiter.hit(WRONG_TOKENS_PER_CLIENT, key)
    if not may_know:
        raise _too_many(WRONG_TOKENS_PER_CLIENT, key, "Too many wrong tokens.")
    return is_right


def refusal() -> TooManyRequestsError:
    """Say in the site's own way what Flask-Limiter has refused."""
    exceeded = limiter.current_limit
    return _come_again(exceeded.reset_at if exceeded else time.time() + 60, "That was asked for too often.")


def _too_many(limit: RateLimitItem, key: str, what: str) -> TooManyRequestsError:
    return _come_again(limiter.limiter.get_window_stats(limit, key).reset_time, what)


def _come_again(at: float, what: str) -> TooManyRequestsError:
    wait_s = at - time.time()
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
    def decide_who_asks() -> None:
        if request.endpoint in ALIKE_FOR_ALL:
            return  # so no guess is answered there, and none counted
        token = front_door.bearer()
        has_token = token is not None and guess_is_right(token)
        front_door.note_who_asks(front_door.session_is_good(), has_token)
