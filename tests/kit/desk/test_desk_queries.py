"""What the desk asks of the database: by indexes, never by reading the history (P4)."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

import tasks
from tests.kit.desk_crowd import NAMES, crowd

LARGE = "jobs|emails|email_attempts|past_minutes|attempts|cron_runs"
FEW_ROWS = re.compile(r"USING (COVERING )?INDEX postroom_jobs_(ready|due|running|suspect|failed)")
"""Indexes that hold the rows of one state only: to walk along one is to walk along what is asked for."""
SCAN = re.compile(rf"SCAN postroom_({LARGE})\b")

Asked = Callable[[str], list[str]]


@pytest.fixture
def asked(app: Flask, operator: FlaskClient) -> Asked:
    """A function that returns every query that a page asks, with its values in it."""
    database = app.extensions["database"]
    crowd(database, tasks.huey.now(), done=50, failed=30, emails=40, suppressions=5)

    def asked(path: str) -> list[str]:
        queries: list[str] = []
        reader = database._reader()
        reader.set_trace_callback(queries.append)
        try:
            assert operator.get(path).status_code == 200
        finally:
            reader.set_trace_callback(None)
        return [query for query in queries if query.lstrip().upper().startswith(("SELECT", "WITH"))]

    return asked


def plan(app: Flask, query: str) -> list[str]:
    """Return the steps SQLite takes for a query."""
    return [row["detail"] for row in app.extensions["database"].read(f"EXPLAIN QUERY PLAN {query}")]


@pytest.mark.parametrize(
    "path",
    [
        "/desk", "/desk/live", f"/desk?task={NAMES[0]}", "/desk?q=supplier", "/desk?before=20",
        f"/desk?task={NAMES[0]}&q=supplier&before=20", "/desk/emails?state=failed",
        "/desk/emails?to=reader4@example.com", "/desk/emails/5",
    ],
)  # fmt: skip
def test_no_query_reads_the_history(app: Flask, asked: Asked, path: str) -> None:
    queries = asked(path)
    assert queries
    for query in queries:
        for step in plan(app, query):
            assert not SCAN.search(step) or FEW_ROWS.search(step), f"{step}: {query}"


@pytest.mark.parametrize(
    "path", ["/desk", "/desk/live", "/desk/emails?state=failed", f"/desk?task={NAMES[0]}"]
)
def test_no_page_sorts_jobs_or_mails(app: Flask, asked: Asked, path: str) -> None:
    for query in asked(path):
        steps = plan(app, query)
        # What runs is as little as there are workers.
        is_large = any(
            re.search(r"\bpostroom_(jobs|emails)\b(?!.*postroom_jobs_running)", step) for step in steps
        )
        assert not (is_large and "USE TEMP B-TREE FOR ORDER BY" in steps), f"{steps}: {query}"


@pytest.mark.parametrize("path", ["/desk", "/desk/live", "/metrics"])
def test_the_numbers_of_the_hour_are_gathered_once_a_page(asked: Asked, path: str) -> None:
    numbers = [query for query in asked(path) if "job_minutes" in query]
    assert len(numbers) == len(set(numbers)) == 3


def test_a_query_that_reads_the_history_is_seen(app: Flask, asked: Asked) -> None:
    steps = plan(app, "SELECT COUNT(*) FROM postroom_jobs WHERE error LIKE '%x%'")
    assert any(SCAN.search(step) and not FEW_ROWS.search(step) for step in steps)
