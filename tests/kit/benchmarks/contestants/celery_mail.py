"""Celery and Flask-Mail: a task sends one mail, over a connection of its own, as Flask-Mail does by itself."""

from __future__ import annotations

import os
from collections.abc import Iterable
from urllib.parse import urlsplit

from celery import Celery, group
from flask import Flask
from flask_mail import Mail, Message

from tests.kit.benchmarks.contestants.letter import BODY, SENDER, SUBJECT, reader

NAME = "Celery + Flask-Mail"
PACKAGES = ("celery", "flask-mail", "redis")
NEEDS_REDIS = True
# Its default pool: four processes.
WORKERS = [["celery", "-A", "tests.kit.benchmarks.contestants.celery_mail", "worker", "-c", "4"]]

app = Celery("benchmark", broker=os.environ["BENCHMARK_REDIS"], backend=os.environ["BENCHMARK_REDIS"])
site, server = Flask(__name__), urlsplit(os.environ["BENCHMARK_MAIL_URL"])
site.config.update(MAIL_SERVER=server.hostname, MAIL_PORT=server.port, MAIL_DEFAULT_SENDER=SENDER)
mail = Mail(site)


@app.task
def send_mail(n: int) -> None:
    """Send reader n the letter."""
    with site.app_context():
        mail.send(Message(SUBJECT, recipients=[reader(n)], body=BODY))


def enqueue_mails(numbers: Iterable[int]) -> None:
    """Enqueue a mail to each reader."""
    group(send_mail.s(n) for n in numbers).apply_async()
