"""Fixtures every test may use: an app on a database of its own, a queue without a site, a mail server."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import BytecodeCache, FileSystemBytecodeCache

import tasks
from app import create_app
from app.kit.database import forks as database_forks
from app.kit.doctor.hosts import IN_MEMORY, find_mount
from app.kit.host.clock import clock
from app.kit.mail import inbox
from app.kit.mail.inbox import InboxEmail
from app.kit.web.error_pages import Site
from app.settings import Settings
from tests.kit.cheap_apps import KnownRule, empty_database
from tests.kit.engine_rig import Rig, rig_in
from tests.kit.forms import Browser
from tests.kit.queue_rig import Queue, queue_in
from tests.kit.smtp_sink import SmtpSink

if TYPE_CHECKING:
    from app.bookshop.books import Subscription

RunJobs = Callable[[], None]
"""What the fixture `run_jobs` gives."""

# Whoever starts the tests in the background has them ignore Ctrl-C, and what they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def use_a_disk() -> None:
    """Put the tests' files on a disk: on Debian 13 /tmp is memory, which the doctor calls wrong."""
    folder = Path(tempfile.gettempdir())
    mount = find_mount(folder)
    if mount is not None and mount.kind in IN_MEMORY and os.access("/var/tmp", os.W_OK):
        tempfile.tempdir = os.environ["TMPDIR"] = "/var/tmp"


use_a_disk()


@pytest.fixture(autouse=True)
def close_databases() -> Iterator[None]:
    """Close what a test has opened: from Python 3.13 on a connection that is merely dropped is a warning."""
    before = set(database_forks.watched)
    yield
    for opened in set(database_forks.watched) - before:
        opened.close()  # type: ignore[attr-defined]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with the data in a folder of the test's own."""
    return Settings(data_dir=tmp_path / "data", public_url="http://books.test")


@pytest.fixture(scope="session")
def known_templates(tmp_path_factory: pytest.TempPathFactory) -> BytecodeCache:
    """What the site's templates are compiled to: once, not by every app anew."""
    return FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))


@pytest.fixture
def app(settings: Settings, known_templates: BytecodeCache) -> Iterator[Flask]:
    """The app, with an app context pushed; jobs wait in the queue until `run_jobs` runs them.

    Nothing fires by the clock, so that no test finds other jobs than its own at certain minutes of an hour.
    """
    if not settings.database_path.exists():
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        settings.database_path.write_bytes(empty_database(settings.environment))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Site, "url_rule_class", KnownRule)
        app = create_app(settings)
    app.jinja_env.bytecode_cache = known_templates
    app.test_client_class = Browser
    with app.app_context(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.huey, "enqueue_cron", lambda _task, _minute: False)
        patch.setattr(
            clock, "_known", clock._known
        )  # whatever moments a test writes, the next believes the clock
        yield app
    if "transport" in app.extensions:
        app.extensions["transport"].close()
    app.extensions["database"].close()


@pytest.fixture
def sink() -> Iterator[SmtpSink]:
    """A mail server that misbehaves as it is told."""
    with SmtpSink() as sink:
        yield sink


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client of the app; submit() fills in a form of a page, sign_in() makes it the operator's."""
    return app.test_client()


@pytest.fixture
def operator(app: Flask) -> FlaskClient:
    """A client that is signed in as the operator."""
    client = app.test_client()
    client.sign_in()
    return client


@pytest.fixture
def subscribe(app: Flask) -> Callable[[str, str], Subscription]:
    """A function that subscribes a reader who has confirmed it already."""
    from app.bookshop import (
        books as catalogue,  # here, so that a project without the bookshop keeps this file
    )

    def subscribe(email: str, genre: str) -> Subscription:
        asked = catalogue.subscribe(email, genre)
        catalogue.confirm(asked.id)
        return catalogue.subscription(asked.id)

    return subscribe


@pytest.fixture
def immediate(app: Flask) -> Iterator[None]:
    """Huey's immediate mode: a job runs where it is enqueued, after the outermost commit."""
    tasks.huey.immediate = True
    yield
    tasks.huey.immediate = False


class Outbox(Sequence[InboxEmail]):
    """The mails that were sent, in the order in which they were asked for; each has to, subject, text, html."""

    def __getitem__(self, place: Any) -> Any:
        return inbox.mails(limit=10_000)[::-1][place]

    def __len__(self) -> int:
        return len(inbox.mails(limit=10_000))

    def to(self, address: str) -> list[InboxEmail]:
        """Return the mails to one address."""
        return [mail for mail in self if mail.to == address]


@pytest.fixture
def outbox(app: Flask, immediate: None) -> Outbox:
    """The mails that the site sent; with it jobs run at once, and no mail server is needed."""
    return Outbox()


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


# The queue without a site


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A Huey on a database of the test's own, and its consumer."""
    with rig_in(tmp_path) as rig:
        yield rig


@pytest.fixture
def give(rig: Rig) -> Any:
    """A task that returns what it is given."""
    return rig.huey.task(name="give")(lambda *values: values[0] if values else None)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """The verbs of an empty queue; its counts must be true at the end."""
    with queue_in(tmp_path) as queue:
        yield queue
