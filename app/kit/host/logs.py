"""Where log lines go: stderr, one line each, without secrets, cut and counted so that no client fills the disk."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterable
from threading import Lock

from app.kit.plain_text import one_line, printable

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
MOST_LETTERS = 2000
"""Of a line; the middle of a longer one is left out."""
MOST_WITH_TRACE = 10_000
MOST_ALIKE = 20
"""Lines of one kind in a minute: written at one place of the code, for errors raised at one place."""
ALIKE_S = 60.0
MOST_KINDS = 1000

LINK_TOKEN = re.compile(r"(/(?:confirm|unsubscribe)/|[?&]token=)[^\s&'\"<]+")
"""What opens a link in a mail, or signs the operator in: gunicorn writes whole addresses."""


class DiscreetFormatter(logging.Formatter):
    """Writes *** for each secret, also in traces: an error's message may hold what a program was called with."""

    def __init__(self, secrets: Iterable[str], pattern: str = FORMAT) -> None:
        super().__init__(pattern)
        self._secrets = sorted(secrets, key=len, reverse=True)  # one may be a part of another

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Write a record's own line: a line break in it would look like another record."""
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as one line, and its trace below, so that a terminal shows it and obeys nothing in it."""
        text = printable(super().format(record))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = LINK_TOKEN.sub(r"\1***", text)
        return _cut(text, MOST_WITH_TRACE if record.exc_text else MOST_LETTERS)


class Sparing(logging.Filter):
    """Lets so many lines of one kind through a minute, then counts them; the number follows with the next line."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = Lock()
        self._began_at_s = clock()
        self._counts: dict[object, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is written; the last of its kind says that others follow it unseen."""
        with self._lock:
            unwritten = self._begin_anew()
            kind = _kind(record)
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
            if len(self._counts) > MOST_KINDS:
                self._counts.clear()
        if count > MOST_ALIKE:
            return False
        note = f" [{unwritten} lines like others were not written in the minute before]" if unwritten else ""
        if count == MOST_ALIKE:
            note += f" [others like this one are only counted for up to {ALIKE_S:.0f} s]"
        if note:
            record.msg, record.args = _message(record) + note, ()
        return True

    def _begin_anew(self) -> int:
        """Forget the counts of a minute that is over; return how many lines it left out."""
        now_s = self._clock()
        if now_s - self._began_at_s < ALIKE_S:
            return 0
        unwritten = sum(max(0, count - MOST_ALIKE) for count in self._counts.values())
        self._began_at_s = now_s
        self._counts.clear()
        return unwritten


def is_news(record: logging.LogRecord) -> bool:
    """Say no to a trace of an error that has been logged already, in words, by whoever knew more about it."""
    error = record.exc_info[1] if record.exc_info else None
    try:
        return not getattr(error, "is_logged", False)
    except Exception:  # an error that hands unknown attributes on to what it wraps
        return True


def configure(level: str, secrets: Iterable[str] = ()) -> None:
    """Send this process's log lines of `level` and above to stderr, without the secrets; gunicorn's as it likes."""
    secrets, sparing = set(secrets), Sparing()
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(is_news)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for of_ours in (handler, *logging.getLogger("gunicorn.error").handlers):
        of_ours.setFormatter(DiscreetFormatter(secrets))
        of_ours.addFilter(sparing)
    for of_access in logging.getLogger("gunicorn.access").handlers:
        of_access.setFormatter(DiscreetFormatter(secrets, "%(message)s"))
    if level != "DEBUG":
        logging.getLogger("huey").setLevel(logging.WARNING)  # two lines a job otherwise


def _kind(record: logging.LogRecord) -> object:
    place: tuple[object, ...] = ()
    if record.exc_info and record.exc_info[1]:
        trace = record.exc_info[2]
        while trace and trace.tb_next:
            trace = trace.tb_next
        place = (record.exc_info[0], trace and trace.tb_frame.f_code, trace and trace.tb_lineno)
    return record.name, record.pathname, record.lineno, place


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # whoever wrote it gave it other values than it has places
        return str(record.msg)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]} ... {len(text) - most} letters left out ... {text[-(most // 2) :]}"
