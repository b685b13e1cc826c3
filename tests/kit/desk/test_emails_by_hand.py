"""A mail and its job end together, and what the operator does about both."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

import tasks
from app.kit.errors import ConflictError, NotFoundError
from app.kit.mail import ledger, suppressions
from app.kit.mail.message import MailingList
from app.kit.mail.sending import DELIVER, cancel, send_again
from app.settings import Settings
from tests.conftest import RunJobs
from tests.kit.emails_rig import NOTE, job_of, row, send, settings_for
from tests.kit.smtp_sink import HANG_UP, SmtpSink


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    return settings_for(tmp_path, sink)


@pytest.fixture(autouse=True)
def templates(app: Flask) -> None:
    app.jinja_env.loader = NOTE


# The row follows its job


def test_mail_whose_job_is_cancelled_is_cancelled() -> None:
    email_id = send()
    assert tasks.huey.cancel(row(email_id)["job"])
    assert (row(email_id)["state"], row(email_id)["words"]) == ("cancelled", "Cancelled: by hand")


@pytest.mark.parametrize(("state", "ends"), [("queued", "failed"), ("sending", "unknown")])
def test_mail_whose_process_died_too_often_says_so(state: str, ends: str) -> None:
    email_id = send()
    if state == "sending":
        ledger.mark_sending(email_id)
    for _ in range(3):
        assert tasks.huey.claim("gone", "Worker-1", tasks.huey.rules())
        tasks.huey.free("gone")
    assert (row(email_id)["state"], job_of(email_id)["state"]) == (ends, "failed")
    assert "its process died 3 times" in row(email_id)["words"]


def test_redriving_the_job_sends_the_mail_again(run_jobs: RunJobs, sink: SmtpSink) -> None:
    sink.answer("rcpt", "550 5.7.1 not today")
    email_id = send()
    run_jobs()
    assert row(email_id)["state"] == "failed"
    assert tasks.huey.redrive(task=DELIVER) == 1
    assert row(email_id)["state"] == "queued"
    run_jobs()
    assert (row(email_id)["state"], job_of(email_id)["state"]) == ("sent", "done")


# By hand


def test_mail_of_which_nobody_knows_can_be_sent_again(run_jobs: RunJobs, sink: SmtpSink) -> None:
    sink.answer("dot", HANG_UP)
    email_id = send(policy="hold")
    run_jobs()
    assert (row(email_id)["state"], job_of(email_id)["state"]) == ("unknown", "failed")
    send_again(email_id)
    run_jobs()
    assert (row(email_id)["state"], len(sink.messages)) == ("sent", 1)
    with pytest.raises(ConflictError, match="is sent; this can only be done to one that is unknown, failed"):
        send_again(email_id)


def test_cancelling_a_mail_that_may_have_been_sent_leaves_it_unknown(
    run_jobs: RunJobs, sink: SmtpSink
) -> None:
    sink.answer("dot", HANG_UP)
    email_id = send()
    run_jobs()
    assert row(email_id)["state"] == "queued"
    cancel(email_id)
    assert (row(email_id)["state"], job_of(email_id)["state"]) == ("unknown", "cancelled")


def test_two_jobs_of_a_mail_send_it_once(run_jobs: RunJobs, sink: SmtpSink) -> None:
    sink.answer("rcpt", "550 5.7.1 not today")
    email_id = send()
    run_jobs()
    send_again(email_id)
    assert tasks.huey.redrive() == 1
    run_jobs()
    assert (row(email_id)["state"], len(sink.messages)) == ("sent", 1)


def test_sending_again_gives_an_address_another_chance_but_not_who_unsubscribed(
    run_jobs: RunJobs, sink: SmtpSink
) -> None:
    sink.answer("rcpt", "550 5.1.1 no such reader")
    refused = send(1)
    run_jobs()
    held_back = send(1)
    run_jobs()
    assert [row(refused)["state"], row(held_back)["state"]] == ["failed", "suppressed"]
    send_again(held_back)
    run_jobs()
    assert row(held_back)["state"] == "sent"
    mystery = MailingList("genre-mystery", "Mystery", "https://books.example/u/1")
    unsubscribed = send(2, mailing_list=mystery)
    suppressions.add("reader2@example.com", "unsubscribed", "genre-mystery")
    run_jobs()
    with pytest.raises(ConflictError, match=r"reader2@.* unsubscribed"):
        send_again(unsubscribed)
    assert row(unsubscribed)["state"] == "suppressed"


def test_mail_that_waits_can_be_cancelled_with_its_job(run_jobs: RunJobs, sink: SmtpSink) -> None:
    email_id = send()
    cancel(email_id)
    assert (row(email_id)["state"], job_of(email_id)["state"]) == ("cancelled", "cancelled")
    with pytest.raises(ConflictError, match="is cancelled; this can only be done to one that is queued"):
        cancel(email_id)
    with pytest.raises(NotFoundError):
        cancel(999)
    run_jobs()
    assert sink.messages == []
