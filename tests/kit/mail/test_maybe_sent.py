"""What becomes of a mail that may have been sent: it goes again or waits for a person, three times at most (P5)."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from flask import Flask

from app.kit.mail import lanes, ledger, suppressions
from app.kit.mail.delivery import TryLaterError
from app.kit.mail.replies import Reply, UnknownOutcomeError
from app.settings import Settings
from tests.kit.delivery_rig import (
    PAUSES_S,
    SOURCE,
    Another,
    add,
    change,
    deliver,
    outcomes,
    row,
    settings_for,
)
from tests.kit.smtp_sink import ACCEPT_AND_HANG_UP, HANG_UP, SILENCE, SmtpSink

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    return settings_for(tmp_path, sink)


@pytest.mark.parametrize("answer", [HANG_UP, ACCEPT_AND_HANG_UP])
def test_unknown_outcome_is_sent_again_the_same_to_the_byte_under_retry(sink: SmtpSink, answer: str) -> None:
    sink.answer("dot", answer)
    email_id = add("retry")
    with pytest.raises(TryLaterError):
        deliver(email_id)
    assert (row(email_id)["state"], row(email_id)["tries"]) == ("queued", 1)
    assert deliver(email_id) == "sent"
    assert set(sink.messages) == {("cleo@example.com", SOURCE)}
    assert outcomes(email_id) == ["unknown", "sent"]


def test_a_mail_that_may_have_been_sent_never_ends_as_failed(sink: SmtpSink) -> None:
    sink.answer("dot", ACCEPT_AND_HANG_UP)
    email_id = add("retry")
    with pytest.raises(TryLaterError):
        deliver(email_id)
    sink.answer("rcpt", "550 5.1.1 no such reader")
    with pytest.raises(UnknownOutcomeError, match="no such reader"):
        deliver(email_id)
    assert row(email_id)["state"] == "unknown"
    assert suppressions.reason_for("cleo@example.com") is not None


def test_unknown_outcome_stays_unknown_under_hold(sink: SmtpSink) -> None:
    sink.answer("dot", ACCEPT_AND_HANG_UP)
    email_id = add("hold")
    for _ in range(2):  # the second time for a job that died before it could fail
        with pytest.raises(UnknownOutcomeError):
            deliver(email_id)
        assert row(email_id)["state"] == "unknown"
    assert (len(sink.messages), outcomes(email_id)) == (1, ["unknown"])


def test_mail_that_was_given_to_another_job_in_the_middle_is_left_to_that(
    sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    email_id = add()
    mark_sending = ledger.mark_sending

    def late(email_id: int, job: str) -> bool:
        change(email_id, "job = 'job-2'")  # cancelled, and sent again, by hand
        return mark_sending(email_id, job)

    monkeypatch.setattr(ledger, "mark_sending", late)
    assert deliver(email_id) == "queued"
    assert sink.messages == []
    monkeypatch.undo()
    assert deliver(email_id, 2) == "sent"


def test_mail_a_dead_process_left_is_sent_again_at_once_under_retry(sink: SmtpSink) -> None:
    email_id = add("retry")
    ledger.mark_sending(email_id)
    assert deliver(email_id) == "sent"
    assert (len(sink.messages), outcomes(email_id)) == (1, ["unknown", "sent"])


def test_mail_that_may_have_been_sent_does_not_end_as_suppressed(sink: SmtpSink) -> None:
    sink.answer("dot", ACCEPT_AND_HANG_UP)
    email_id = add("retry")
    with pytest.raises(TryLaterError):
        deliver(email_id)
    suppressions.add("cleo@example.com", "unsubscribed")
    with pytest.raises(UnknownOutcomeError, match="unsubscribed"):
        deliver(email_id)
    assert (row(email_id)["state"], len(sink.messages)) == ("unknown", 1)


def test_mail_a_dead_process_left_is_unknown_under_hold(sink: SmtpSink) -> None:
    email_id = add("hold")
    ledger.mark_sending(email_id)
    with pytest.raises(UnknownOutcomeError, match="the process ended"):
        deliver(email_id)
    assert (row(email_id)["state"], sink.connections) == ("unknown", 0)


@pytest.mark.parametrize("year", [2000, 2100])  # by a clock that was ahead: nobody knows how long ago it was
def test_a_transport_that_knows_its_mails_may_get_them_again_as_long_as_it_does(
    app: Flask, year: int
) -> None:
    lost = UnknownOutcomeError(Reply("http", None, "", "no answer"))
    way = app.extensions["transport"] = Another(lost, idempotent_for_s=3600)
    email_id = add("hold")
    with pytest.raises(TryLaterError):
        deliver(email_id)
    way.error = None
    assert deliver(email_id) == "sent"
    too_late = add("hold", number=2)
    way.error = lost
    with pytest.raises(TryLaterError):
        deliver(too_late, number=2)
    change(too_late, f"maybe_sent_at = '{year}-01-01T00:00:00.000Z'")
    with pytest.raises(UnknownOutcomeError):
        deliver(too_late, number=2)
    assert (row(too_late)["state"], way.taken) == ("unknown", 3)


def test_row_says_sending_while_the_server_may_have_the_mail(app: Flask, sink: SmtpSink) -> None:
    sink.answer("dot", SILENCE)
    email_id = add()

    def send() -> None:
        with app.app_context(), pytest.raises(TryLaterError):
            deliver(email_id)

    thread = threading.Thread(target=send)
    thread.start()
    deadline = time.monotonic() + 10
    while row(email_id)["state"] != "sending" and time.monotonic() < deadline:
        time.sleep(0.005)
    assert row(email_id)["state"] == "sending"
    sink.stop()
    thread.join(10)
    assert row(email_id)["state"] == "queued"


def test_a_server_that_loses_one_answer_after_the_other_gets_no_more_mail_for_a_while(sink: SmtpSink) -> None:
    sink.answer("dot", HANG_UP, times=3)
    pauses = []
    for number in range(1, 4):
        email_id = add("hold", number=number)
        with pytest.raises(UnknownOutcomeError) as caught:
            deliver(email_id, number)
        pauses.append(round(caught.value.pause_s))
        lanes.open_all()
    assert pauses == [0, *PAUSES_S]


def test_a_mail_may_have_been_sent_three_times_and_no_more(sink: SmtpSink) -> None:
    sink.answer("dot", ACCEPT_AND_HANG_UP, times=9)
    email_id = add("retry")
    for _ in range(2):
        with pytest.raises(TryLaterError):
            deliver(email_id)
        lanes.open_all()
    with pytest.raises(UnknownOutcomeError):
        deliver(email_id)
    assert (row(email_id)["state"], len(sink.messages)) == ("unknown", 3)
    assert outcomes(email_id) == ["unknown"] * 3


@pytest.mark.parametrize("lost_answers", [0, 1, 2])
def test_tries_that_were_lost_with_their_process_count_like_lost_answers(
    sink: SmtpSink, lost_answers: int
) -> None:
    sink.answer("dot", ACCEPT_AND_HANG_UP, times=lost_answers)
    email_id = add("retry")
    for _ in range(lost_answers):
        with pytest.raises(TryLaterError):
            deliver(email_id)
        lanes.open_all()
    for _ in range(2 - lost_answers):
        ledger.mark_sending(email_id)
        ledger.requeue(email_id, Reply("dot", None, "", "the process ended"), outcome="unknown")
    ledger.mark_sending(email_id)  # the third, and its process dies
    with pytest.raises(UnknownOutcomeError, match="the process ended"):
        deliver(email_id)
    assert (row(email_id)["state"], len(sink.messages)) == ("unknown", lost_answers)
    assert outcomes(email_id) == ["unknown"] * 3
