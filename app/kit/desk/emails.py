"""The ledger of mails for the operator: what became of each, and what to do about it."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request

from app.kit.errors import InvalidInputError
from app.kit.mail import by_hand, sending as emails
from app.kit.mail.addresses import wire_address
from app.kit.mail.ledger import STATES
from app.kit.web.front_door import operator_only
from app.kit.web.json_in import MAX_ID, number_in_query

ONE = f"/api/emails/<int(max={MAX_ID}):email_id>"

bp = Blueprint("emails", __name__)


@bp.get("/api/emails")
@operator_only
def find_as_json() -> dict[str, Any]:
    """Answer with the mails of a state or an address, newest first, and how many there are in each state."""
    state, to = request.args.get("state") or None, request.args.get("to") or None
    if state is not None and state not in STATES:
        raise InvalidInputError("state must be one of " + ", ".join(STATES) + ".", "state")
    before = number_in_query("before", 1, MAX_ID, int)
    found = by_hand.find(state, None if to is None else wire_address(to), before_id=before)
    return {"counts": by_hand.counts(), "emails": [_as_json(mail) for mail in found]}


@bp.get(ONE)
@operator_only
def details_as_json(email_id: int) -> dict[str, Any]:
    """Answer with one mail and each try to send it."""
    return _answer(email_id)


@bp.post(f"{ONE}/send-again")
@operator_only
def send_again(email_id: int) -> dict[str, Any]:
    """Send a mail again that was not sent, or of which nobody knows."""
    emails.send_again(email_id)
    return _answer(email_id)


@bp.post(f"{ONE}/mark-sent")
@operator_only
def mark_sent(email_id: int) -> dict[str, Any]:
    """Say of a mail whose outcome is unknown that it arrived."""
    by_hand.mark_sent(email_id)
    return _answer(email_id)


@bp.post(f"{ONE}/cancel")
@operator_only
def cancel(email_id: int) -> dict[str, Any]:
    """Take a mail back that waits."""
    emails.cancel(email_id)
    return _answer(email_id)


def _answer(email_id: int) -> dict[str, Any]:
    return {"email": _as_json(by_hand.details(email_id))}


def _as_json(mail: dict[str, Any]) -> dict[str, Any]:
    return {"to": mail["to_address"]} | {key: value for key, value in mail.items() if key != "to_address"}
