"""The bookshop's tasks: news of a book, sales that are counted together, subscriptions that nobody confirmed."""

from __future__ import annotations

from datetime import timedelta

from flask import current_app
from huey import crontab
from huey.exceptions import RetryTask

from app.bookshop import books as catalogue
from app.bookshop.mailing import mailing_list
from app.kit.errors import QueueFullError
from app.kit.host.clock import clock
from app.kit.mail.sending import Letter, send_emails
from tasks import batch_task, periodic_task, progress, task

PART = 50
"""Readers of one transaction: the first of them have their mail while the others' is still being made."""

ROOM_LOOK_S = 30
NEWS_FOR_S = 24 * 3600
"""A mail about a new book that could not be sent for a day is not sent any more."""

COUNTED_EVERY_S = 5


@task(retries=10, retry_delay=5, retry_backoff=2)
def alert_subscribers(book_id: int) -> int:
    """Queue a mail to every subscriber of a book's genre; return how many subscribers there were.

    Safe to repeat: yes, a mail is known by its book and subscription; who has it does not get it again.
    """
    book, count, last_id, part = catalogue.book(book_id), 0, 0, PART
    total, note = catalogue.subscriber_count(book.genre), f"readers of {book.genre} have their mail queued"
    if total:
        progress(0, total, note)
    while readers := catalogue.subscribers(book.genre, after_id=last_id, limit=part):
        letters = [
            Letter(reader.email, f"book:{book.id}/reader:{reader.id}", mailing_list=mailing_list(reader))
            for reader in readers
        ]
        try:
            send_emails("book_alert", letters, policy="hold", expires_in_s=NEWS_FOR_S, book=book)
        except QueueFullError as full:
            if part == 1:
                raise RetryTask(f"the rest follows when there is room: {full}", delay=ROOM_LOOK_S) from full
            part = part // 2  # so many at least may fit
            continue
        count, last_id = count + len(readers), readers[-1].id
        progress(count, max(count, total), note)  # who subscribes meanwhile is told too
    return count


@batch_task(every_s=COUNTED_EVERY_S, max_jobs=500)
def record_sale(book_ids: list[int]) -> None:
    """Count a sale of a book: `record_sale(book.id)`.

    Safe to repeat: no. The count is written, then the end of its jobs: a process that dies in the instant
    between the two counts them twice.
    """
    catalogue.count_sales(book_ids)


@periodic_task(crontab(minute="27"))
def forget_unconfirmed_subscriptions() -> int:
    """Delete subscriptions that were not confirmed within CONFIRM_TTL_S; return how many.

    Safe to repeat: yes, what is deleted is not found again.
    """
    ttl = timedelta(seconds=current_app.extensions["settings"].confirm_ttl_s)
    return catalogue.forget_unconfirmed(clock.settled_utc() - ttl)
