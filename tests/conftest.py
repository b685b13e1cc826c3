"""Fixtures every test may use: an app on a database of its own, its client, and a way to run its jobs."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

import tasks
from app import create_app
from app.settings import Settings

# Whoever starts the tests in the background has them ignore Ctrl-C, and what they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with the data in a folder of the test's own."""
    return Settings(data_dir=tmp_path / "data", public_url="http://books.test")


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    """The app, with an app context pushed; jobs wait in the queue until `run_jobs` runs them."""
    app = create_app(settings)
    with app.app_context():
        yield app
    app.extensions["database"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the app."""
    return app.test_client()


@pytest.fixture
def immediate(app: Flask) -> Iterator[None]:
    """Huey's immediate mode: a job runs where it is enqueued, after the outermost commit."""
    tasks.huey.immediate = True
    yield
    tasks.huey.immediate = False


@pytest.fixture
def run_jobs(app: Flask) -> Callable[[], None]:
    """A function that runs the real consumer until no job is ready or running."""

    def run() -> None:
        logging.getLogger("huey").setLevel(logging.CRITICAL)  # errors that tests provoke
        consumer = tasks.huey.create_consumer(workers=4)
        consumer.start(always=True)
        try:
            tasks.huey.wait_until_idle(timeout_s=30)
        finally:
            consumer.stop()

    return run
