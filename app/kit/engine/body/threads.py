"""Which body a thread works for: the one it runs, or the one that started the thread or handed a pool this call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from threading import Thread
from typing import Any


class _Body:
    """A call of a body; a thread that outlives it is nobody's."""

    has_ended = False


# A variable of the context: a coroutine and asyncio.to_thread() have it without further help.
_body: ContextVar[_Body | None] = ContextVar("body", default=None)


@contextmanager
def running() -> Iterator[None]:
    """Mark the present thread, and all that works for it, as inside a body."""
    body = _Body()
    token = _body.set(body)
    try:
        yield
    finally:
        body.has_ended = True
        _body.reset(token)


def works_for_body() -> bool:
    """Say whether a body waits, or may wait, for what the present thread does."""
    body = _body.get()
    return body is not None and not body.has_ended


def _for_body(body: _Body | None, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    token = _body.set(body)
    try:
        return call(*args, **kwargs)
    finally:
        _body.reset(token)


def _follow_threads() -> None:
    """Let threads and calls of pools know the body that they are started in, which Python itself does not do."""
    start, submit = Thread.start, ThreadPoolExecutor.submit

    def start_for_body(self: Thread) -> None:
        if works_for_body():
            self.run = partial(_for_body, _body.get(), self.run)  # type: ignore[method-assign]
        start(self)

    def submit_for_body(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        if works_for_body():
            fn = partial(_for_body, _body.get(), fn)
        return submit(self, fn, *args, **kwargs)

    Thread.start = start_for_body  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_for_body  # type: ignore[method-assign, assignment]


_follow_threads()
