"""What becomes of a mail's row and what follows from it, with a real SMTP server at the other end (P5)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app.kit.database.file import database
from app.kit.errors import DatabaseBusyError
from app.kit.mail import delivery, handover, lanes, ledger, suppressions
from app.kit.mail.delivery import LaneClosedError, TryLaterError
from app.kit.mail.replies import NotSentError, UnknownOutcomeError, Verdict
from app.kit.mail.transports import transport
from app.settings import Settings
from tests.kit.delivery_rig import (
    DELAYS_S,
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
from tests.kit.smtp_sink import HANG_UP, SmtpSink

pytestmark = pytest.mark.usefixtures("app")


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    return settings_for(tmp_path, sink)


# Taken


def test_mail_the_server_took_is_sent(sink: SmtpSink) -> None:
    email_id = add()
    assert deliver(email_id) == "sent"
    assert sink.messages == [("cleo@example.com", SOURCE)]
    assert (row(email_id)["state"], row(email_id)["words"]) == ("sent", "kept")
    assert outcomes(email_id) == ["sent"]


@pytest.mark.parametrize(("maybe_sent", "sender"), [(False, b"new"), (True, b"old")])
def test_mail_goes_from_the_sender_of_today_unless_it_may_have_gone_before(
    app: Flask, sink: SmtpSink, maybe_sent: bool, sender: bytes
) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], mail_from="new@b.example")
    email_id = add()
    database.write(
        lambda c: c.execute("UPDATE postroom_emails SET message = ?", (b"From: old@b.example\r\n" + SOURCE,))
    )
    if maybe_sent:
        change(email_id, "maybe_sent_at = created_at")
    assert deliver(email_id) == "sent"
    assert sink.messages[0][1] == b"From: %s@b.example\r\n" % sender + SOURCE
    assert row(email_id)["message"] == sink.messages[0][1]


def test_mail_is_not_sent_twice_nor_by_a_job_that_is_not_its_own(sink: SmtpSink) -> None:
    email_id = add()
    assert deliver(email_id, number=2) == "queued"
    assert sink.messages == []
    assert [deliver(email_id), deliver(email_id), deliver(999)] == ["sent", "sent", "forgotten"]
    assert len(sink.messages) == 1


def test_mail_that_was_cancelled_in_the_middle_is_not_sent(
    sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    email_id = add()
    mark_sending = ledger.mark_sending

    def late(email_id: int, job: str) -> bool:
        change(email_id, "state = 'cancelled'")
        return mark_sending(email_id, job)

    monkeypatch.setattr(ledger, "mark_sending", late)
    assert deliver(email_id) == "cancelled"
    assert sink.messages == []


def test_a_yes_that_cannot_be_written_down_is_written_down_later(
    sink: SmtpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_sent, tries = ledger.mark_sent, iter([DatabaseBusyError("busy"), DatabaseBusyError("busy")])

    def busy(*args: Any) -> bool:
        for error in tries:
            raise error
        return mark_sent(*args)

    monkeypatch.setattr(ledger, "mark_sent", busy)
    monkeypatch.setattr(handover, "RECORD_DELAYS_S", (0, 0, 0))
    email_id = add("hold")
    assert deliver(email_id) == "sent"
    assert len(sink.messages) == 1


def test_a_yes_that_can_never_be_written_down_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any) -> bool:
        raise DatabaseBusyError("busy")

    monkeypatch.setattr(ledger, "mark_sent", busy)
    monkeypatch.setattr(handover, "RECORD_DELAYS_S", (0, 0))
    email_id = add("hold")
    with pytest.raises(UnknownOutcomeError, match=r"it was taken .*250.* could not be written down"):
        deliver(email_id)
    assert row(email_id)["state"] == "unknown"


# Refused


def test_passing_refusal_is_tried_again_by_the_schedule(sink: SmtpSink) -> None:
    sink.answer("rcpt", "450 4.2.0 greylisted", times=3)
    email_id = add()
    for delay_s in (100, 200, 200):
        with pytest.raises(TryLaterError, match=r"450 4\.2\.0 greylisted") as caught:
            deliver(email_id)
        assert 0.8 * delay_s <= caught.value.delay_s <= 1.2 * delay_s
    assert (row(email_id)["state"], row(email_id)["tries"]) == ("queued", 3)
    assert deliver(email_id) == "sent"
    assert outcomes(email_id) == ["later", "later", "later", "sent"]


def test_the_servers_wish_lengthens_the_wait(sink: SmtpSink) -> None:
    sink.answer("rcpt", "450 4.2.0 greylisted, try again in 30 minutes")
    with pytest.raises(TryLaterError) as caught:
        deliver(add())
    assert caught.value.delay_s == 1800


def test_refusal_for_good_fails_the_mail(sink: SmtpSink) -> None:
    sink.answer("dot", "554 5.6.0 not this message")
    email_id = add()
    with pytest.raises(NotSentError, match=r"554 5\.6\.0 not this message"):
        deliver(email_id)
    found = row(email_id)
    assert (found["state"], found["code"], found["enhanced"]) == ("failed", 554, "5.6.0")
    assert suppressions.find() == []
    with pytest.raises(NotSentError):  # a job that died before it could fail, too
        deliver(email_id)
    assert outcomes(email_id) == ["failed"]


def test_mailbox_that_does_not_exist_gets_no_more_mail(sink: SmtpSink) -> None:
    sink.answer("rcpt", "550 5.1.1 no such reader")
    with pytest.raises(NotSentError):
        deliver(add())
    connections = sink.connections
    second = add(number=2)
    assert deliver(second, number=2) == "suppressed"
    assert "550 5.1.1 no such reader" in row(second)["words"]
    assert sink.connections == connections


def test_refusal_for_the_senders_sake_suppresses_nobody(sink: SmtpSink) -> None:
    sink.answer("rcpt", "550 5.7.1 your site is not liked")
    with pytest.raises(NotSentError):
        deliver(add())
    assert suppressions.find() == []


def test_who_has_unsubscribed_gets_no_mail_of_that_list_and_all_other_mail(sink: SmtpSink) -> None:
    suppressions.add("Cleo@example.com", "unsubscribed", "genre-mystery")
    of_the_list, other = add(list_name="genre-mystery"), add(number=2)
    assert deliver(of_the_list) == "suppressed"
    assert row(of_the_list)["words"] == "unsubscribed"
    assert deliver(other, number=2) == "sent"
    assert len(sink.messages) == 1


def test_the_last_try_fails_the_mail(sink: SmtpSink) -> None:
    sink.answer("rcpt", "450 4.2.0 greylisted", times=2)
    email_id = add()
    change(email_id, f"tries = {delivery.MAX_TRIES - 1}")
    with pytest.raises(NotSentError):
        deliver(email_id)
    assert row(email_id)["state"] == "failed"


@pytest.mark.parametrize(("left_s", "connects"), [(-1, 0), (60, 1)])
def test_mail_that_cannot_come_in_time_fails(sink: SmtpSink, left_s: float, connects: int) -> None:
    sink.answer("rcpt", "450 4.2.0 greylisted")
    email_id = add()
    change(email_id, f"expires_at = '{ledger.utc_text(datetime.now(UTC) + timedelta(seconds=left_s))}'")
    with pytest.raises(NotSentError):
        deliver(email_id)
    assert (row(email_id)["state"], sink.connections) == ("failed", connects)


# The lane


@pytest.mark.parametrize("answer", ["421 4.3.2 closing", "554 no mail from you", HANG_UP])
def test_a_fault_of_the_server_pauses_the_lane_and_burns_no_try(sink: SmtpSink, answer: str) -> None:
    sink.answer("connect", answer, times=3)
    email_id = add()
    for pause_s in (*PAUSES_S, PAUSES_S[-1]):
        with pytest.raises(LaneClosedError) as caught:
            deliver(email_id)
        assert (round(caught.value.pause_s), caught.value.behind_s) == (pause_s, 0)
        assert lanes.open_all()
    assert (row(email_id)["state"], row(email_id)["tries"]) == ("queued", 0)
    assert outcomes(email_id) == ["lane"] * 3
    assert deliver(email_id) == "sent"
    assert lanes.find(transport().name).faults == 0


def test_mails_the_server_hangs_up_on_do_not_take_all_the_turns(sink: SmtpSink, app: Flask) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], mail_pause_delays_s=(5, 30, 900))
    sink.answer("data", HANG_UP, times=4)
    email_id, waits = add(), []
    for _ in range(4):
        with pytest.raises(LaneClosedError) as caught:
            deliver(email_id)
        waits.append((round(caught.value.pause_s), caught.value.behind_s - caught.value.pause_s))
        lanes.open_all()
    assert [pause_s for pause_s, _ in waits] == [5, 30, 30, 30]
    assert waits[0][1] <= 120 < 160 <= min(behind_s for _, behind_s in waits[1:])


def test_a_mail_the_server_hangs_up_on_waits_behind_the_others(sink: SmtpSink) -> None:
    sink.answer("rcpt", "421 4.7.0 too much of this")
    with pytest.raises(LaneClosedError) as caught:
        deliver(add())
    assert caught.value.behind_s >= PAUSES_S[0] + 0.8 * DELAYS_S[0]


def test_a_bounded_rate_pauses_the_lane_until_there_is_a_token(app: Flask, sink: SmtpSink) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], mail_per_minute=1)
    first, second = add(), add(number=2)
    assert deliver(first) == "sent"
    with pytest.raises(LaneClosedError, match="MAIL_PER_MINUTE is 1") as caught:
        deliver(second, number=2)
    assert 50 < caught.value.pause_s <= 60
    assert (row(second)["state"], outcomes(second)) == ("queued", [])


# Bugs and files


def test_a_bug_in_a_transport_leaves_no_mail_waiting_for_ever(app: Flask) -> None:
    app.extensions["transport"] = Another(ValueError("a bug"))
    after_the_dot = add("hold")
    with pytest.raises(UnknownOutcomeError, match="a bug"):
        deliver(after_the_dot)
    assert row(after_the_dot)["state"] == "unknown"
    before_it = add("hold", number=2)
    app.extensions["transport"].deliver = None  # cannot be called
    with pytest.raises(TryLaterError, match="TypeError"):
        deliver(before_it, number=2)
    assert row(before_it)["state"] == "queued"


def test_a_database_that_is_busy_is_no_fault_of_the_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: Any) -> bool:
        raise DatabaseBusyError("busy")

    monkeypatch.setattr(ledger, "mark_sending", busy)
    email_id = add("hold")
    with pytest.raises(DatabaseBusyError):
        deliver(email_id)
    assert (row(email_id)["state"], outcomes(email_id)) == ("queued", [])


def test_verdicts_are_all_settled() -> None:
    assert set(Verdict) == {"lane", "sender", "later", "failed", "suppressed", "unknown"}
