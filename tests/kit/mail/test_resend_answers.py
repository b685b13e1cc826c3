"""What becomes of a mail's row, by each answer of Resend's and by none: a real HTTP server plays them all."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask import Flask

from app.kit.database.file import database
from app.kit.mail import lanes, ledger
from app.kit.mail.delivery import LaneClosedError, TryLaterError, deliver
from app.kit.mail.replies import NotSentError, UnknownOutcomeError
from app.kit.mail.resend import (
    MAX_ANSWER_BYTES,
    MAX_WORDS,
    QUOTA_PAUSE_S,
    VERDICTS,
    ResendTransport,
    retry_after_s,
)
from tests.kit.resend_rig import (
    JOB,
    SENDER,
    add,
    mail_app,
    row,
    source,
)
from tests.kit.resend_server import (
    ACCEPT_AND_HANG_UP,
    ACCEPT_AND_SAY_NOTHING,
    HANG_UP,
    SILENCE,
    Answer,
    ResendServer,
    refusal,
)


@pytest.fixture
def server() -> Iterator[ResendServer]:
    with ResendServer() as server:
        yield server


@pytest.fixture
def app(tmp_path: Path, server: ResendServer) -> Iterator[Flask]:
    """An app that has mail and nothing else."""
    with mail_app(tmp_path, server) as app:
        yield app


# What becomes of the row, answer by answer

SITES = [
    (401, "missing_api_key", "Missing API key in the authorization header."),
    (401, "restricted_api_key", "This API key is restricted to only send emails."),
    (403, "invalid_api_key", "API key is invalid."),
    (400, "validation_error", "API key is invalid"),
    (403, "validation_error", "The books.example domain is not verified."),
    (403, "invalid_from_address", "The from address is not valid."),
    (422, "invalid_from_address", "The address is not valid."),
    (422, "validation_error", "Invalid `from` field. The email address needs to follow a format."),
    (404, "not_found", "The requested endpoint does not exist."),
    (405, "method_not_allowed", "Method is not allowed for the requested path."),
    (429, "rate_limit_exceeded", "Too many requests."),
]
MAILS = [
    (
        403,
        "validation_error",
        "You can only send testing emails to your own email address (me@b.example).",
    ),
    (403, "invalid_to_address", "You can only send testing emails to your own email address."),
    (422, "validation_error", "Invalid `to` field. The email address needs to follow a format."),
    (422, "missing_required_field", "Missing `subject` field."),
    (422, "invalid_attachment", "Attachment must have either a `content` or `path`."),
    (400, "validation_error", "We found an error with one or more fields in the request."),
    (400, "invalid_idempotency_key", "The key must be between 1-256 chars."),
    (413, "payload_too_large", "The request is too large."),
    (409, "invalid_idempotent_request", "Same key used with a different payload."),
]
PASSING = [
    refusal(409, "concurrent_idempotent_requests", "Same key used while the original is in progress."),
    refusal(451, "security_error", "We may have found a security issue with the request."),
    refusal(408, "timeout", "too slow"),
    refusal(418, "teapot", "short and stout"),
    Answer(403, b"<html>blocked by the firewall</html>"),
    Answer(422, b"\xff\x00 not JSON"),
    Answer(400, b'["a list"]'),
    Answer(413, b""),
]


@pytest.mark.parametrize("row", range(len(VERDICTS)), ids=[pattern for pattern, _ in VERDICTS])
def test_each_row_of_the_table_decides_some_case(row: int) -> None:
    lines = [f"{status} {name} {message}".lower() for status, name, message in (*SITES, *MAILS)]
    lines += [f"{answer.status} - " for answer in PASSING] + ["302 - moved"]
    fits = [
        next(n for n, (pattern, _) in enumerate(VERDICTS) if re.fullmatch(pattern, line)) for line in lines
    ]
    assert row in fits


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(("status", "name", "message"), SITES)
def test_fault_of_the_site_pauses_the_lane_and_burns_no_try(
    server: ResendServer, status: int, name: str, message: str
) -> None:
    server.answer(refusal(status, name, message))
    email_id = add()
    with pytest.raises(LaneClosedError, match=name):
        deliver(email_id, JOB)
    found = row(email_id)
    assert (found["state"], found["tries"], found["code"]) == ("queued", 0, status)
    assert lanes.find("resend").faults == 1


@pytest.mark.usefixtures("app")
def test_a_mail_refused_for_the_sender_lets_another_try_first(server: ResendServer) -> None:
    server.answer(refusal(403, "validation_error", "The books.example domain is not verified."))
    with pytest.raises(LaneClosedError) as closed:
        deliver(add(), JOB)
    assert closed.value.behind_s > closed.value.pause_s > 0


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(("status", "name", "message"), MAILS)
def test_fault_of_the_mail_fails_it(server: ResendServer, status: int, name: str, message: str) -> None:
    server.answer(refusal(status, name, message))
    email_id = add()
    with pytest.raises(NotSentError, match=name):
        deliver(email_id, JOB)
    found = row(email_id)
    assert (found["state"], found["words"]) == ("failed", f"{name} {message}")


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("answer", PASSING)
def test_what_may_pass_is_tried_later(server: ResendServer, answer: Answer) -> None:
    server.answer(answer)
    email_id = add()
    with pytest.raises(TryLaterError):
        deliver(email_id, JOB)
    assert (row(email_id)["state"], row(email_id)["tries"]) == ("queued", 1)
    assert deliver(email_id, JOB) == "sent"


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("name", ["daily_quota_exceeded", "monthly_quota_exceeded"])
@pytest.mark.parametrize("headers", [{}, {"retry_after": "1"}])
def test_quota_that_is_used_up_pauses_the_lane_for_long(
    server: ResendServer, name: str, headers: dict[str, str]
) -> None:
    server.answer(refusal(429, name, "You have reached your quota.", **headers))
    with pytest.raises(LaneClosedError) as caught:
        deliver(add(), JOB)
    assert caught.value.pause_s == QUOTA_PAUSE_S


@pytest.mark.usefixtures("app")
def test_rate_limit_pauses_the_lane_for_as_long_as_resend_says(server: ResendServer) -> None:
    server.answer(refusal(429, "rate_limit_exceeded", "Too many requests.", retry_after="777"))
    with pytest.raises(LaneClosedError) as caught:
        deliver(add(), JOB)
    assert caught.value.pause_s == 777


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("Fri, 02 Jan 2026 10:01:30 GMT", 90),
        ("Fri, 02 Jan 2026 09:00:00 GMT", 0),
        ("Fri, 02 Jan 2099 09:00:00 GMT", 24 * 3600),
        ("9" * 400, 24 * 3600),
        ("soon", None),
        ("-5", None),
        ("nan", None),
        ("Fri, 99 Jan 2026 10:01:30 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, expected: float | None) -> None:
    assert retry_after_s(text, datetime(2026, 1, 2, 10, 0, tzinfo=UTC)) == expected


# When the answer does not come, or cannot be read


YES_CUT_OFF = Answer(200, b'{"id": "49a3999c', accept=True, manner="cut off")
UNREADABLE = [
    HANG_UP,
    ACCEPT_AND_HANG_UP,
    SILENCE,
    ACCEPT_AND_SAY_NOTHING,
    YES_CUT_OFF,
    Answer(200, b"x" * (2 * MAX_ANSWER_BYTES), accept=True),
    Answer(200, b'{"id": "49a3999c"}' + b" " * 1000, accept=True, manner="dribble"),
    Answer(200, b"<html>Please sign in to this network</html>"),
    Answer(200, b'{"object": "no id"}', accept=True),
    Answer(200, b"[" * 60_000, accept=True),
    refusal(500, "application_error", "An unexpected error occurred.", accept=True),
    refusal(500, "internal_server_error", "An unexpected error occurred."),
    Answer(502, b"<html>bad gateway</html>"),
    Answer(503, b""),
    Answer(504, b"", accept=True),
]


@pytest.mark.parametrize("mail_policy", ["retry", "hold"])
@pytest.mark.parametrize("answer", UNREADABLE, ids=range(len(UNREADABLE)))
def test_lost_answer_is_asked_for_again_and_nothing_is_sent_twice(
    app: Flask, server: ResendServer, answer: Answer, mail_policy: ledger.Policy
) -> None:
    server.answer(answer)
    email_id = add(mail_policy)
    patient = app.extensions["transport"]
    if answer.manner in ("silence", "dribble"):
        app.extensions["transport"] = ResendTransport(server.url, SENDER, answer_s=0.2)
    with pytest.raises(TryLaterError):
        deliver(email_id, JOB)
    assert (row(email_id)["state"], row(email_id)["stage"]) == ("queued", "http")
    assert row(email_id)["maybe_sent_at"] is not None
    assert len(row(email_id)["words"]) <= MAX_WORDS
    assert server.arrived.wait(10)
    assert len(server.emails) == int(answer.accept)
    app.extensions["transport"] = patient
    assert deliver(email_id, JOB) == "sent"
    assert len(server.emails) == 1
    assert server.emails[0]["id"] in row(email_id)["words"]
    assert len(server.requests) == 2


def test_answer_without_an_end_is_read_to_a_bound(app: Flask, server: ResendServer) -> None:
    app.extensions["transport"] = ResendTransport(server.url, SENDER, answer_s=1)
    server.answer(Answer(422, b"x" * 64 * 1024, manner="endless"))
    email_id = add()
    with pytest.raises(TryLaterError):
        deliver(email_id, JOB)
    assert row(email_id)["words"].startswith("- xxx")


@pytest.mark.usefixtures("app")
def test_held_mail_is_unknown_once_resend_may_have_forgotten_it(server: ResendServer) -> None:
    server.answer(ACCEPT_AND_HANG_UP)
    email_id = add("hold")
    with pytest.raises(TryLaterError):
        deliver(email_id, JOB)
    sql = "UPDATE postroom_emails SET maybe_sent_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-24 hours')"
    database.write(lambda connection: connection.execute(sql).rowcount)
    with pytest.raises(UnknownOutcomeError):
        deliver(email_id, JOB)
    assert (row(email_id)["state"], len(server.requests)) == ("unknown", 1)


@pytest.mark.usefixtures("app")
def test_other_content_under_a_key_that_was_used_is_refused_and_not_sent(server: ResendServer) -> None:
    server.answer(ACCEPT_AND_HANG_UP)
    email_id = add()
    with pytest.raises(TryLaterError):
        deliver(email_id, JOB)
    changed = source("another subject")
    sql = "UPDATE postroom_emails SET message = ? WHERE id = ?"
    database.write(lambda connection: connection.execute(sql, (changed, email_id)).rowcount)
    with pytest.raises(UnknownOutcomeError, match="invalid_idempotent_request"):
        deliver(email_id, JOB)
    assert (row(email_id)["state"], len(server.emails)) == ("unknown", 1)


def test_row_says_sending_while_resend_may_have_the_mail(app: Flask, server: ResendServer) -> None:
    server.answer(SILENCE)
    email_id = add()

    def send() -> None:
        with app.app_context(), pytest.raises(TryLaterError):
            deliver(email_id, JOB)

    thread = threading.Thread(target=send)
    thread.start()
    assert server.arrived.wait(10)
    assert row(email_id)["state"] == "sending"
    server.stopping.set()
    thread.join(10)
    assert row(email_id)["state"] == "queued"
