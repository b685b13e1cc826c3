"""What the desk costs with a day's history behind it (P4)."""

from __future__ import annotations

import statistics
import time

import pytest
from flask import Flask
from flask.testing import FlaskClient

import tasks
from app.kit.mail.sending import send_email
from tests.kit.desk_crowd import crowd
from tests.kit.desk_rig import add_template

pytestmark = pytest.mark.slow

ROUNDS = 40
PATHS = (
    "/desk", "/desk/live", "/desk?q=number+77", "/desk?q=nowhere", "/desk/emails?state=failed", "/desk/emails/1",
)  # fmt: skip


def median_ms(operator: FlaskClient, path: str) -> float:
    """Return the median time of some calls, all of the server's side of it."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        answer = operator.get(path)
        taken.append(time.perf_counter() - started)
        assert answer.status_code == 200
    return statistics.median(taken) * 1000


def test_the_desk_answers_at_once_whatever_the_history(
    app: Flask, operator: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    add_template(app)
    send_email("cleo@example.com", "note", subject="Hi")
    few = {path: median_ms(operator, path) for path in PATHS}
    now = tasks.huey.now()
    crowd(app.extensions["database"], now, done=100_000, failed=10_000, emails=50_000, suppressions=10_000)
    lines = []
    for path in PATHS:
        many = median_ms(operator, path)
        lines.append(f"{path:<28} {many:5.1f} ms, {many / few[path]:.2f}x of an empty one")
    with capsys.disabled():
        print("\nwith 100 000 done jobs, 10 000 failed ones and 50 000 mails:\n" + "\n".join(lines))
