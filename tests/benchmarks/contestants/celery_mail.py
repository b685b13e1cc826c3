"""Celery and Flask-Mail: a task sends one mail, over a connection of its own, as Flask-Mail does by itself."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable

from celery import Celery, group
from flask import Flask
from flask_mail import Mail, Message

NAME = "Celery + Flask-Mail"
PACKAGES = ("celery", "flask-mail", "redis")
NEEDS_REDIS = True
SENDER = "post@example.com"
SUBJECT = "Soup"
BODY = "0123456789 and so on, until the line is full.\r\n" * 80
# Its default pool: four processes.
WORKERS = [["celery", "-A", "tests.benchmarks.contestants.celery_mail", "worker", "-c", "4"]]

app = Celery("benchmark", broker=os.environ["BENCHMARK_REDIS"], backend=os.environ["BENCHMARK_REDIS"])


@functools.cache
def _site(server_host: str, server_port: int) -> tuple[Flask, Mail]:
    """Make the Flask application once a process; only the test knows where its mail server is."""
    site = Flask(__name__)
    site.config.update(MAIL_SERVER=server_host, MAIL_PORT=server_port, MAIL_DEFAULT_SENDER=SENDER)
    return site, Mail(site)


@app.task
def send_mail(server_host: str, server_port: int, recipient: str) -> None:
    """Send one mail."""
    site, mail = _site(server_host, server_port)
    with site.app_context():
        mail.send(Message(SUBJECT, recipients=[recipient], body=BODY))


def enqueue_mails(server_host: str, server_port: int, recipients: Iterable[str]) -> None:
    """Enqueue a mail to each recipient."""
    group(send_mail.s(server_host, server_port, recipient) for recipient in recipients).apply_async()
