"""Requests as no browser writes them: refused in a line, before a page or an error page stumbles over them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flask import Request, Response
from werkzeug.datastructures import Authorization
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge
from werkzeug.utils import cached_property

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

MAX_FIELDS = 1000
"""Of a form or a query: each costs some microseconds of the interpreter, which nobody else has meanwhile."""

MAX_PATH = 4096


class OddRequest(Request):
    """A request whose parts can be asked for, whatever a client wrote into them."""

    @cached_property
    def authorization(self) -> Authorization | None:
        """Return who the request says it is from; None when that cannot be read."""
        try:
            return super().authorization
        except ValueError:
            return None

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the body's JSON.

        Raises: BadRequest, if it is none and that is not to be passed over in silence.
        """
        try:
            return super().get_json(force, silent, cache)
        except RecursionError as error:
            if silent:
                return None
            raise BadRequest("The body is nested too deeply.") from error

    def _load_form_data(self) -> None:
        if "form" in self.__dict__:
            return
        is_plain = self.mimetype == "application/x-www-form-urlencoded"
        if is_plain and self.get_data().count(b"&") >= MAX_FIELDS:
            raise RequestEntityTooLarge
        try:
            super()._load_form_data()
        except HTTPException:
            raise
        except Exception as error:  # the parser trusts what a client says of its own body
            raise BadRequest("The form could not be read.") from error
        if None in self.form or None in self.files:
            raise BadRequest("A field of the form has no name.")


def fault(environ: WSGIEnvironment) -> str | None:
    """Say what is wrong with a request that not even an error page can be made for."""
    if (
        len(environ.get("PATH_INFO", "")) > MAX_PATH
        or environ.get("QUERY_STRING", "").count("&") >= MAX_FIELDS
    ):
        return "The address is too long."
    return None


def plain_answer(environ: WSGIEnvironment, status: int, code: str, message: str) -> Response:
    """Answer where no template can be rendered."""
    if environ.get("PATH_INFO", "").startswith("/api/"):
        return Response(
            json.dumps({"error": {"code": code, "message": message}}), status, mimetype="application/json"
        )
    return Response(message + "\n", status, mimetype="text/plain")
