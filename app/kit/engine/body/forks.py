"""A body or a hook may fork: the child must not come back out of it and go on as a second worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from app.kit.engine.careful_log import careful

log = careful("postroom.queue")


@contextmanager
def kept_inside() -> Iterator[None]:
    """End a process that comes out of the block and did not go in: with its sys.exit()'s status, 0, or 1."""
    pid = os.getpid()
    try:
        yield
    except SystemExit as error:
        _end_if_forked(pid, error.code if isinstance(error.code, int) else int(error.code is not None))
        raise
    except BaseException:
        if os.getpid() != pid:
            log.exception("A process that a body forked ends with an error; the job is its parent's")
        _end_if_forked(pid, 1)
        raise
    _end_if_forked(pid, 0)


def _end_if_forked(pid: int, status: int) -> None:
    if os.getpid() != pid:
        os._exit(status)  # without what else is to be done at the end: that is the parent's too
