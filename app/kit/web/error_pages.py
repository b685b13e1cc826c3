"""What a visitor and a client of the API see when something goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Flask, Request, Response, current_app, jsonify, render_template, request
from flask_limiter import RateLimitExceeded
from werkzeug.exceptions import ClientDisconnected, HTTPException
from werkzeug.routing import Map, MapAdapter

from app.kit.errors import (
    DatabaseBusyError,
    DatabaseUnwritableError,
    OperatorOnlyError,
    PostroomError,
    QueueFullError,
    TooManyRequestsError,
)
from app.kit.web.front_door import is_for_programs
from app.kit.web.odd_requests import OddRequest, fault, plain_answer
from app.kit.web.own_site import own_path
from app.kit.web.rate_limits import refusal
from app.kit.web.response_headers import HEADERS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

TRY_AGAIN = (DatabaseBusyError, DatabaseUnwritableError, QueueFullError, TooManyRequestsError)
TRY_AGAIN_S = 5
OUR_FAULT = "Something went wrong on our side. It has been noted in the log."
IN_PLAIN_WORDS = {
    404: "There is nothing at this address.",
    405: "This address does not take that kind of request.",
    408: "The request did not arrive whole, or took too long.",
    413: "That is more than the site takes at once.",
}

log = logging.getLogger("postroom.pages")


class Site(Flask):
    """Flask, but for links outside requests, and for what no request can make it do.

    It answers with its headers always, and names the route in the log, not the address: that may hold a token.
    """

    request_class = OddRequest

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, however odd, in the site's own way."""
        if words := fault(environ):
            answer = plain_answer(environ, 400, "bad_request", words)
        else:
            try:
                return super().wsgi_app(environ, start_response)
            except Exception:
                log.exception("%s: the error page failed, too", environ.get("REQUEST_METHOD"))
                answer = plain_answer(environ, 500, "internal_server_error", OUR_FAULT)
        answer.headers.update(HEADERS)
        return answer(environ, start_response)

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Let links that are made outside a request, in a task's body say, begin with PUBLIC_URL."""
        settings = self.extensions.get("settings")
        if request is not None or settings is None:
            return super().create_url_adapter(request)
        return _adapter_of_links(self.url_map, settings.public_url)

    def log_exception(self, exc_info: Any) -> None:
        """Write the error with its trace into the log."""
        log.error("%s failed", _asked(), exc_info=exc_info)


@lru_cache(maxsize=1)  # for each job that runs, and each request, one is asked for
def _adapter_of_links(url_map: Map, public_url: str) -> MapAdapter:
    public = urlsplit(public_url)
    return url_map.bind(public.netloc, script_name=public.path or "/", url_scheme=public.scheme)


def register(app: Flask) -> None:
    """Answer every error in the shape its address calls for: JSON for programs, else a page."""
    app.register_error_handler(PostroomError, _named_error)
    app.register_error_handler(RateLimitExceeded, lambda _: _named_error(refusal()))
    app.register_error_handler(HTTPException, _http_error)


def _named_error(error: PostroomError) -> Response:
    message, headers = str(error), {}
    if isinstance(error, TRY_AGAIN):
        headers["Retry-After"] = str(getattr(error, "retry_after_s", TRY_AGAIN_S))
        if isinstance(error, DatabaseUnwritableError):
            log.error("%s failed: %s", _asked(), error)
    elif isinstance(error, OperatorOnlyError):
        headers["WWW-Authenticate"] = 'Bearer realm="the operator"'
    elif error.status >= 500:
        # Its message is for whoever runs the site, and may name files of this machine.
        log.error("%s failed", _asked(), exc_info=error)
        message = OUR_FAULT
    return _answer(error.status, error.code, message, getattr(error, "field", None), headers)


def _http_error(error: HTTPException) -> Response:
    status, name = error.code or 500, error.name
    if isinstance(error, ClientDisconnected):
        status, name = 408, "Request Timeout"
    message = OUR_FAULT if status == 500 else IN_PLAIN_WORDS.get(status, error.description or name)
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return _answer(status, name.lower().replace(" ", "_"), message, None, headers)


def _answer(status: int, code: str, message: str, field: str | None, headers: dict[str, str]) -> Response:
    if is_for_programs():
        facts = {"code": code, "message": message} | ({"field": field} if field else {})
        response = jsonify(error=facts)
    else:
        page = render_template("kit/error.html", status=status, message=message, code=code, back=_way_back())
        response = current_app.make_response(page)
    response.status_code = status
    response.headers.extend(headers)
    return response


def _asked() -> str:
    route = request.url_rule.rule if request.url_rule else "an unknown address"
    return f"{request.method} {route}"


def _way_back() -> str | None:
    """Return the page of this site that a form was on."""
    try:
        came_from = urlsplit(request.referrer or "")
    except ValueError:
        return None
    if request.method == "GET" or came_from.netloc != request.host:
        return None
    return own_path(came_from.path + (f"?{came_from.query}" if came_from.query else ""))
