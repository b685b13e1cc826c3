"""One process of bodies, seen from its parent: started, called, listened to, killed."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

from huey.exceptions import HueyException, TaskTimeout

from app.kit.engine.body.child import LEFT_TO_THE_PARENT
from app.kit.engine.body.messages import (
    Answer,
    Call,
    Changed,
    Ready,
    Ring,
    Start,
)
from app.kit.engine.error_words import words_of

START_WITHIN_S = 60.0

# Python starts with these words; sys.path is the parent's, however it came by it.
FIRST_WORDS = (
    "import sys; sys.path[:] = {path!r}; from app.kit.engine.body.child import main; main({lifeline})"
)


class BodyProcessError(HueyException):
    """A body's process could not be started, or died under it."""


class BodyProcess:
    """One child process, and the thread that listens to it and buries it."""

    def __init__(self, huey: Any, start: Start) -> None:
        self._huey = huey
        self._heard: queue.SimpleQueue[Answer | Ready | None] = queue.SimpleQueue()
        """What it answered; None once it is dead."""
        self.is_alive = True
        self._lifeline: int | None = None
        try:
            self._spawn()
            _children.add(self)
        except OSError as error:
            raise BodyProcessError(f"no process for the body could be started: {error}") from error
        threading.Thread(target=self._listen, name="BodyProcess", daemon=True).start()
        self._tell(start)
        try:
            ready = self._heard.get(timeout=START_WITHIN_S)
        except queue.Empty:
            self.kill()
            raise BodyProcessError(
                f"the body's process did not start within {START_WITHIN_S:g} s: the machine has too much to do"
            ) from None
        if not isinstance(ready, Ready):
            raise BodyProcessError(f"the body's process died as it started: {self._how_it_died()}")
        if ready.error is not None:
            why = ready.error.unpack()
            raise BodyProcessError(f"the body's process could not start: {words_of(why)}") from why

    def call(self, call: Call, grace_s: float) -> Answer:
        """Run a body in it.

        Raises: TaskTimeout when it was killed because its time was up, BodyProcessError when it died otherwise.
        """
        self._tell(call)
        try:
            answer = self._heard.get(timeout=call.timeout_s + grace_s if call.timeout_s else None)
        except queue.Empty:
            self.kill()
            answer = self._heard.get()
            if answer is None:  # else it came to its end at the very last moment
                raise TaskTimeout(
                    f"it ran longer than its timeout of {call.timeout_s:g} s, and its process was killed"
                ) from None
        if not isinstance(answer, Answer):
            raise BodyProcessError(f"the body's process died under it: {self._how_it_died()}")
        return answer

    def kill(self) -> None:
        """End it, and whatever its bodies have started, at once."""
        self.is_alive = False
        if self._process.returncode is None:
            with suppress(OSError):  # it died at this moment
                if sys.platform == "win32":
                    self._process.kill()
                else:
                    os.killpg(self._process.pid, signal.SIGKILL)

    def hang_up(self) -> None:
        """In a fork of the parent: let go of the lines, or the child would not hear when the parent ends."""
        nothing = os.open(os.devnull, os.O_RDWR)
        lines = [
            line.fileno() for line in (self._process.stdin, self._process.stdout) if line and not line.closed
        ]
        for line in lines if self._lifeline is None else [*lines, self._lifeline]:
            os.dup2(nothing, line, inheritable=False)
        os.close(nothing)

    def _spawn(self) -> None:
        """Start Python anew: no fork, for this process has threads and connections to the database."""
        inherited: int | None = None
        if sys.platform == "linux":
            inherited, self._lifeline = os.pipe()
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS
            options["creationflags"] = flags
        else:
            # A group of its own, so that a kill takes what a body has started (ffmpeg, say) along.
            options |= {"process_group": 0, "pass_fds": [] if inherited is None else [inherited]}
        words = FIRST_WORDS.format(path=sys.path, lifeline=inherited)
        try:
            with _signals_held_back():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
                )
        except OSError:
            self._close_lifeline()
            raise
        finally:
            if inherited is not None:
                os.close(inherited)

    def _tell(self, message: Start | Call) -> None:
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):  # it is dead, which the listening thread will say
            self._process.stdin.write(pickle.dumps(message))
            self._process.stdin.flush()

    def _listen(self) -> None:
        try:
            # Until it dies, perhaps in the middle of a word; the end of the block waits for that.
            with suppress(EOFError, OSError, pickle.UnpicklingError), self._process as process:
                assert process.stdout is not None
                try:
                    while True:
                        self._hear(pickle.load(process.stdout))
                finally:
                    self.kill()  # what its bodies have started goes too
        finally:
            self._close_lifeline()
            self._heard.put(None)

    def _hear(self, message: Ring | Changed | Ready | Answer) -> None:
        if isinstance(message, Ring):
            bell = self._huey.ready_bell if message.bell == "ready" else self._huey.clock_bell
            bell.ring_all() if message.waiters is None else bell.ring(message.waiters)
        elif isinstance(message, Changed):
            self._huey.end_calls.call(message.uuid)
        else:
            self._heard.put(message)

    def _close_lifeline(self) -> None:
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            os.close(lifeline)

    def _how_it_died(self) -> str:
        status = self._process.returncode
        if status >= 0:
            return f"it ended with exit status {status}"
        name = {number.value: number.name for number in signal.Signals}.get(-status, f"signal {-status}")
        why = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"it was killed by {name}{why}"


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Have a child start with the signals blocked that it leaves to its parent; it knows of that a moment later."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, name) for name in LEFT_TO_THE_PARENT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_children: WeakSet[BodyProcess] = WeakSet()


def _hang_up_all() -> None:
    for child in list(_children):
        child.hang_up()


if hasattr(os, "register_at_fork"):  # not on Windows, which forks nothing
    os.register_at_fork(after_in_child=_hang_up_all)
