"""Bodies of requests: read whole, or refused, before any page sees them."""

from __future__ import annotations

from flask import Flask, request
from werkzeug.exceptions import BadRequest, ClientDisconnected, HTTPException, RequestEntityTooLarge


def register(app: Flask) -> None:
    """Refuse bodies that are too long, or break off.

    Behind gunicorn werkzeug takes what there is of them for the whole: a form would lose its last fields unseen.
    """

    @app.before_request
    def read_whole() -> None:
        length, is_chunked = request.content_length, "Transfer-Encoding" in request.headers
        if not length and not is_chunked:
            return
        try:
            found = len(request.get_data())
        except HTTPException:
            raise
        except Exception as error:  # gunicorn has a class of its own for each way to break the format
            raise BadRequest("The body could not be read.") from error
        if length is None and found >= app.config["MAX_CONTENT_LENGTH"]:
            raise RequestEntityTooLarge
        if length is not None and found < length:
            raise ClientDisconnected
