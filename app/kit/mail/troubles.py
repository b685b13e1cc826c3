"""What is wrong with mail at this moment, in sentences that anybody may read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.kit.database.file import database
from app.kit.host.clock import clock
from app.kit.mail import by_hand, lanes
from app.kit.mail.ledger import utc_text


def find(now: float | None = None) -> list[str]:
    """Return a sentence for each trouble with mail: a lane that pauses, mails that were refused or may be lost."""
    moment = clock() if now is None else now
    return [*_paused_lanes(moment), *_unknown(), *_refused(moment)]


def _paused_lanes(now: float) -> list[str]:
    # The server's words stay in the log and with the operator: they may name accounts.
    return [
        "The mail server cannot be used, so all mail waits; the next try is at "
        f"{datetime.fromtimestamp(lane.paused_until, UTC):%Y-%m-%dT%H:%M:%SZ}. The log says what ails it."
        for lane in lanes.find_all()
        if lane.left_s(now)
    ]


def _unknown() -> list[str]:
    count = by_hand.counts(["unknown"])["unknown"]
    if not count:
        return []
    return [
        f"{_mails(count)} may or may not have been sent; the operator decides, at /api/emails?state=unknown."
    ]


def _mails(count: int) -> str:
    return "1 mail" if count == 1 else f"{count} mails"


def _refused(now: float) -> list[str]:
    yesterday = utc_text(datetime.fromtimestamp(now, UTC) - timedelta(days=1))
    sql = "SELECT COUNT(*) FROM postroom_emails WHERE state = 'failed' AND answered_at > ?"
    count = database.read(sql, (yesterday,))[0][0]
    if not count:
        return []
    return [f"{_mails(count)} could not be sent in the last 24 hours; see /api/emails?state=failed."]
