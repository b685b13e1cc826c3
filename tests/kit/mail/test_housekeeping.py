"""Housekeeping: what is older than its setting says is forgotten, a part at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

import tasks
from app.bookshop import books as catalogue
from app.kit.database.file import database
from app.kit.mail import by_hand, ledger, troubles, upkeep as housekeeping
from app.kit.mail.sending import send_again, send_email
from tasks import bookshop

DAY_S = 24 * 3600


def age(table: str, column: str, id_: int, days: float) -> None:
    """Let a row look as if it had been written some days ago."""
    moment = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    sql = f"UPDATE {table} SET {column} = ? WHERE id = ?"
    database.write(lambda connection: connection.execute(sql, (moment, id_)))


def ids(table: str) -> list[int]:
    return [row["id"] for row in database.read(f"SELECT id FROM {table} ORDER BY id")]


def run(task: object) -> object:
    """Run a task's body here and now."""
    return task.call_local()  # type: ignore[attr-defined]


def test_mails_that_ended_before_mail_ttl_s_are_forgotten(
    app: Flask, run_jobs: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in range(5):
        send_email(f"reader{reader}@example.com", "confirm_subscription", genres=[], confirm_url="", days=1)
    run_jobs()
    app.extensions["settings"] = replace(app.extensions["settings"], mail_ttl_s=3 * DAY_S)
    for email_id in (1, 2, 4):
        age("postroom_emails", "created_at", email_id, days=4)
    monkeypatch.setattr(housekeeping, "PART", 2)
    assert run(housekeeping.forget_old_mails) == 3
    assert ids("postroom_emails") == [3, 5]


def test_mails_whose_job_is_gone_end_where_they_are_seen_and_all_others_wait_on(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(reader: int) -> None:
        send_email(f"reader{reader}@example.com", "confirm_subscription", genres=[], confirm_url="", days=1)

    for reader in (1, 2, 3):
        send(reader)
    ledger.mark_sending(3)
    tasks.huey.flush()
    send(4)
    tasks.huey.cancel(by_hand.details(4)["job"])  # the row followed its job
    send(5)
    monkeypatch.setattr(housekeeping, "PART", 1)
    for _ in range(2):
        run(housekeeping.end_mails_without_a_job)
        states = [mail["state"] for mail in by_hand.find()[::-1]]
        assert states == ["failed", "failed", "unknown", "cancelled", "queued"]
    assert by_hand.details(1)["words"] == "its job is gone: the queue was emptied"
    assert len(troubles.find()) == 2
    send_again(1)
    run(housekeeping.end_mails_without_a_job)
    assert by_hand.details(1)["state"] == "queued"


@pytest.mark.parametrize("state", ["scheduled", "ready", "running"])
def test_a_mail_whose_job_lives_is_left_alone(app: Flask, state: str) -> None:
    send_email("cleo@example.com", "confirm_subscription", genres=[], confirm_url="", days=1)
    change = {
        "scheduled": "run_at = 9e9",
        "ready": "ready_at = 1",
        "running": "instance = 'i1', started_at = 1",
    }
    database.write(lambda c: c.execute(f"UPDATE postroom_jobs SET state = '{state}', {change[state]}"))
    run(housekeeping.end_mails_without_a_job)
    assert by_hand.details(1)["state"] == "queued"


def test_subscriptions_that_nobody_confirmed_within_confirm_ttl_s_are_forgotten(app: Flask) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], confirm_ttl_s=3 * DAY_S)
    for reader in ("ada", "bob", "cleo"):
        catalogue.subscribe(f"{reader}@example.com", "Poetry")
    catalogue.confirm(1)
    for subscription_id in (1, 2):
        age("subscriptions", "subscribed_at", subscription_id, days=4)
    assert run(bookshop.forget_unconfirmed_subscriptions) == 1
    assert ids("subscriptions") == [1, 3]
