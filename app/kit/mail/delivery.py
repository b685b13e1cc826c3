"""Sends one mail of the ledger, and writes down what became of it and what follows."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from flask import current_app

from app.kit.database.file import database
from app.kit.errors import DatabaseBusyError, DatabaseUnusableError
from app.kit.host.clock import clock
from app.kit.mail import history, lanes, ledger, refusals, suppressions
from app.kit.mail.ledger import Email, Requeued
from app.kit.mail.message import with_sender
from app.kit.mail.replies import (
    BEFORE_MAIL,
    MailError,
    NotSentError,
    Reply,
    UnknownOutcomeError,
    Verdict,
)
from app.kit.mail.transports import Transport, transport
from app.settings import Settings

MAX_TRIES = 100
"""Tries of one mail, however the schedule is set."""

MAX_NAP_S = 1.0
"""A shorter wait for MAIL_PER_MINUTE is slept; a longer one pauses the lane, and the thread is free."""

MAX_UNKNOWN_TRIES = 3
"""Tries of a mail that may have sent it, whether an answer or a process was lost: so many copies at most."""

SPREAD = 0.2
"""Each wait is longer or shorter by up to this part of it, so that mails refused together come back apart."""

log = logging.getLogger("postroom.mail")


class LaneClosedError(Exception):
    """No mail can go for now; nothing is wrong with this one.

    `wronged` are mails that failed before it was clear that no mail can go.
    Units: `pause_s` for all mail, `behind_s` for this one.
    """

    def __init__(self, reason: str, pause_s: float, behind_s: float = 0, wronged: Sequence[int] = ()) -> None:
        self.pause_s = pause_s
        self.behind_s = behind_s
        self.wronged = wronged
        super().__init__(reason)


class TryLaterError(Exception):
    """This mail is to be tried again, by the schedule. Units: `delay_s`; `pause_s`, for all mail."""

    is_logged = True

    def __init__(self, error: MailError, delay_s: float) -> None:
        self.delay_s = delay_s
        self.pause_s = error.pause_s
        super().__init__(str(error))


def deliver(email_id: int, job: str) -> str:
    """Send a queued mail; return the state of its row, which may have been dealt with already.

    Raises: LaneClosedError, TryLaterError; NotSentError or UnknownOutcomeError when no try follows.
    """
    email = ledger.find(email_id)
    if email is None or email.job != job:
        log.info("mail %d is not job %s's any more", email_id, job)
        return "forgotten" if email is None else email.state
    if email.state in ("failed", "unknown"):  # settled, but the job died before it could end in the same way
        reply = email.reply or Reply("job", None, "", "")
        raise NotSentError(reply, Verdict.FAILED) if email.state == "failed" else UnknownOutcomeError(reply)
    if email.state not in ("queued", "sending"):
        return email.state
    settings: Settings = current_app.extensions["settings"]
    way = transport()
    try:
        return _try(email, way, settings)
    except (LaneClosedError, DatabaseBusyError, DatabaseUnusableError):
        raise
    except MailError as error:
        _settle(email, error, way, settings)
    except Exception as error:
        log.exception("mail %d: the transport has a bug", email.id)
        _settle(email, _of_a_bug(email, error), way, settings)


def _try(email: Email, way: Transport, settings: Settings) -> str:
    _look_back(email, way)
    if email.expires_at is not None and clock.settled_utc() >= email.expires_at:
        raise NotSentError(Reply("expiry", None, "", _expired(email)), Verdict.FAILED)
    reason = suppressions.reason_for(email.to_address, email.list_name)
    if reason is not None and email.maybe_sent_at is not None:
        raise NotSentError(Reply("suppression", None, "", reason), Verdict.FAILED)  # ends as unknown
    if reason is not None:
        ledger.mark_suppressed(email.id, reason)
        log.info("mail %d is not sent: %s", email.id, reason)
        return "suppressed"
    while wait_s := lanes.take_token(way.name, settings.mail_per_minute):
        if wait_s > MAX_NAP_S:
            raise LaneClosedError(f"MAIL_PER_MINUTE is {settings.mail_per_minute}", wait_s)
        time.sleep(wait_s)
    way.deliver(replace(email, message=_with_sender_of_today(email, settings.mail_from)))
    lanes.note_success(way.name)
    refusals.note_taken(way.name)
    after = ledger.find(email.id)
    return after.state if after else "forgotten"


def _with_sender_of_today(email: Email, mail_from: str) -> bytes:
    """Return the mail's bytes; those of one that may have been sent never change (P5)."""
    message = email.message if email.maybe_sent_at else with_sender(email.message, mail_from)
    if message != email.message:
        sql = "UPDATE postroom_emails SET message = ? WHERE id = ? AND state = 'queued'"
        database.write(lambda connection: connection.execute(sql, (message, email.id)))
    return message


def _look_back(email: Email, way: Transport) -> None:
    """See to a mail that an earlier try may have sent."""
    if email.maybe_sent_at is None:
        return
    is_lost = email.state == "sending"  # with its process, so it is not written down yet
    words = "the process ended before the answer was written down"
    reply = Reply("dot", None, "", words) if is_lost or email.reply is None else email.reply
    if not _may_go_again(email, way, history.unknown_tries(email.id) + is_lost):
        raise UnknownOutcomeError(reply)
    if is_lost:
        ledger.requeue(email.id, reply, email.began_at, "unknown")


def _settle(email: Email, error: MailError, way: Transport, settings: Settings) -> NoReturn:
    """Write down what became of a try; raise what follows from it."""
    verdict, wronged = error.verdict, list[int]()
    if isinstance(error, NotSentError) and verdict in refusals.FOR_GOOD:
        with database.transaction():
            verdict, wronged = refusals.weigh(way.name, email, error)
            ended = _end(email, error, verdict) if verdict in refusals.FOR_GOOD else None
        if ended is not None:
            raise ended
    if verdict is Verdict.UNKNOWN:
        if email.state == "queued":  # it was lost in this try, not in one before
            # One lost answer happens. The second in a row is the server's fault: no more mail is lost to it.
            error.pause_s = lanes.note_fault(way.name, error.reply, (0, *settings.mail_pause_delays_s))
        if _may_go_again(email, way, history.unknown_tries(email.id) + 1):
            verdict = Verdict.LATER
    if verdict is Verdict.LANE:
        _close_lane(email, error, way, settings, wronged)
    if verdict is Verdict.LATER:
        delay_s = _delay_s(email, error, settings)
        if email.tries + 1 < MAX_TRIES and not _expires_within(email, delay_s):
            outcome: Requeued = "unknown" if isinstance(error, UnknownOutcomeError) else "later"
            ledger.requeue(email.id, error.reply, email.began_at, outcome)
            log.warning("mail %d is tried again in %.0f s: %s", email.id, delay_s, error)
            raise TryLaterError(error, delay_s) from error
    raise _end(email, error, verdict)


def _end(email: Email, error: MailError, verdict: Verdict) -> MailError:
    """Write down that no try follows; return the error that says so."""
    log.warning("mail %d is given up: %s", email.id, error)
    if isinstance(error, NotSentError) and email.maybe_sent_at is not None:
        error = UnknownOutcomeError(error.reply)  # not this time; but an earlier try may have sent it
    with database.transaction():
        if isinstance(error, UnknownOutcomeError):
            ledger.mark_unknown(email.id, error.reply, email.began_at)
        else:
            ledger.mark_failed(email.id, error.reply, email.began_at)
        if verdict is Verdict.SUPPRESSED:
            suppressions.add(email.to_address, str(error.reply))
    return error


def _close_lane(
    email: Email, error: MailError, way: Transport, settings: Settings, wronged: Sequence[int]
) -> NoReturn:
    """Let all mail wait, this one behind the others where it may be to blame; raise LaneClosedError."""
    ledger.requeue(email.id, error.reply, email.began_at, "lane")
    stage, code = error.reply.stage, error.reply.code
    early = stage in BEFORE_MAIL or (stage == "http" and error.verdict is Verdict.LANE)
    # Who took MAIL is up: it may be this mail that it hangs up on, and the others must not wait for long.
    most = 2 if not early and stage != "mail" and code in (None, 421) else None
    pause_s = lanes.note_fault(way.name, error.reply, settings.mail_pause_delays_s[:most])
    behind_s = 0.0
    if stage == "mail":
        behind_s = 2 * pause_s  # another mail is the first after the pause
    elif not early:
        # Longer each time, or a few such mails take all the turns there are between two pauses.
        behind_s = pause_s + _delay_s(email, error, settings, history.lane_tries(email.id))
    log.error("all mail by %s waits %.0f s: %s", way.name, pause_s, error)
    reason = f"{way.name} {error.reply}"
    raise LaneClosedError(reason, pause_s, behind_s, wronged) from error


def _may_go_again(email: Email, way: Transport, unknown_tries: int) -> bool:
    """Say whether a mail that may have been sent may go again: by its policy, or since it is taken once only."""
    if unknown_tries >= MAX_UNKNOWN_TRIES:
        return False
    age_s = (datetime.now(UTC) - (email.maybe_sent_at or email.began_at)).total_seconds()
    # A try that lies ahead was written by a clock that was wrong: how long ago it was, nobody knows.
    return email.policy == "retry" or -60 < age_s < way.idempotent_for_s


def _delay_s(email: Email, error: MailError, settings: Settings, more_tries: int = 0) -> float:
    delays_s = settings.mail_retry_delays_s
    delay_s = delays_s[min(email.tries + more_tries, len(delays_s) - 1)]
    delay_s *= random.uniform(1 - SPREAD, 1 + SPREAD)
    return max(delay_s, error.reply.retry_after_s or 0)


def _expires_within(email: Email, delay_s: float) -> bool:
    return (
        email.expires_at is not None and clock.settled_utc() + timedelta(seconds=delay_s) >= email.expires_at
    )


def _expired(email: Email) -> str:
    tried = f"; {email.reply}" if email.reply else ""
    return f"it could not be sent in time, after {email.tries} tries{tried}"


def _of_a_bug(email: Email, error: Exception) -> MailError:
    reply = Reply("bug", None, "", f"{type(error).__name__}: {error}"[:500])
    after = ledger.find(email.id)
    if after is not None and after.state == "sending":
        return UnknownOutcomeError(reply)
    return NotSentError(reply, Verdict.LATER)
