"""What a visitor and a client of the API see when something goes wrong."""

from __future__ import annotations

import logging

from flask import Flask, Response, current_app, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from app.errors import DatabaseBusyError, OperatorOnlyError, PostroomError, QueueFullError

TRY_AGAIN = (DatabaseBusyError, QueueFullError)
TRY_AGAIN_S = 5
OUR_FAULT = "Something went wrong on our side. It has been noted in the log."
IN_PLAIN_WORDS = {
    404: "There is nothing at this address.",
    405: "This address does not take that kind of request.",
    413: "That is more than the site takes at once.",
}

log = logging.getLogger("postroom.pages")


def register(app: Flask) -> None:
    """Answer every error in the shape its address calls for: JSON under /api, else a page."""
    app.register_error_handler(PostroomError, _named_error)
    app.register_error_handler(HTTPException, _http_error)


def _named_error(error: PostroomError) -> Response:
    message, headers = str(error), {}
    if isinstance(error, TRY_AGAIN):
        headers["Retry-After"] = str(getattr(error, "retry_after_s", TRY_AGAIN_S))
    elif isinstance(error, OperatorOnlyError):
        headers["WWW-Authenticate"] = 'Bearer realm="the operator"'
    elif error.status >= 500:
        # Its message is for whoever runs the site, and may name files of this machine.
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        message = OUR_FAULT
    return _answer(error.status, error.code, message, getattr(error, "field", None), headers)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    message = OUR_FAULT if status == 500 else IN_PLAIN_WORDS.get(status, error.description or error.name)
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return _answer(status, error.name.lower().replace(" ", "_"), message, None, headers)


def _answer(status: int, code: str, message: str, field: str | None, headers: dict[str, str]) -> Response:
    if request.path.startswith("/api/"):
        facts = {"code": code, "message": message} | ({"field": field} if field else {})
        response = jsonify(error=facts)
    else:
        page = render_template("error.html", status=status, message=message)
        response = current_app.make_response(page)
    response.status_code = status
    response.headers.extend(headers)
    return response
