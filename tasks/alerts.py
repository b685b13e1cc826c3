"""Tells the subscribers of a genre about a new book."""

from __future__ import annotations

from huey.exceptions import RetryTask

from app import catalogue
from app.errors import QueueFullError
from tasks import progress, task
from tasks.emails import Letter, send_emails
from tasks.subscriptions import mailing_list

PART = 50
"""Readers of one transaction: the first of them have their mail while the others' is still being made."""

ROOM_LOOK_S = 30
NEWS_FOR_S = 24 * 3600
"""A mail about a new book that could not be sent for a day is not sent any more."""


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
