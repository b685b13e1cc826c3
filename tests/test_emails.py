"""send_email and its job: both come to be or neither, and the job ends as the mail does."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from jinja2 import DictLoader

import tasks
from app.database import database
from app.errors import InvalidInputError, QueueFullError
from app.mail import ledger
from app.settings import Settings
from tasks.emails import BULK, MAX_LETTERS, Letter, send_email, send_emails
from tasks.engine import jobs
from tests.smtp_sink import SmtpSink

RunJobs = Callable[[], None]


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    with SmtpSink() as sink:
        yield sink


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    return Settings(data_dir=tmp_path, mail_url=sink.url, max_pending_jobs=20)


@pytest.fixture(autouse=True)
def templates(app: Flask) -> None:
    app.jinja_env.loader = DictLoader({"emails/note.txt": "Note for {{ name }}\n\nFrom {{ shop }}"})


def row(email_id: int) -> sqlite3.Row:
    found = database.read_one("SELECT * FROM emails WHERE id = ?", (email_id,))
    assert found is not None
    return found


def job_of(email_id: int) -> dict[str, Any]:
    job: dict[str, Any] = tasks.huey.job(row(email_id)["job"])
    return job


def rows_and_jobs() -> tuple[int, int]:
    emails = database.read_one("SELECT count(*) FROM emails")
    queued = database.read_one("SELECT count(*) FROM jobs")
    assert emails is not None
    assert queued is not None
    return emails[0], queued[0]


def make_due() -> None:
    in_a_year = time.time() + 365 * 86400
    database.write(lambda connection: jobs.promote(connection, in_a_year))


def send(number: int = 1, **options: Any) -> int:
    return send_email(f"reader{number}@example.com", "note", name="Cleo", shop="Postroom", **options)


def letters(*numbers: int) -> list[Letter]:
    return [
        Letter(f"reader{number}@example.com", f"note/reader:{number}", {"name": f"Reader {number}"})
        for number in numbers
    ]


def test_mail_is_sent_by_its_job(run_jobs: RunJobs, sink: SmtpSink) -> None:
    email_id = send()
    assert (row(email_id)["state"], job_of(email_id)["state"]) == ("queued", "ready")
    assert sink.connections == 0
    run_jobs()
    assert (row(email_id)["state"], job_of(email_id)["state"]) == ("sent", "done")
    assert sink.recipients() == ["reader1@example.com"]


def test_mail_goes_to_the_inbox_in_immediate_mode(app: Flask, immediate: None) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], mail_url="")
    email_id = send()
    assert [(email.id, email.subject) for email in ledger.inbox()] == [(email_id, "Note for Cleo")]


def test_row_and_job_come_to_be_together_or_not_at_all() -> None:
    with database.transaction():
        send(1)
    assert rows_and_jobs() == (1, 1)
    with pytest.raises(InvalidInputError), database.transaction():
        send_email("nobody", "note", name=send(2), shop="Postroom")
    assert rows_and_jobs() == (1, 1)


def test_known_key_sends_nothing_and_returns_the_first_mail(run_jobs: RunJobs, sink: SmtpSink) -> None:
    first = send(1, dedup_key="welcome/reader:1")
    assert send(2, dedup_key="welcome/reader:1") == first
    assert rows_and_jobs() == (1, 1)
    run_jobs()
    assert send(1, dedup_key="welcome/reader:1") == first
    assert (rows_and_jobs(), len(sink.messages)) == ((1, 1), 1)


def test_mail_that_cannot_be_made_is_refused_at_once() -> None:
    with pytest.raises(InvalidInputError, match="No mail can go to 'cleo'"):
        send_email("cleo", "note", name="Cleo", shop="Postroom")
    assert rows_and_jobs() == (0, 0)


def test_full_queue_refuses_the_mail_and_its_row() -> None:
    send_emails("note", letters(*range(20)), shop="Postroom")
    with pytest.raises(QueueFullError):
        send(21)
    with pytest.raises(QueueFullError):
        send_emails("note", letters(21, 22), shop="Postroom")
    assert rows_and_jobs() == (20, 20)


def test_passing_refusal_is_tried_again_by_the_queue(run_jobs: RunJobs, sink: SmtpSink) -> None:
    sink.answer("rcpt", "450 4.2.0 greylisted")
    email_id = send()
    run_jobs()
    assert (row(email_id)["state"], job_of(email_id)["state"]) == ("queued", "scheduled")
    make_due()
    run_jobs()
    assert (row(email_id)["state"], job_of(email_id)["state"]) == ("sent", "done")
    assert len(sink.messages) == 1


def test_refusal_for_good_ends_the_job_with_the_servers_words(run_jobs: RunJobs, sink: SmtpSink) -> None:
    sink.answer("rcpt", "550 5.1.1 no such reader")
    email_id = send()
    run_jobs()
    job = job_of(email_id)
    assert (row(email_id)["state"], job["state"]) == ("failed", "failed")
    assert job["error"]["type"] == "NotSentError"
    assert "at rcpt: 550 5.1.1 no such reader" in job["error"]["message"]


def test_last_try_ends_mail_and_job(run_jobs: RunJobs, sink: SmtpSink) -> None:
    sink.answer("rcpt", "450 4.2.0 greylisted", times=11)
    email_id = send()
    for _ in range(11):
        run_jobs()
        make_due()
    assert (row(email_id)["state"], job_of(email_id)["state"]) == ("failed", "failed")
    assert job_of(email_id)["attempt"] == 11


def test_mail_to_many_is_one_row_and_one_job_each(run_jobs: RunJobs, sink: SmtpSink) -> None:
    commits = database.writer.commits
    assert send_emails("note", letters(1, 2, 3), shop="Postroom") == 3
    assert database.writer.commits == commits + 1
    assert rows_and_jobs() == (3, 3)
    run_jobs()
    assert sorted(sink.recipients()) == [f"reader{number}@example.com" for number in (1, 2, 3)]
    assert any(b"Subject: Note for Reader 2\r\n" in message for _, message in sink.messages)


def test_mail_to_many_goes_on_where_it_was_cut_off() -> None:
    assert send_emails("note", letters(1, 2), shop="Postroom") == 2
    assert send_emails("note", letters(1, 2, 3, 3), shop="Postroom") == 1
    assert rows_and_jobs() == (3, 3)


def test_one_bad_address_stops_nobody_elses_mail() -> None:
    bad = Letter("jürgen@example.com", "note/reader:9", {"name": "Jürgen"})
    assert send_emails("note", [bad, *letters(1)], shop="Postroom") == 1
    email_id = ledger.id_of("note/reader:9")
    assert email_id is not None
    assert row(email_id)["state"] == "failed"
    assert "before the @ only ASCII is allowed" in row(email_id)["words"]
    assert send_emails("note", [bad, *letters(1)], shop="Postroom") == 0


def test_too_many_letters_at_once_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="1001 letters at once, at most 1000"):
        send_emails("note", letters(*range(MAX_LETTERS + 1)), shop="Postroom")


def test_urgent_mail_goes_before_bulk(run_jobs: RunJobs, sink: SmtpSink) -> None:
    send_emails("note", letters(1, 2), shop="Postroom")
    email_id = send(3)
    order = database.read("SELECT uuid, priority FROM jobs ORDER BY priority DESC, id")
    assert [job["priority"] for job in order] == [0, BULK, BULK]
    assert order[0]["uuid"] == row(email_id)["job"]
