"""Who may come in: the operator, by a cookie after signing in or by `Authorization: Bearer` with each call.

Who asks is decided once, before anything answers (`rate_limits.register`). Until then, and where that is refused,
everybody is a stranger: so no answer, an error's neither, tells whether a token was right.
"""

from __future__ import annotations

import hmac
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from flask import current_app, redirect, request, session, url_for

from app.kit.database.file import database
from app.kit.errors import OperatorOnlyError, PostroomError

SESSION_S = 12 * 3600
"""How long a sign-in lasts, however busy the operator is."""

WHO_ASKS = "postroom.who_asks"
NOTE_SIGNED_OUT = (
    "INSERT INTO postroom_about VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
HOW_TO_CALL = "Only the operator may do this: send the header Authorization: Bearer <ADMIN_TOKEN>."
HOW_TO_SIGN_IN = "Only the operator may do this: sign in first."


@dataclass(frozen=True)
class WhoAsks:
    """What this request showed of the operator: a session of his, his token, or neither."""

    has_session: bool = False
    has_token: bool = False


STRANGER = WhoAsks()


def who_asks() -> WhoAsks:
    """Return what was decided about this request; a stranger until then."""
    found: WhoAsks = request.environ.get(WHO_ASKS, STRANGER)
    return found


def note_who_asks(has_session: bool, has_token: bool) -> None:
    """Keep with the request what was decided about it."""
    request.environ[WHO_ASKS] = WhoAsks(has_session, has_token)


def is_operator() -> bool:
    """Say whether this request comes from the operator; templates may ask too."""
    return who_asks() != STRANGER


def is_signed_in() -> bool:
    """Say whether this request comes with a session of the operator's."""
    return who_asks().has_session


def bearer_is_right() -> bool:
    """Say whether the request carries the operator's token."""
    return who_asks().has_token


def operator_only(view: Callable[..., Any]) -> Callable[..., Any]:
    """Answer with a view only to the operator: a page leads others to the sign-in, a call answers 401."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if is_operator():
            return current_app.ensure_sync(view)(*args, **kwargs)
        if is_for_programs():
            raise OperatorOnlyError(HOW_TO_CALL)
        if request.method in ("GET", "HEAD"):
            wanted = request.full_path if request.query_string else request.path
            return redirect(url_for("sign_in.page", next=wanted), 303)
        raise OperatorOnlyError(HOW_TO_SIGN_IN)

    return guarded


def is_for_programs() -> bool:
    """Say whether the address is one that programs ask, so that a refusal is JSON and leads nowhere."""
    return request.path.startswith("/api/") or request.path == "/metrics"


def anybody_may_change() -> bool:
    """Say whether strangers may change data: only while one tries things out and no mail leaves the machine."""
    settings = current_app.extensions["settings"]
    return not settings.production and not settings.mail_url


def operator_unless_trying_out(view: Callable[..., Any]) -> Callable[..., Any]:
    """Guard a view as `operator_only` does, but leave it open in development with the built-in inbox."""
    guarded = operator_only(view)

    @wraps(view)
    def open_or_guarded(*args: Any, **kwargs: Any) -> Any:
        chosen = current_app.ensure_sync(view) if anybody_may_change() else guarded
        return chosen(*args, **kwargs)

    return open_or_guarded


# The session


def session_is_good() -> bool:
    """Say whether the session is of an operator who signed in with today's ADMIN_TOKEN, not too long ago."""
    seal, signed_in_at = session.get("operator"), session.get("signed_in_at")
    if not isinstance(seal, str) or not isinstance(signed_in_at, (int, float)):
        return False
    try:
        is_ours = hmac.compare_digest(seal.encode(), _seal().encode())
    except (PostroomError, sqlite3.Error):
        return False  # the database cannot be read; /ready and the error pages are to say so to everybody
    return is_ours and abs(time.time() - signed_in_at) < SESSION_S  # ahead: by a clock that was wrong


def sign_in() -> None:
    """Begin a new session; nothing of the one before goes over into it."""
    session.clear()
    session.permanent = True  # the browser forgets it when it ends here
    session.update(operator=_seal(), signed_in_at=int(time.time()))
    note_who_asks(has_session=True, has_token=False)


def sign_out() -> None:
    """End every session of the operator, in whatever browser, and with it whatever copy of its cookie there is."""
    had_session = is_signed_in()
    session.clear()
    note_who_asks(has_session=False, has_token=False)
    if had_session:
        # A signed cookie cannot be taken back, so that which its seal is made of changes.
        mark = ("signed_out", secrets.token_hex())
        database.write(lambda connection: connection.execute(NOTE_SIGNED_OUT, mark).rowcount)


def token_is_right(token: str) -> bool:
    """Compare with ADMIN_TOKEN, in the same time wherever the first difference is."""
    return hmac.compare_digest(_digest(token), _digest(current_app.extensions["settings"].admin_token))


def bearer() -> str | None:
    """Return the token of `Authorization: Bearer`, if the request has one."""
    # Not request.authorization: it takes a token with = in it for parameters.
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


def _seal() -> str:
    # In the cookie instead of the token itself, which anybody could read there. A new ADMIN_TOKEN, a new
    # SECRET_KEY or a sign-out ends every session.
    signed_out = database.read_one("SELECT value FROM postroom_about WHERE key = 'signed_out'")
    token = current_app.extensions["settings"].admin_token
    return _digest(f"{token}\0{signed_out[0] if signed_out else ''}").hex()


def _digest(token: str) -> bytes:
    key = str(current_app.secret_key)
    return hmac.digest(key.encode(), b"the operator's token\0" + token.encode("utf-8", "replace"), "sha256")
