"""Trouble with mail is seen on /ready, and tells strangers nothing (P6)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import DictLoader

import tasks
from app.kit.mail import lanes, troubles
from app.kit.mail.replies import Reply
from app.kit.mail.sending import send_email
from app.settings import Settings
from tests.conftest import RunJobs
from tests.kit.smtp_sink import HANG_UP, SmtpSink


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    return Settings(data_dir=tmp_path, mail_url=sink.url)


@pytest.fixture(autouse=True)
def templates(app: Flask) -> None:
    app.jinja_env.loader = DictLoader({"emails/note.txt": "Note\n\nHello"})


def test_all_is_well_while_mail_goes(run_jobs: RunJobs) -> None:
    send_email("cleo@example.com", "note")
    run_jobs()
    assert troubles.find() == []


def test_a_lane_that_pauses_is_seen_until_it_opens() -> None:
    secret = Reply("auth", 535, "5.7.8", "user cleo@secret.example is not known")
    lanes.note_fault("smtp://mail.example:587", secret, (60,), now=time.time())
    (sentence,) = troubles.find()
    assert sentence.startswith("The mail server cannot be used, so all mail waits; the next try is at 20")
    assert "secret" not in sentence
    assert troubles.find(time.time() + 61) == []


def test_mails_nobody_knows_of_and_refused_ones_are_counted(run_jobs: RunJobs, sink: SmtpSink) -> None:
    sink.answer("dot", HANG_UP)
    send_email("cleo@example.com", "note", policy="hold")
    run_jobs()
    sink.answer("rcpt", "550 5.7.1 no", times=2)
    for _ in range(2):
        send_email("omar@example.com", "note")
    run_jobs()
    unknown, failed = troubles.find()
    assert unknown.startswith("1 mail may or may not have been sent")
    assert failed.startswith("2 mails could not be sent in the last 24 hours")
    assert [sentence[:6] for sentence in troubles.find(time.time() + 25 * 3600)] == ["1 mail"]


def test_the_site_stays_ready_and_warns(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.huey, "_startup", {})  # a worker that comes up late would open the lane again
    app.extensions["consumer"].start(always=True)
    try:
        lanes.note_fault("smtp", Reply("connect", None, "", "nobody there"), (60,), now=time.time())
        answer = client.get("/ready")
        assert (answer.status_code, answer.json["ready"], answer.json["reasons"]) == (200, True, [])
        assert len(answer.json["warnings"]) == 1
    finally:
        app.extensions["consumer"].stop()
