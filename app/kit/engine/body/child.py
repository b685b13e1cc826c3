"""A process of bodies, seen from inside: it takes calls from its parent, runs them, says how they ended.

It never outlives its parent: a job whose process died runs again at once, and no job may run twice at a time.
"""

from __future__ import annotations

import importlib
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from huey.exceptions import HueyException

from app.kit.engine.body.messages import (
    Answer,
    Call,
    Changed,
    Ready,
    Ring,
    Start,
    pack,
)
from app.kit.engine.jobs.bells import EndCalls, ReadyBell
from app.kit.errors import PayloadError
from app.settings import Settings

if TYPE_CHECKING:
    from app.kit.engine.api.durable import DurableHuey

NICENESS = 10
LEFT_TO_THE_PARENT = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C and systemd tell every process: the parent alone decides what becomes of a body that runs."""

Recipe = tuple[Callable[[Settings], "DurableHuey"], Settings]


class TaskNotFoundError(HueyException):
    """A task exists in the parent, but not in a process that has imported its module."""


def main(lifeline: int | None) -> None:
    """Run bodies until the parent is gone."""
    if hasattr(os, "nice"):
        # Where there is less computing time than work, pages are to be fast, and bodies may take longer.
        os.nice(NICENESS)
    if lifeline is not None:
        _die_with(lifeline)
    parent = Parent()
    _leave_signals_to(parent)
    try:
        bodies = Bodies(parent, parent.next_message())
    except BaseException as error:
        parent.tell(Ready(pack(error)))
        os._exit(1)
    parent.tell(Ready())
    while True:
        parent.tell(bodies.run(parent.next_message()))


class Parent:
    """The line to the parent: what were the standard input and output of this process."""

    def __init__(self) -> None:
        # Moved away from 0 and 1, so that a body's print() and input() do not come between.
        self._incoming, self._outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        self._nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(self._nothing, 0)
        os.dup2(2, 1)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._telling = threading.Lock()
        threading.Thread(target=self._listen, name="Parent", daemon=True).start()

    def next_message(self) -> Any:
        """Wait for what the parent says next."""
        return self._messages.get()

    def tell(self, message: Any) -> None:
        """Say something, from any thread."""
        data = pickle.dumps(message)
        with self._telling:
            try:
                self._outgoing.write(data)
                self._outgoing.flush()
            except OSError:
                os._exit(1)  # nobody is left to hear it

    def hang_up(self) -> None:
        """In a fork of this process: let go of the line, or the parent would not hear when this process ends."""
        for stream in (self._incoming, self._outgoing):
            os.dup2(self._nothing, stream.fileno(), inheritable=False)

    def _listen(self) -> None:
        try:
            while True:
                self._messages.put(pickle.load(self._incoming))
        finally:  # the end of the line: the parent is gone, however it went
            os._exit(0)


def _die_with(lifeline: int) -> None:
    """Have Linux kill this process and what it started once the parent's end of a pipe is closed.

    The thread that listens does the same, but it cannot while a body in C (a long regular expression, say) holds
    the interpreter; elsewhere than on Linux that body ends first.
    """
    import fcntl

    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC)


def _leave_signals_to(parent: Parent) -> None:
    numbers = [getattr(signal, name) for name in LEFT_TO_THE_PARENT if hasattr(signal, name)]
    for number in numbers:
        # Not SIG_IGN, which the programs that a body starts would inherit.
        signal.signal(number, lambda _number, _frame: None)

    def in_a_fork() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        parent.hang_up()

    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # the parent held them back until here
        os.register_at_fork(after_in_child=in_a_fork)


class Bodies:
    """The tasks of this process and what they need: the queue, its database, the context of bodies."""

    def __init__(self, parent: Parent, start: Start) -> None:
        self._parent = parent
        importlib.import_module(start.module)
        self._make, self._settings = _read(start.recipe)
        self._huey = self._make_huey()

    def run(self, call: Call) -> Answer:
        """Run one body."""
        task = outcome = None
        try:
            task = self._find_task(call)
            self._huey.lock_owner = call.job.uuid  # the body's helper threads lock for it
            if call.timeout_s:
                task._deadline = time.monotonic() + call.timeout_s
            with self._huey.app_context(), self._huey.noting(call.job) as outcome:
                value = task.execute()
            answer = self._answer_with(value)
        except BaseException as error:
            answer = Answer(error=pack(error))
        if task is not None:
            answer = answer._replace(retries=task.retries, retry_delay=task.retry_delay)
        return answer if outcome is None else answer._replace(progress=outcome.progress)

    def _answer_with(self, value: Any) -> Answer:
        try:
            return Answer(value=self._huey.serializer.serialize(value))
        except PayloadError as error:
            return Answer(error=pack(error), is_value_refused=True)

    def _find_task(self, call: Call) -> Any:
        importlib.import_module(call.module)
        if self._huey.database is not self._database:
            # The module has made an app of its own, and the last one made has the queue: ours is to have it.
            self._huey = self._make_huey()
        try:
            return self._huey.deserialize_task(call.task)
        except HueyException as error:
            raise TaskNotFoundError(
                f"{call.job.task} is not there when a process of its own imports {call.module}: make a task with "
                "process=True at the top of a module, not inside a function"
            ) from error

    def _make_huey(self) -> DurableHuey:
        huey = self._make(self._settings)
        huey.is_in_child = huey.has_siblings = True
        huey.ready_bell, huey.clock_bell = (ParentsBell(self._parent, name) for name in ("ready", "clock"))
        huey.end_calls = ParentsCalls(self._parent)
        self._database = huey.database
        return huey


class ParentsBell(ReadyBell):
    """A bell that rings in the parent, where the workers are."""

    def __init__(self, parent: Parent, name: str) -> None:
        super().__init__()
        self._parent, self._name = parent, name

    def ring(self, waiters: int = 1) -> None:
        """Wake that many waiters."""
        self._parent.tell(Ring(self._name, waiters))

    def ring_all(self) -> None:
        """Wake everybody."""
        self._parent.tell(Ring(self._name, None))


class ParentsCalls(EndCalls):
    """Calls those who wait for a job, in the parent too."""

    def __init__(self, parent: Parent) -> None:
        super().__init__()
        self._parent = parent

    def call(self, uuid: str) -> None:
        """Wake those who wait for this job."""
        super().call(uuid)
        self._parent.tell(Changed(uuid))


def _read(recipe: bytes) -> Recipe:
    make, settings = pickle.loads(recipe)
    return make, settings
