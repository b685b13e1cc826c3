"""send_email and its job: both come to be or neither, and the job ends as the mail does."""

from __future__ import annotations

import email
import time
from dataclasses import replace
from email import policy
from pathlib import Path

import pytest
from flask import Flask
from jinja2 import DictLoader

import tasks
from app.kit.database.file import database
from app.kit.errors import InvalidInputError, QueueFullError
from app.kit.mail import (
    by_hand,
    inbox,
    lanes,
    ledger,
    suppressions,
    transports,
)
from app.kit.mail.replies import Reply
from app.kit.mail.sending import (
    BULK,
    DELIVER,
    LANE_PAUSE,
    MAX_LETTERS,
    URGENT,
    Letter,
    open_lanes,
    send_email,
    send_emails,
)
from app.kit.mail.templates import EmailTemplateError
from app.settings import Settings
from tests.conftest import RunJobs
from tests.kit.emails_rig import (
    NOTE,
    job_of,
    make_due,
    row,
    rows_and_jobs,
    send,
    settings_for,
)
from tests.kit.smtp_sink import HANG_UP, SmtpSink


@pytest.fixture
def settings(tmp_path: Path, sink: SmtpSink) -> Settings:
    return settings_for(tmp_path, sink)


@pytest.fixture(autouse=True)
def templates(app: Flask) -> None:
    app.jinja_env.loader = NOTE


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
    assert [(email.id, email.subject) for email in inbox.mails()] == [(email_id, "Note for Cleo")]


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


def test_every_try_counts_until_the_last_ends_mail_and_job(run_jobs: RunJobs, sink: SmtpSink) -> None:
    sink.answer("rcpt", "450 4.2.0 greylisted", times=3)
    email_id = send()
    for _ in range(2):
        run_jobs()
        make_due()
    database.write(lambda c: c.execute("UPDATE postroom_emails SET expires_at = '2000-01-01T00:00:00.000Z'"))
    run_jobs()
    assert (row(email_id)["state"], job_of(email_id)["state"]) == ("failed", "failed")
    assert "after 2 tries; at rcpt: 450 4.2.0 greylisted" in row(email_id)["words"]
    assert job_of(email_id)["attempt"] == 3


def test_a_server_that_is_down_burns_no_try_and_mail_goes_when_it_is_up(
    run_jobs: RunJobs, sink: SmtpSink
) -> None:
    sink.answer("connect", "421 4.3.2 not now", times=5)
    email_ids = [send(number) for number in range(5)]
    until_all_are(email_ids, "sent", run_jobs)
    assert {row(email_id)["tries"] for email_id in email_ids} == {0}
    assert {job_of(email_id)["attempt"] for email_id in email_ids} == {1}
    assert len(sink.messages) == 5


def test_mail_the_server_hangs_up_on_lets_the_others_go_first(run_jobs: RunJobs, sink: SmtpSink) -> None:
    sink.answer("data", HANG_UP)
    email_id = send(1)
    run_next()
    job = database.read_one("SELECT state, attempt, run_at FROM postroom_jobs")
    assert job is not None
    assert (job["state"], job["attempt"]) == ("scheduled", 0)
    assert job["run_at"] > time.time() + 0.8 * 60 - 5
    assert row(email_id)["state"] == "queued"


def test_mails_on_their_way_are_as_many_as_connections() -> None:
    for number in range(3):
        send(number)
    claims = [tasks.huey.claim("by-hand", f"Worker-{n}", tasks.huey.rules()) for n in range(3)]
    assert [len(claimed) for claimed in claims] == [1, 1, 0]


def test_connections_are_closed_when_the_consumer_stops(run_jobs: RunJobs, sink: SmtpSink) -> None:
    send()
    run_jobs()
    assert sink.wait_for_goodbye()
    assert "quit" in sink.verbs()


def test_urgent_mail_is_the_first_to_go_when_the_lane_opens(app: Flask, sink: SmtpSink) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], mail_pause_delays_s=(60,))
    sink.answer("connect", "421 4.3.2 not now")
    send_emails("note", letters(1, 2, 3), shop="Postroom")
    run_next()
    assert tasks.huey.claim("by-hand", "Worker-1", tasks.huey.rules()) == []  # nothing is even tried
    send(9, priority=URGENT)
    open_lanes()
    run_next()
    run_next()
    # The one that met the closed lane has been tried: it goes behind those that have not.
    assert sink.recipients() == ["reader9@example.com", "reader2@example.com"]


def run_next() -> None:
    claimed = tasks.huey.claim("by-hand", "Worker-1", tasks.huey.rules())
    assert claimed
    tasks.huey.finish(tasks.huey.run(claimed), None, tasks.huey.rules())


def until_all_are(email_ids: list[int], state: str, run_jobs: RunJobs) -> None:
    deadline = time.monotonic() + 20
    while {row(email_id)["state"] for email_id in email_ids} != {state}:
        assert time.monotonic() < deadline
        run_jobs()


def test_a_pause_by_hand_is_not_shortened_by_the_lanes(run_jobs: RunJobs, sink: SmtpSink) -> None:
    tasks.huey.pause(DELIVER)
    tasks.huey.pause(DELIVER, 0.05, "the lane", extend=True)
    pauses = database.read("SELECT reason, until_at FROM postroom_pauses")
    assert [tuple(pause) for pause in pauses] == [("paused by hand", None)]


def test_a_restart_opens_the_lanes_but_no_pause_by_hand(app: Flask) -> None:
    name = transports.transport().name
    lanes.note_fault(name, Reply("connect", None, "", "nobody there"), (900,))
    tasks.huey.pause(DELIVER, 900, f"{LANE_PAUSE}nobody there", extend=True)
    open_lanes()
    assert database.read("SELECT * FROM postroom_pauses") == []
    assert lanes.find(name).paused_until == 0
    tasks.huey.pause(DELIVER, 900, "until the new year")
    open_lanes()
    assert len(database.read("SELECT * FROM postroom_pauses")) == 1
    lanes.note_fault(name, Reply("connect", None, "", "nobody there"), (900,))
    tasks.huey.pause(DELIVER)
    open_lanes()
    assert len(database.read("SELECT * FROM postroom_pauses")) == 1


# Many


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


@pytest.mark.parametrize(
    "bad",
    [
        Letter("reader9@example.com", "note/reader:9"),
        Letter("reader9@example.com", "note/reader:9", {"name": "a", "nmae": "b"}),
        Letter("reader9@example.com", "note/reader:9", {"name": "zero"}),
        Letter("\ud800@example.com", "note/reader:9", {"name": "a"}),
        Letter("a" * 10**6, "note/reader:9", {"name": "a"}),
        Letter(None, "note/reader:9", {"name": "a"}),  # type: ignore[arg-type]
    ],
)
def test_one_letter_that_cannot_be_made_stops_nobody_elses(app: Flask, bad: Letter) -> None:
    app.jinja_env.loader = DictLoader(
        {"emails/note.txt": "Note for {{ name }}\n\n{{ 1 / (name != 'zero') }} from {{ shop }}"}
    )
    assert send_emails("note", [*letters(1), bad, *letters(2)], shop="Postroom") == 2
    assert rows_and_jobs() == (3, 2)
    email_id = ledger.id_of("note/reader:9")
    assert email_id is not None
    assert (row(email_id)["state"], row(email_id)["stage"]) == ("failed", "render")


def test_values_at_fault_for_all_write_nothing_down() -> None:
    with pytest.raises(EmailTemplateError, match="'shop' is undefined"):
        send_emails("note", letters(1, 2))
    assert rows_and_jobs() == (0, 0)


def test_template_at_fault_writes_nothing_down(app: Flask) -> None:
    app.jinja_env.loader = DictLoader({"emails/note.txt": "{{ name }}\n\n{{ shop }} {% if %}"})
    with pytest.raises(EmailTemplateError, match="Expected an expression"):
        send_emails("note", letters(1))
    assert rows_and_jobs() == (0, 0)


def test_too_many_letters_at_once_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="1001 letters at once, at most 1000"):
        send_emails("note", letters(*range(MAX_LETTERS + 1)), shop="Postroom")


def test_urgent_mail_goes_before_bulk(run_jobs: RunJobs, sink: SmtpSink) -> None:
    send_emails("note", letters(1, 2), shop="Postroom")
    email_id = send(3)
    order = database.read("SELECT uuid, priority FROM postroom_jobs ORDER BY priority DESC, id")
    assert [job["priority"] for job in order] == [0, BULK, BULK]
    assert order[0]["uuid"] == row(email_id)["job"]


def test_mail_goes_out_with_its_files_and_the_inbox_shows_them(
    app: Flask, run_jobs: RunJobs, sink: SmtpSink, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.txt"
    recipe.write_bytes(b"leeks, potatoes\n" * 100)
    email_id = send(attachments=[recipe])
    run_jobs()
    (_, message), *_ = sink.messages
    (file,) = email.message_from_bytes(message, policy=policy.default).iter_attachments()
    assert (file.get_filename(), file.get_content()) == ("recipe.txt", recipe.read_text())
    shown = inbox.mail(email_id)
    assert shown is not None
    assert shown.source == message


def test_what_befalls_a_file_later_does_not_matter(run_jobs: RunJobs, sink: SmtpSink, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.txt"
    recipe.write_bytes(b"leeks")
    send(attachments=[recipe])
    recipe.unlink()
    run_jobs()
    (file,) = email.message_from_bytes(sink.messages[0][1], policy=policy.default).iter_attachments()
    assert file.get_content() == "leeks"


def test_large_file_is_not_read_for_a_list_of_mails(app: Flask, immediate: None, tmp_path: Path) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], mail_url="")
    (tmp_path / "large").write_bytes(b"x" * 2**20)
    email_id = send(attachments=[tmp_path / "large"])
    (listed,), shown = inbox.mails(), inbox.mail(email_id)
    assert shown is not None
    assert (listed.subject, listed.text) == (shown.subject, shown.text)
    assert len(listed.source) < 2**20 < len(shown.source)


# Copies and options


def test_each_address_of_a_mail_has_a_row_and_a_copy_of_its_own(run_jobs: RunJobs, sink: SmtpSink) -> None:
    suppressions.add("boss@example.com", "no such mailbox")
    sink.answer("rcpt", "550 5.1.1 no such reader")  # the first to be asked, which is the reader
    email_id = send(cc="boss@example.com", bcc=["archive@example.com"], dedup_key="note/1")
    assert send(cc="boss@example.com", bcc=["archive@example.com"], dedup_key="note/1") == email_id
    assert rows_and_jobs() == (3, 3)
    run_jobs()
    states = {mail["to_address"]: mail["state"] for mail in by_hand.find()}
    assert states == {
        "reader1@example.com": "failed",
        "boss@example.com": "suppressed",
        "archive@example.com": "sent",
    }
    assert sink.recipients() == ["archive@example.com"]
    assert b"Cc: boss@example.com\r\n" in sink.messages[0][1]


def test_copies_and_mail_come_to_be_together_or_not_at_all() -> None:
    with pytest.raises(QueueFullError):
        send(
            cc=[f"{number}@example.com" for number in range(10)], bcc=[f"b{n}@example.com" for n in range(10)]
        )
    assert rows_and_jobs() == (0, 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("policy", "never"), ("policy", None), ("priority", "high"), ("priority", None), ("priority", float("nan")),
        ("expires_in_s", "1 h"), ("expires_in_s", 0), ("expires_in_s", float("inf")), ("dedup_key", 7),
        ("dedup_key", ""), ("dedup_key", "x" * 1001), ("mailing_list", "news"), ("attachments", "terms.pdf"),
        ("cc", None), ("bcc", 7), ("reply_to", None),
    ],
)  # fmt: skip
def test_an_options_value_that_will_not_do_is_refused_by_its_name(option: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=f"^{option}= is .*, expected ") as caught:
        send(**{option: value})
    assert caught.value.field == option
    if option in ("policy", "priority", "expires_in_s"):
        with pytest.raises(InvalidInputError, match=f"^{option}= is "):
            send_emails("note", letters(1), shop="Postroom", **{option: value})
    assert rows_and_jobs() == (0, 0)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("dedup_kye", r"did you mean dedup_key=\?"),
        ("attachment", r"did you mean attachments=\?"),
        ("expires_s", r"did you mean expires_in_s=\?"),
        ("replyto", r"did you mean reply_to=\?"),
        ("nmae", r"did you mean name=\?"),
        ("X_Campaign", r"there are dedup_key, cc, .*, name, shop"),
    ],
)
def test_keyword_that_nothing_takes_is_refused_with_the_nearest(option: str, expected: str) -> None:
    with pytest.raises(
        InvalidInputError, match=f"{option}= is no option, and .*note.txt.*{expected}"
    ) as caught:
        send(**{option: "x"})
    assert caught.value.field == option
    if option != "replyto":
        with pytest.raises(InvalidInputError, match=f"{option}= is no option"):
            send_emails("note", letters(1), shop="Postroom", **{option: "x"})
    assert rows_and_jobs() == (0, 0)


def test_value_that_only_an_included_template_or_a_branch_uses_is_one(app: Flask) -> None:
    app.jinja_env.loader = DictLoader(
        {
            "emails/note.txt": "S\n\n{% if name %}{{ shop }}{% endif %}",
            "emails/note.html": "{% include 'emails/foot.html' %}",
            "emails/foot.html": "{{ foot }}",
            "emails/any.txt": "S\n\n{% include name %}",
        }
    )
    send(foot="x")
    with pytest.raises(InvalidInputError, match="did you mean foot="):
        send(fooot="x")
    with pytest.raises(EmailTemplateError, match=r"app/templates/nowhere\.txt does not exist"):
        send_email("cleo@example.com", "any", name="nowhere.txt", whatever=1)
