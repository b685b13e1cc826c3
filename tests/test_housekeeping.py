"""Housekeeping: what is older than its setting says is forgotten, a part at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from app import catalogue
from app.database import database
from tasks import housekeeping, subscriptions
from tasks.emails import send_email

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
        age("emails", "created_at", email_id, days=4)
    monkeypatch.setattr(housekeeping, "PART", 2)
    assert run(housekeeping.forget_old_mails) == 3
    assert ids("emails") == [3, 5]


def test_subscriptions_that_nobody_confirmed_within_confirm_ttl_s_are_forgotten(app: Flask) -> None:
    app.extensions["settings"] = replace(app.extensions["settings"], confirm_ttl_s=3 * DAY_S)
    for reader in ("ada", "bob", "cleo"):
        catalogue.subscribe(f"{reader}@example.com", "Poetry")
    catalogue.confirm(1)
    for subscription_id in (1, 2):
        age("subscriptions", "subscribed_at", subscription_id, days=4)
    assert run(subscriptions.forget_unconfirmed_subscriptions) == 1
    assert ids("subscriptions") == [1, 3]
