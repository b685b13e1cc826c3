"""CSRF: no form of another site, and no script of it, does anything here in a visitor's name.

Every form that posts holds `{{ csrf_field() }}`. For the operator its token is tied to the session, as Flask-WTF
does it. A visitor has no session, so no page needs a cookie: his token only says that a page of this site was
loaded before, and his browser says with each request which site it comes from.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, current_app, g, request
from flask_wtf.csrf import CSRFProtect, generate_csrf, validate_csrf
from itsdangerous import BadData, URLSafeTimedSerializer
from markupsafe import Markup
from wtforms import ValidationError

from app.kit.errors import FormRefusedError
from app.kit.web.front_door import SESSION_S, bearer_is_right, is_signed_in

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OWN_SITE = ("same-origin", "none")
"""What Sec-Fetch-Site says of our own pages, and of what a person typed or opened from outside the browser."""

FROM_ELSEWHERE = "This came from a page of another site, so nothing was done. Do it from the page here."
NO_TOKEN = (
    "This form did not come from a page of this site that is still valid: it was open for long, or you signed "
    "in or out since. Nothing was done. Open the page again and send it once more."
)
NO_FIELD = (
    "This form holds no csrf_token. Nothing was done. Write {{ csrf_field() }} into it, in its template."
)
NO_HEADER = "A call with the session's cookie needs the header X-CSRFToken; or send Authorization: Bearer."


class FormTokens(CSRFProtect):
    """Flask-WTF's protection, which asks visitors without a session for no cookie."""

    def protect(self, apply_exemptions: bool = False) -> None:
        """Refuse a request that may have been made by another site.

        Raises: FormRefusedError.
        """
        if request.method in SAFE_METHODS or not request.endpoint:
            return
        if apply_exemptions and self._is_exempt():
            return
        is_call = request.path.startswith("/api/")
        if is_call and bearer_is_right():
            return  # no browser adds this header by itself
        if _comes_from_elsewhere():
            raise FormRefusedError(FROM_ELSEWHERE)
        if is_signed_in():
            _check_sessions_token(self._get_csrf_token(), NO_HEADER if is_call else NO_TOKEN)
        elif not is_call:
            _check_visitors_token(self._get_csrf_token())


protection = FormTokens()


def register(app: Flask) -> None:
    """Protect every form of the app."""
    app.config.update(WTF_CSRF_TIME_LIMIT=SESSION_S)
    protection.init_app(app)
    # Flask-WTF's own csrf_token would begin a session, and so set a cookie, for everybody.
    app.context_processor(lambda: {"csrf_token": csrf_token, "csrf_field": csrf_field})
    app.jinja_env.globals.update(csrf_token=csrf_token, csrf_field=csrf_field)


def csrf_token() -> str:
    """Return the token that a form of this request's page has to send back."""
    if not is_signed_in():
        return str(_signer().dumps("visitor"))
    g.pop("csrf_token", None)  # kept there by Flask-WTF, which in a test may be that of another request
    return str(generate_csrf())


def csrf_field() -> Markup:
    """Write the hidden field that every form with method="post" holds."""
    return Markup('<input type="hidden" name="csrf_token" value="{}">').format(csrf_token())


def _comes_from_elsewhere() -> bool:
    """Ask the browser which site made the request; programs that are no browsers say nothing about it.

    Source: Fetch Metadata (Sec-Fetch-Site), and RFC 6454 (Origin) for browsers and addresses without it.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in OWN_SITE
    origin = request.headers.get("Origin")
    if origin is None:
        return False
    public = urlsplit(current_app.extensions["settings"].public_url)
    return origin not in (f"{request.scheme}://{request.host}", f"{public.scheme}://{public.netloc}")


def _check_sessions_token(token: str | None, refusal: str) -> None:
    if not token and refusal is NO_TOKEN:
        raise FormRefusedError(NO_FIELD)
    try:
        validate_csrf(token)
    except ValidationError as error:
        raise FormRefusedError(refusal) from error


def _check_visitors_token(token: str | None) -> None:
    if not token:
        raise FormRefusedError(NO_FIELD)
    try:
        _signer().loads(token, max_age=SESSION_S)
    except BadData as error:
        raise FormRefusedError(NO_TOKEN) from error


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(str(current_app.secret_key), salt="a visitor's form")
