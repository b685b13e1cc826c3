"""What the present thread is doing for a queue."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from app.kit.engine.body.outcome import Outcome
from app.kit.engine.jobs.enqueue import NewJob

if TYPE_CHECKING:
    from app.kit.engine.body.batch import Batch


class Here(threading.local):
    """The job it runs and the batch that is in, and the jobs it gathers for one insert."""

    outcome: Outcome | None = None
    batch: Batch | None = None
    gathered: list[NewJob] | None = None
    gathers_in_transaction = False
    gatherer: object | None = None
