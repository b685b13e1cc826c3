"""Mail on the desk: lanes, counts, mails that need a look, one mail with the server's words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.kit.desk import mail as desk_mail
from app.kit.mail import lanes, transports
from app.kit.mail.replies import Reply
from app.kit.mail.sending import send_email
from app.settings import Settings
from tests.conftest import RunJobs
from tests.kit.desk_rig import (
    HOSTILE,
    add_template,
    look,
    make_unknown,
    part,
    text_of,
    values,
)
from tests.kit.smtp_sink import SmtpSink


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    """Settings with that server."""
    return Settings(data_dir=tmp_path, mail_url=sink.url, mail_from="shop@example.com")


@pytest.fixture(autouse=True)
def note(app: Flask) -> None:
    """A mail to send."""
    add_template(app)


def test_mails_are_counted_and_those_that_need_a_look_are_listed(
    operator: FlaskClient, sink: SmtpSink, run_jobs: RunJobs
) -> None:
    unknown = make_unknown(sink, run_jobs)
    sink.answer("rcpt", "550 5.1.1 no <b>such</b> mailbox")
    refused = send_email("nobody@example.com", "note", subject="Hi")
    run_jobs()
    send_email("omar@example.com", "note", subject="Waits")
    page = look(operator)
    counted = dict(re.findall(r'data-mails="(\w+)">([^<]*)<', page))
    assert (counted["queued"], counted["failed"], counted["unknown"]) == ("1", "1", "1")
    assert {int(number) for number in values(page, "data-email")} == {unknown, refused}
    words = text_of(page)
    assert "no <b>such</b> mailbox" in words
    assert "<b>such" not in page
    assert "1 mail may or may not have been sent: you decide." in words
    assert "nobody@example.com none at all:" in words


def test_a_paused_lane_says_why_and_until_when(operator: FlaskClient) -> None:
    name = transports.transport().name
    lanes.note_fault(name, Reply("connect", 421, "", f"come later {HOSTILE}"), (300,))
    lanes.note_fault("smtp://of-yesterday:25", Reply("connect", None, "", "gone"), (300,))
    page = look(operator)
    mail = text_of(part(page, "mail"))
    assert f"{name} paused until" in mail
    assert "after 1 fault in a row: at connect: 421 come later" in mail
    assert "smtp://of-yesterday:25 (no longer in use)" in mail
    assert f"Mail waits : {name} cannot be used" in text_of(part(page, "state"))


def test_more_mails_than_are_worth_counting_are_many(
    operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_mail, "COUNT_UP_TO", 2)
    for number in range(4):
        send_email("cleo@example.com", "note", subject="Hi")
        assert f'data-mails="queued">{["1", "2", "2+", "2+"][number]}<' in look(operator)


def test_one_mail_has_its_page_with_each_try_and_the_servers_words(
    operator: FlaskClient, sink: SmtpSink, run_jobs: RunJobs
) -> None:
    page = look(operator, f"/desk/emails/{make_unknown(sink, run_jobs)}")
    words = text_of(page)
    assert "Lost & found" in words
    assert "it waits for you" in words
    assert re.search(r"<td>unknown</td><td>dot</td>", page)
    assert "Send again" in page
    assert "It arrived" in page
    assert ">Cancel" not in page
    assert 'href="/jobs/' in page


def test_mails_are_found_by_state_and_address(operator: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_mail, "PAGE_LENGTH", 2)
    ids = [send_email(f"{name}@example.com", "note", subject="Hi") for name in ("cleo", "omar", "omar")]
    page = look(operator, "/desk/emails?state=queued")
    assert [int(one) for one in values(page, "data-email")] == ids[:0:-1]
    assert f'href="/desk/emails?state=queued&amp;before={ids[1]}"' in page
    assert values(look(operator, "/desk/emails?to=cleo@example.com"), "data-email") == [str(ids[0])]
    assert "No mail fits." in look(operator, "/desk/emails?state=sent")
    assert "No mail can go to" in look(operator, "/desk/emails?to=nobody")
    look(operator, "/desk/emails?state=posted", 400)


@pytest.mark.parametrize("email_id", ["1", "0", str(2**63 - 1), str(2**63), "x", "-1"])
def test_a_mail_that_is_not_there_is_404(operator: FlaskClient, email_id: str) -> None:
    look(operator, f"/desk/emails/{email_id}", 404)
