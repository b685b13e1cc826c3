"""The rows of mails: every arrow and its guard, what the table refuses, the inbox."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.kit.database.file import database
from app.kit.mail import by_hand, inbox, ledger
from app.kit.mail.message import Message
from app.kit.mail.replies import Reply

SOURCE = (
    "Subject: Süß\r\nX-Two: a\r\nX-Two: b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\nCleo\r\n"
)
REPLY = Reply("dot", 250, "2.0.0", "kept")
FAULT = Reply("rcpt", 450, "4.2.0", "come back later")
STATES = ("queued", "sending", "sent", "failed", "unknown", "suppressed", "cancelled")

pytestmark = pytest.mark.usefixtures("app")


def add(number: int = 1, dedup_key: str | None = None, source: bytes = b"") -> int:
    message = Message(
        to=f"reader{number}@example.com",
        subject="Süß",
        message=source or SOURCE.encode(),
        message_id=f"<{number}@example.com>",
        template="note",
    )
    email_id = ledger.add(message, f"job-{number}", dedup_key=dedup_key)
    assert email_id is not None
    return email_id


def add_in_state(state: str) -> int:
    return add_in_state_as(1, state)


def add_in_state_as(number: int, state: str) -> int:
    email_id = add(number)
    steps: dict[str, list[Callable[[], bool]]] = {
        "queued": [],
        "sending": [lambda: ledger.mark_sending(email_id)],
        "sent": [lambda: ledger.mark_sending(email_id), lambda: ledger.mark_sent(email_id, REPLY)],
        "failed": [lambda: ledger.mark_failed(email_id, FAULT)],
        "unknown": [lambda: ledger.mark_sending(email_id), lambda: ledger.mark_unknown(email_id, FAULT)],
        "suppressed": [lambda: ledger.mark_suppressed(email_id, "unsubscribed")],
        "cancelled": [lambda: job_ended(email_id, "cancelled")],
    }
    assert all(step() for step in steps[state])
    return email_id


def job_ended(email_id: int, state: str) -> bool:
    before = row(email_id)
    database.write(lambda c: ledger.job_ended(c, before["job"], state, "gone"))
    return bool(row(email_id)["state"] != before["state"])


def job_redriven(email_id: int) -> bool:
    before = row(email_id)
    database.write(lambda c: ledger.job_redriven(c, before["job"]))
    return bool(row(email_id)["state"] != before["state"])


def attempts(email_id: int) -> list[tuple[Any, ...]]:
    sql = (
        "SELECT outcome, stage, code, enhanced, words FROM postroom_email_attempts"
        " WHERE email_id = ? ORDER BY rowid"
    )
    return [tuple(attempt) for attempt in database.read(sql, (email_id,))]


def row(email_id: int) -> sqlite3.Row:
    found = database.read_one("SELECT * FROM postroom_emails WHERE id = ?", (email_id,))
    assert found is not None
    return found


ARROWS: list[tuple[Callable[[int], bool], dict[str, str]]] = [
    (ledger.mark_sending, {"queued": "sending"}),
    (lambda email_id: ledger.mark_sent(email_id, REPLY), {"sending": "sent"}),
    (lambda email_id: ledger.requeue(email_id, FAULT), {"queued": "queued", "sending": "queued"}),
    (lambda email_id: ledger.mark_failed(email_id, FAULT), {"queued": "failed", "sending": "failed"}),
    (lambda email_id: ledger.mark_unknown(email_id, FAULT), {"sending": "unknown"}),
    (lambda email_id: ledger.mark_suppressed(email_id, "unsubscribed"), {"queued": "suppressed"}),
    (lambda email_id: job_ended(email_id, "failed"), {"queued": "failed", "sending": "unknown"}),
    (lambda email_id: job_ended(email_id, "cancelled"), {"queued": "cancelled", "sending": "unknown"}),
    (job_redriven, {"failed": "queued", "cancelled": "queued"}),
]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("arrow", "moves"), ARROWS)
def test_arrow_happens_from_its_own_states_only(
    arrow: Callable[[int], bool], moves: dict[str, str], state: str
) -> None:
    email_id = add_in_state(state)
    before = tuple(row(email_id))
    assert arrow(email_id) is (state in moves)
    assert row(email_id)["state"] == moves.get(state, state)
    if state not in moves:
        assert tuple(row(email_id)) == before


def test_every_try_is_kept_and_only_those_that_count_are_counted() -> None:
    email_id = add()
    ledger.requeue(email_id, Reply("connect", None, "", "nobody there"), outcome="lane")
    ledger.requeue(email_id, FAULT)
    ledger.mark_sending(email_id)
    ledger.mark_sent(email_id, REPLY)
    assert attempts(email_id) == [
        ("lane", "connect", None, "", "nobody there"),
        ("later", "rcpt", 450, "4.2.0", "come back later"),
        ("sent", "dot", 250, "2.0.0", "kept"),
    ]
    assert row(email_id)["tries"] == 1


def test_mail_that_may_have_been_sent_stays_known_for_it() -> None:
    email_id = add()
    ledger.mark_sending(email_id)
    first = row(email_id)["sending_at"]
    ledger.requeue(email_id, FAULT, outcome="unknown")
    ledger.mark_sending(email_id)
    ledger.requeue(email_id, FAULT)
    assert row(email_id)["maybe_sent_at"] == first
    assert ledger.mark_unknown(email_id, FAULT)  # from queued, which a mail that never left cannot take
    assert (row(email_id)["state"], row(email_id)["sending_at"]) == ("unknown", first)


def test_redriven_mail_gets_all_its_tries_again() -> None:
    email_id = add()
    ledger.requeue(email_id, FAULT)
    ledger.mark_failed(email_id, FAULT)
    before = row(email_id)["expires_at"]
    assert job_redriven(email_id)
    assert (row(email_id)["tries"], len(attempts(email_id))) == (0, 2)
    assert row(email_id)["expires_at"] >= before


def test_mails_are_counted_by_state_and_no_further_than_is_asked_for() -> None:
    for number, state in enumerate(["queued", "queued", "queued", "sent"]):
        add_in_state_as(number, state)
    assert by_hand.counts() == dict.fromkeys(STATES, 0) | {"queued": 3, "sent": 1}
    assert by_hand.counts(["queued", "sent", "failed"], 2) == {"queued": 2, "sent": 1, "failed": 0}


def test_old_mail_is_forgotten_but_none_that_still_waits() -> None:
    states = {state: add_in_state_as(number, state) for number, state in enumerate(STATES)}
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    assert ledger.forget_old(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert ledger.forget_old(in_an_hour, limit=2) == 2
    assert ledger.forget_old(in_an_hour) == 3
    left = {row["id"] for row in database.read("SELECT id FROM postroom_emails")}
    assert left == {states["queued"], states["sending"]}
    assert not database.read("SELECT 1 FROM postroom_email_attempts")


def test_large_mails_are_forgotten_a_few_at_a_time() -> None:
    for number in range(4):
        add_in_state_as(number, "sent")
    in_an_hour, size_bytes = datetime.now(UTC) + timedelta(hours=1), len(SOURCE.encode())
    assert ledger.forget_old(in_an_hour, most_bytes=size_bytes + 1) == 2
    assert ledger.forget_old(in_an_hour, most_bytes=1) == 1
    assert ledger.forget_old(in_an_hour) == 1


def test_row_keeps_what_was_heard_last() -> None:
    email_id = add()
    ledger.requeue(email_id, FAULT)
    found = row(email_id)
    assert (found["stage"], found["code"], found["enhanced"]) == ("rcpt", 450, "4.2.0")
    assert found["words"] == "come back later"


def test_moments_are_utc_and_their_text_sorts_like_time() -> None:
    found = row(add_in_state("sent"))
    moments = [found[name] for name in ("created_at", "sending_at", "sent_at", "answered_at")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment) for moment in moments)
    assert moments == sorted(moments)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'posted'",
        "state = 'sending'",
        "state = 'sent'",
        "state = 'failed'",
        "state = 'unknown', sending_at = created_at",
        "sent_at = created_at",
        "sending_at = created_at",
        "stage = 'rcpt'",
        "policy = 'perhaps'",
        "job = NULL",
        "message = NULL",
    ],
)
def test_table_refuses_what_no_mail_can_be(change: str) -> None:
    email_id = add()
    with (
        pytest.raises(sqlite3.IntegrityError, match="constraint failed"),
        database.transaction() as connection,
    ):
        connection.execute(f"UPDATE postroom_emails SET {change} WHERE id = ?", (email_id,))


def test_mail_of_a_known_key_is_not_written_again() -> None:
    first = add(1, "book:1/reader:1")
    again = Message("else@example.com", "Else", b"else", "<else@example.com>", "note")
    assert ledger.add(again, "job-else", dedup_key="book:1/reader:1") is None
    assert ledger.id_of("book:1/reader:1") == first
    assert ledger.id_of("book:1/reader:2") is None
    assert ledger.known_keys(["book:1/reader:1", "book:1/reader:2"]) == {"book:1/reader:1"}
    assert add(2) != add(3)  # no key: always another mail


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_mail_that_an_earlier_try_may_have_sent_is_unknown_when_its_job_ends(state: str) -> None:
    email_id = add_in_state("sending")
    ledger.requeue(email_id, FAULT, outcome="unknown")
    assert job_ended(email_id, state)
    assert row(email_id)["state"] == "unknown"
    assert row(email_id)["sending_at"]


def test_mail_that_cannot_be_made_is_seen_as_failed() -> None:
    email_id = ledger.add_unsendable("note", "jürgen@example.com", "No mail can go there", "book:1/reader:1")
    assert email_id is not None
    assert (row(email_id)["state"], row(email_id)["stage"]) == ("failed", "render")
    assert ledger.add_unsendable("note", "jürgen@example.com", "No", "book:1/reader:1") is None
    assert not ledger.mark_sending(email_id)


def test_transport_is_told_what_it_needs() -> None:
    email = ledger.find(add())
    assert email is not None
    assert (email.to_address, email.state, email.policy) == ("reader1@example.com", "queued", "retry")
    assert email.message == SOURCE.encode()
    assert ledger.find(999) is None


def test_inbox_shows_what_was_sent_and_nothing_else() -> None:
    sent = [add_and_send(number) for number in (1, 2, 3)]
    add(4)
    assert [email.id for email in inbox.mails()] == sent[::-1]
    assert [email.id for email in inbox.mails(limit=2)] == [sent[2], sent[1]]
    assert [email.id for email in inbox.mails(limit=2, before_id=sent[1])] == [sent[0]]
    assert inbox.mails(before_id=0) == []


def test_mail_of_the_inbox_is_read_from_its_bytes() -> None:
    email = inbox.mail(add_and_send(1))
    assert email is not None
    assert (email.to, email.subject) == ("reader1@example.com", "Süß")
    assert (email.text, email.html) == ("Grüße\nCleo\n", None)
    assert email.headers[1:3] == [("X-Two", "a"), ("X-Two", "b")]
    assert email.source == SOURCE.encode()
    assert abs(datetime.now(UTC) - email.sent_at) < timedelta(minutes=1)


def test_mail_that_was_not_sent_is_not_in_the_inbox() -> None:
    assert inbox.mail(add()) is None
    assert inbox.mail(999) is None


def add_and_send(number: int) -> int:
    email_id = add(number)
    assert ledger.mark_sending(email_id)
    assert ledger.mark_sent(email_id, REPLY)
    return email_id


# Files that came with an older version's mails


def test_files_of_an_older_version_are_put_into_its_mails(tmp_path: Path) -> None:
    from sqlite_utils import Database as Tables

    (tmp_path / "kept.txt").write_bytes(b"leeks")
    connection = sqlite3.connect(":memory:")
    migrations = ledger.migrations.of_sqlite_utils()
    migrations.apply(Tables(connection), stop_before="put_files_into_mails")
    for number, name in ((1, "kept.txt"), (2, "gone.txt")):
        file = {
            "path": str(tmp_path / name),
            "sha256": hashlib.sha256(b"leeks").hexdigest(),
            "placeholder": "cGxhY2U=",
        }
        connection.execute(
            "INSERT INTO postroom_emails (to_address, subject, template, message, message_id, job, attachments)"
            " VALUES ('cleo@example.com', 'Soup', 'note', ?, ?, 'job', ?)",
            (b"Subject: Soup\r\n\r\ncGxhY2U=\r\n", f"<{number}@example.com>", json.dumps([file])),
        )
    migrations.apply(Tables(connection))
    (kept, gone) = connection.execute(
        "SELECT state, message, words, message_id FROM postroom_emails ORDER BY id"
    ).fetchall()
    connection.close()
    assert kept == ("queued", b"Subject: Soup\r\n\r\nbGVla3M=\r\n", None, "<1@example.com>")
    assert (gone[0], gone[3]) == ("failed", None), "it must not go without its file, not even by hand"
    assert "gone.txt" in gone[2]
