"""What clients send: JSON bodies and numbers in the query, refused by name when they are not usable."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from flask import request
from werkzeug.exceptions import UnsupportedMediaType

from app.kit.errors import InvalidInputError

Number = TypeVar("Number", int, float)

MAX_ID = 2**63 - 1
"""SQLite knows no larger number."""


def json_object() -> dict[str, Any]:
    """Return the request's body, which must be a JSON object.

    Raises: InvalidInputError; UnsupportedMediaType when the body does not say that it is JSON.
    """
    # A form on another site cannot send this type, so none can speak to the API in a reader's name.
    if not request.is_json:
        raise UnsupportedMediaType("Send JSON, with the header Content-Type: application/json.")
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("The body is not valid JSON.") from error
    if not isinstance(body, dict):
        raise InvalidInputError('The body must be a JSON object, such as {"title": "..."}.')
    return body


def text(body: dict[str, Any], field: str) -> str:
    """Return one text field of a body; unknown fields beside it do not matter.

    Raises: InvalidInputError naming the field.
    """
    value = body.get(field)
    if value is None:
        raise InvalidInputError(f"The {field} is missing.", field)
    if not isinstance(value, str):
        raise InvalidInputError(f"The {field} must be text.", field)
    return value


def number_in_query(name: str, low: Number, high: Number, parse: Callable[[str], Number]) -> Number | None:
    """Return a number of the query, or None if it is not there; `parse` is int or float.

    Raises: InvalidInputError naming it.
    """
    found = request.args.get(name)
    if not found:
        return None
    try:
        number = parse(found)
        if low <= number <= high:
            return number
    except ValueError:
        pass  # told in the same words as a number out of bounds
    raise InvalidInputError(f"{name} must be a number from {low} to {high}.", name)
