"""Counts sales: a purchase is a tiny job, and a few seconds' worth of them are counted together."""

from __future__ import annotations

from app import catalogue
from tasks import batch_task

COUNTED_EVERY_S = 5


@batch_task(every_s=COUNTED_EVERY_S, max_jobs=500)
def record_sale(book_ids: list[int]) -> None:
    """Count a sale of a book: `record_sale(book.id)`.

    Safe to repeat: no. The count is written, then the end of its jobs: a process that dies in the instant
    between the two counts them twice.
    """
    catalogue.count_sales(book_ids)
