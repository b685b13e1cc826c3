"""A second create_app() in a process: the queue keeps its bells, and both apps the one writer (P2, P3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask
from huey.exceptions import ConfigurationError

import tasks
from app import create_app
from app.kit.database.file import database
from app.kit.engine.consumer.consumer import EmbeddedConsumer
from app.settings import Settings
from tasks.example import count_words
from tests.kit.engine_rig import PATIENCE_S


@pytest.fixture
def consumer(app: Flask) -> Iterator[EmbeddedConsumer]:
    """The app's consumer, running."""
    consumer: EmbeddedConsumer = app.extensions["consumer"]
    consumer.start(always=True)
    yield consumer
    consumer.stop()


@pytest.mark.usefixtures("consumer")
def test_jobs_of_both_apps_run_at_once_and_inside_their_transactions(app: Flask, settings: Settings) -> None:
    workers, bells = tasks.huey._context, tasks.huey.ready_bell
    again = create_app(replace(settings, max_pending_jobs=5))
    assert (tasks.huey._context, tasks.huey.ready_bell) == (workers, bells)
    assert again.extensions["database"] is app.extensions["database"]
    for one in (app, again):
        with one.app_context(), database.transaction():
            result = count_words("to be or not to be")
        assert result.get(blocking=True, timeout=PATIENCE_S) == 6
    assert tasks.huey.health() == []


@pytest.mark.usefixtures("consumer")
def test_an_app_for_other_data_is_refused_while_jobs_run_here(app: Flask, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a process of its own"):
        create_app(Settings(data_dir=tmp_path / "elsewhere"))
    assert tasks.huey.database is app.extensions["database"]


def test_before_jobs_run_the_last_app_has_the_queue_and_both_one_writer(
    app: Flask, settings: Settings, tmp_path: Path
) -> None:
    last = create_app(settings)
    assert tasks.huey.database is last.extensions["database"] is app.extensions["database"]
    other = create_app(Settings(data_dir=tmp_path / "elsewhere"))
    assert tasks.huey.database is other.extensions["database"] is not app.extensions["database"]
