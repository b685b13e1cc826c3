"""Mail on the desk: the lanes, the mails that need a decision, one mail with each try and the server's words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, render_template, request

from app.kit.errors import InvalidInputError
from app.kit.host.clock import clock
from app.kit.mail import by_hand, lanes, suppressions, transports
from app.kit.mail.addresses import wire_address
from app.kit.mail.ledger import STATES
from app.kit.web.front_door import operator_only
from app.kit.web.json_in import MAX_ID, number_in_query
from app.kit.web.json_out import moment

COUNT_UP_TO = 10_000
"""More mails of a state are not counted, so that the page costs the same however long the ledger is."""

NEED_A_LOOK = ("unknown", "failed", "suppressed")
FEW = 3
PAGE_LENGTH = 50
SUPPRESSIONS_SHOWN = 10

ACTIONS = {
    "unknown": ("send-again", "mark-sent"),
    "failed": ("send-again",),
    "suppressed": ("send-again",),
    "cancelled": ("send-again",),
    "queued": ("cancel",),
}
"""What can be done to a mail in a state."""

bp = Blueprint("desk_mail", __name__)


# Pages


@bp.get("/desk/emails")
@operator_only
def mails() -> str:
    """List the mails of a state or an address, newest first."""
    state, to = request.args.get("state") or None, request.args.get("to", "").strip()
    if state is not None and state not in STATES:
        raise InvalidInputError("state must be one of " + ", ".join(STATES) + ".", "state")
    before = number_in_query("before", 1, MAX_ID, int)
    refused, found = None, []
    try:
        found = by_hand.find(state, wire_address(to) if to else None, PAGE_LENGTH + 1, before)
    except InvalidInputError as error:
        refused = error
    return render_template(
        "kit/desk_emails.html",
        emails=list(map(_with_moments, found[:PAGE_LENGTH])),
        is_more=len(found) > PAGE_LENGTH,
        state=state,
        to=to,
        refused=refused,
        states=STATES,
        actions=ACTIONS,
    )


@bp.get(f"/desk/emails/<int(max={MAX_ID}):email_id>")
@operator_only
def mail(email_id: int) -> str:
    """Show one mail: what became of it, each try, what the server said, and what can be done."""
    email = _with_moments(by_hand.details(email_id))
    return render_template("kit/desk_email.html", email=email, actions=ACTIONS.get(email["state"], ()))


# For the desk


def live() -> dict[str, Any]:
    """Return what changes by itself: the lanes, and how many mails there are in each state."""
    return {"mail_counts": by_hand.counts(up_to=COUNT_UP_TO + 1), "lanes": all_lanes()}


def lists() -> dict[str, Any]:
    """Return the newest mails that need a look, and the addresses that get no mail."""
    held_back = suppressions.find(SUPPRESSIONS_SHOWN + 1)
    return {
        "need_a_look": {
            state: list(map(_with_moments, by_hand.find(state, limit=FEW))) for state in NEED_A_LOOK
        },
        "suppressions": held_back[:SUPPRESSIONS_SHOWN],
        "more_suppressions": len(held_back) > SUPPRESSIONS_SHOWN,
        "email_actions": ACTIONS,
    }


def _with_moments(mail: dict[str, Any]) -> dict[str, Any]:
    """Turn the ledger's texts for moments into moments."""
    read = {
        key: datetime.fromisoformat(value) if key.endswith("_at") and value else value
        for key, value in mail.items()
    }
    return read | {"attempts": [_with_moments(attempt) for attempt in mail.get("attempts", ())]}


def all_lanes() -> list[dict[str, Any]]:
    """Return the lane that mail leaves by now, and the others that had trouble."""
    here, now = transports.transport().name, clock()
    others = [lane for lane in lanes.find_all() if lane.name != here]
    return [
        {
            "name": lane.name,
            "is_in_use": lane.name == here,
            "faults": lane.faults,
            "reason": lane.reason,
            "paused_until": moment(lane.paused_until) if lane.left_s(now) else None,
        }
        for lane in [lanes.find(here), *others]
    ]
