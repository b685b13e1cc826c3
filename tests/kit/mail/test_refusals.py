"""Refusals for good that are the sender's: no mail is burnt by them, and none stops the others for its own sake."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask import Flask

import tasks
from app.kit.mail import lanes, suppressions
from app.kit.mail.delivery import LaneClosedError, TryLaterError
from app.kit.mail.ledger import utc_text
from app.kit.mail.replies import NotSentError
from app.settings import Settings
from tests.conftest import RunJobs
from tests.kit.delivery_rig import add, change, deliver, row
from tests.kit.emails_rig import NOTE, make_due, send, settings_for
from tests.kit.smtp_sink import SmtpSink

pytestmark = pytest.mark.usefixtures("app")
SUSPENDED = "554 5.7.1 Account suspended"
NOT_VERIFIED = "554 Message rejected: Email address is not verified."
SLOW = "550 5.7.0 Requested action not taken: too many emails per second"


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    return settings_for(tmp_path, sink)


def attempt(number: int, to: str = "") -> str:
    """Try to send the mail of that number; say how its row or all mail stands."""
    try:
        return deliver(add(number=number, to=to or f"reader{number}@example.com"), number)
    except LaneClosedError:
        lanes.open_all()
        return "lane"
    except TryLaterError:
        return "later"
    except NotSentError:
        return "failed"


def again(number: int) -> str:
    """Try the mail of that number once more; the ledger numbers them alike here."""
    try:
        return deliver(number, number)
    except LaneClosedError:
        lanes.open_all()
        return "lane"
    except TryLaterError:
        return "later"
    except NotSentError:
        return "failed"


# What closes the lane


@pytest.mark.parametrize("stage", ["rcpt", "data", "dot"])
def test_the_same_words_to_several_readers_in_a_row_close_the_lane(sink: SmtpSink, stage: str) -> None:
    sink.answer(stage, SUSPENDED, times=4)
    assert [attempt(number) for number in range(1, 5)] == ["failed", "failed", "lane", "lane"]
    assert again(3) == "sent"


def test_words_are_the_same_whatever_they_say_of_each_reader(sink: SmtpSink) -> None:
    for number in range(1, 4):
        sink.answer(
            "rcpt", f"550 5.1.1 <reader{number}@example.com>: no, reader{number}; see a{number}f-9c{number}"
        )
    assert [attempt(number) for number in range(1, 4)] == ["failed", "failed", "lane"]


def test_one_reader_who_gets_nothing_closes_no_lane(sink: SmtpSink) -> None:
    sink.answer("rcpt", "550 5.7.1 I know you", times=4)
    assert [attempt(number, "cleo@example.com") for number in range(1, 5)] == ["failed"] * 4


def test_different_words_or_a_yes_between_close_no_lane(sink: SmtpSink) -> None:
    for words in (SUSPENDED, SUSPENDED, "550 no such user here"):
        sink.answer("rcpt", words)
    assert [attempt(number) for number in range(1, 5)] == ["failed", "failed", "failed", "sent"]
    sink.answer("rcpt", SUSPENDED, times=2)
    assert [attempt(number) for number in range(5, 8)] == ["failed", "failed", "sent"]


def test_who_failed_before_it_was_clear_is_named_while_there_is_time(sink: SmtpSink) -> None:
    sink.answer("rcpt", SUSPENDED, times=3)
    assert [attempt(1), attempt(2)] == ["failed", "failed"]
    change(1, f"expires_at = '{utc_text(datetime.now(UTC))}'")
    with pytest.raises(LaneClosedError) as closed:
        deliver(add(number=3, to="reader3@example.com"), 3)
    assert closed.value.wronged == [2]


# Whose fault it was after all


def test_a_mail_refused_for_the_sender_while_others_go_waits_alone(sink: SmtpSink) -> None:
    sink.answer("dot", NOT_VERIFIED, times=2)
    assert [attempt(1), again(1)] == ["lane", "lane"]
    assert attempt(2) == "sent"
    sink.answer("dot", NOT_VERIFIED, times=2)
    assert [again(1), again(1), attempt(3), again(1)] == ["later", "later", "sent", "sent"]


def test_a_letter_that_is_refused_to_all_stops_no_other_mail_for_long(sink: SmtpSink) -> None:
    sink.answer("dot", "550 5.7.1 spam", times=3)
    assert [attempt(1), attempt(2), attempt(3), attempt(4)] == ["failed", "failed", "lane", "sent"]
    sink.answer("dot", "550 5.7.1 spam")
    assert again(3) == "failed"


def test_readers_who_do_not_exist_are_told_from_a_lane_that_refuses_all(sink: SmtpSink) -> None:
    sink.answer("rcpt", "550 5.1.1 no such reader", times=3)
    assert [attempt(number) for number in range(1, 5)] == ["failed", "failed", "lane", "sent"]
    sink.answer("rcpt", "550 5.1.1 no such reader")
    assert again(3) == "failed"
    assert "reader3@example.com" in {found.address for found in suppressions.find()}


def test_a_limit_is_never_the_mails_fault(sink: SmtpSink) -> None:
    sink.answer("dot", SLOW)
    assert [attempt(1), attempt(2)] == ["lane", "sent"]
    sink.answer("dot", SLOW)
    assert [again(1), again(1)] == ["lane", "sent"]


def test_the_refused_mail_is_not_the_first_after_the_pause(sink: SmtpSink) -> None:
    for number, (stage, words) in enumerate(
        [("mail", "550 no"), ("rcpt", NOT_VERIFIED), ("dot", NOT_VERIFIED)], 1
    ):
        sink.answer(stage, words)
        with pytest.raises(LaneClosedError) as closed:
            deliver(add(number=number, to=f"reader{number}@example.com"), number)
        assert closed.value.behind_s > closed.value.pause_s > 0
        lanes.open_all()


# To the end


@pytest.mark.parametrize("words", [SUSPENDED, NOT_VERIFIED, SLOW, "550 5.1.1 no such reader"])
def test_no_mail_is_burnt_by_a_refusal_of_the_sender(
    app: Flask, run_jobs: RunJobs, sink: SmtpSink, words: str
) -> None:
    app.jinja_env.loader = NOTE
    mails = [send(number) for number in range(1, 9)]
    sink.answer("rcpt", words, times=5)
    for _ in range(4):
        run_jobs()
        make_due()
    assert {row(mail)["state"] for mail in mails} == {"sent"}
    assert sorted(sink.recipients()) == [f"reader{number}@example.com" for number in range(1, 9)]
    assert suppressions.find() == []
    assert tasks.huey.list_jobs("failed") == []
    assert [row(mail)["tries"] for mail in mails if row(mail)["tries"] > 1] == []
