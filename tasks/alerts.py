"""Tells the subscribers of a genre about a new book."""

from __future__ import annotations

from app import catalogue
from tasks import task
from tasks.emails import Letter, send_emails

PART = 200
"""Readers of one transaction: the first of them have their mail while the others' is still being made."""


@task(retries=10, retry_delay=5, retry_backoff=2)
def alert_subscribers(book_id: int) -> int:
    """Queue a mail to every subscriber of a book's genre; return how many subscribers there were.

    Safe to repeat: yes, a mail is known by its book and subscription; who has it does not get it again.
    """
    book, count, last_id = catalogue.book(book_id), 0, 0
    while readers := catalogue.subscribers(book.genre, after_id=last_id, limit=PART):
        letters = [Letter(reader.email, f"book:{book.id}/reader:{reader.id}") for reader in readers]
        send_emails("book_alert", letters, book=book)
        count, last_id = count + len(readers), readers[-1].id
    return count
