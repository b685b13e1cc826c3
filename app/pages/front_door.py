"""Who may come in: the operator shows the token that was printed at the start."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import current_app, request

from app.errors import OperatorOnlyError


def operator_only(view: Callable[..., Any]) -> Callable[..., Any]:
    """Answer with a view only to requests that carry `Authorization: Bearer <ADMIN_TOKEN>`."""

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not _is_operator():
            raise OperatorOnlyError(
                "Only the operator may see this: send the header Authorization: Bearer <ADMIN_TOKEN>."
            )
        return view(*args, **kwargs)

    return guarded


def _is_operator() -> bool:
    authorization = request.authorization
    if authorization is None or authorization.type != "bearer" or not authorization.token:
        return False
    token: str = current_app.extensions["settings"].admin_token
    # Compared in the same time wherever the first difference is.
    return hmac.compare_digest(authorization.token.encode(), token.encode())
