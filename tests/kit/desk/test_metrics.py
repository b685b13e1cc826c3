"""/metrics: Prometheus reads it, only the operator does, and it costs the same however many jobs there were."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from huey import Huey
from prometheus_client.parser import text_string_to_metric_families

import tasks
from app import create_app
from app.kit.database.file import database
from app.kit.mail.sending import send_email
from app.settings import Settings
from tests.kit.queue_rig import count_anew

Values = dict[tuple[str, ...], float]
EVIL = 'evil\\"task"\n# HELP postroom_jobs not at all\npostroom_jobs{state="ready"} 99'
NAME = f"tests.kit.desk.test_metrics.{EVIL}"


@pytest.fixture
def work() -> Iterator[Callable[[bool], Any]]:
    """A task that does as it is told, under a name that has all that the format escapes."""

    def work(well: bool) -> None:
        if not well:
            raise ValueError("not well")

    # Not by the kit's own decorator, which refuses such a name today: rows of older versions may have it.
    made = Huey.task(tasks.huey, name=EVIL)(work)
    yield made
    tasks.huey._registry.unregister(made.task_class)


@pytest.fixture
def open_client(settings: Settings) -> Iterator[FlaskClient]:
    """A stranger at a site whose metrics are open."""
    app = create_app(replace(settings, metrics_open=True))
    with app.app_context():
        yield app.test_client()
    app.extensions["database"].close()


def scrape(client: FlaskClient) -> Values:
    """Read the metrics as Prometheus does: {(name, values of its labels, by their names): value}."""
    answer = client.get("/metrics")
    assert (answer.status_code, answer.mimetype) == (200, "text/plain"), answer.text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_it_is_the_operators_and_a_stranger_is_told_so_without_a_redirect(
    client: FlaskClient, operator: FlaskClient, app: Flask
) -> None:
    assert client.get("/metrics").status_code == 401
    token = app.extensions["settings"].admin_token
    assert client.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert operator.get("/metrics").status_code == 200


def test_a_setting_opens_it_to_everybody(open_client: FlaskClient) -> None:
    assert ("postroom_jobs", "ready") in scrape(open_client)


def test_jobs_are_counted_by_state_and_the_oldest_has_its_age(
    operator: FlaskClient, work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = scrape(operator)
    assert before["postroom_jobs", "ready"] == 0
    assert before["postroom_oldest_ready_job_age_seconds",] == 0
    now = time.time()
    monkeypatch.setattr(tasks.huey, "now", lambda: now)
    work(True)
    work.schedule((True,), delay=60)
    monkeypatch.setattr(tasks.huey, "now", lambda: now + 40)
    after = scrape(operator)
    assert after["postroom_jobs", "ready"] == 1
    assert after["postroom_jobs", "scheduled"] == 1
    assert after["postroom_oldest_ready_job_age_seconds",] == pytest.approx(40, abs=0.01)


def test_what_a_task_did_stands_under_its_name_whatever_that_is(
    operator: FlaskClient, work: Any, run_jobs: Callable[[], None]
) -> None:
    for well in (True, True, False):
        work(well)
    run_jobs()
    found = scrape(operator)
    happened = {
        event: found["postroom_task_jobs_last_hour", event, NAME] for event in ("enqueued", "done", "failed")
    }
    assert happened == {"enqueued": 3, "done": 2, "failed": 1}
    assert found["postroom_jobs", "ready"] == 0
    assert (
        found["postroom_task_run_max_seconds", NAME] >= found["postroom_task_run_median_seconds", NAME] >= 0
    )
    assert found["postroom_service_rate_jobs_per_second",] > 0


def test_pauses_of_the_queue_and_of_a_task_are_told_apart(operator: FlaskClient, work: Any) -> None:
    assert scrape(operator)["postroom_queue_paused",] == 0
    tasks.huey.pause("", reason="a test")
    tasks.huey.pause(NAME, reason="a test")
    found = scrape(operator)
    assert found["postroom_queue_paused",] == 1
    assert [key for key in found if key[0] == "postroom_task_paused"] == [("postroom_task_paused", NAME)]


def test_workers_instances_and_the_clock_are_counted(operator: FlaskClient, app: Flask) -> None:
    assert scrape(operator)["postroom_clocks",] == 0
    consumer = app.extensions["consumer"]
    consumer.start(always=True)
    give_up_at = time.monotonic() + 20
    try:
        while not (found := scrape(operator))["postroom_clocks",]:
            assert time.monotonic() < give_up_at, "nobody takes the clock"
    finally:
        consumer.stop()
    assert found["postroom_workers", "idle"] == app.extensions["settings"].task_threads
    assert found["postroom_instances", "running"] == 1


def test_mails_are_counted_by_state_and_a_lanes_pause_is_told(operator: FlaskClient) -> None:
    send_email("cleo@example.com", "confirm_subscription", genres=[], confirm_url="", days=1)
    pause = (
        "INSERT INTO postroom_mail_lanes (name, faults, paused_until) VALUES ('smtp://mail.test:587', 1, ?)"
    )
    database.write(lambda connection: connection.execute(pause, (time.time() + 300,)))
    found = scrape(operator)
    assert found["postroom_emails", "queued"] == 1
    assert 290 < found["postroom_mail_lane_pause_seconds", "smtp://mail.test:587"] <= 300


def test_each_of_many_apps_has_metrics_of_its_own(tmp_path: Path) -> None:
    for number in (1, 2):
        app = create_app(Settings(data_dir=tmp_path / str(number), metrics_open=True))
        with app.app_context():
            for _ in range(number):
                send_email("cleo@example.com", "confirm_subscription", genres=[], confirm_url="", days=1)
            assert scrape(app.test_client())["postroom_emails", "queued"] == number
        app.extensions["database"].close()


def test_a_scrape_asks_as_few_rows_after_a_hundred_thousand_jobs_as_after_none(
    operator: FlaskClient, app: Flask
) -> None:
    def steps_of_a_scrape() -> int:
        """Count the thousands of steps of SQLite's machine that a scrape takes."""
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection = app.extensions["database"]._reader()
        connection.set_progress_handler(count, 1000)
        try:
            scrape(operator)
        finally:
            connection.set_progress_handler(None, 0)
        return steps

    scrape(operator)
    before = steps_of_a_scrape()
    fill = """
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
        INSERT INTO postroom_jobs (uuid, task, payload, state, enqueued_at, ready_at, started_at, finished_at)
        SELECT 'job-' || i, 'tasks.example', x'', 'done', 1, 1, 2, 3 FROM n"""
    with database.transaction() as connection:
        connection.execute(fill)
        count_anew(connection)
    assert scrape(operator)["postroom_jobs", "done"] == 100_000
    assert steps_of_a_scrape() <= before + 2
