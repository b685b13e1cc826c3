"""The few connections to a mail server that stay open between mails: to open one costs more than a mail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from app.kit.mail.replies import BEFORE_MAIL, NotSentError, Reply, Verdict
from app.kit.mail.smtp.conversation import Conversation

MAX_CONNECTIONS = 2  # Exchange Online allows 3
MAX_OFFERS = 50  # the least that a provider states as its limit for one connection, with one exception
PROBE_AFTER_S = 5.0  # some servers hang up after 10
CLOSE_AFTER_S = 60.0
SMALLER_FOR_S = 3600.0


@dataclass(frozen=True)
class Idle:
    """A connection nobody uses, since when by the pool's clock."""

    conversation: Conversation
    since_s: float


class Pool:
    """Lends connections to threads, `size` at most, and makes new ones with `connect`.

    Where a server takes fewer, it is content with as many as that for an hour, before it tries again.
    Units: `clock` tells seconds; it only has to go forward.
    """

    def __init__(
        self,
        connect: Callable[[], Conversation],
        *,
        size: int = MAX_CONNECTIONS,
        close_after_s: float = CLOSE_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.close_after_s = close_after_s
        self.clock = clock
        self._connect = connect
        self._most = self._size = size
        self._smaller_until_s = 0.0
        self._lock = threading.Condition()
        self._busy = 0  # mails under way
        self._waiting = 0  # those of them that have no connection and wait for another's
        self._opened = 0  # connections that came about
        self._lent: set[Conversation] = set()
        self._idle: list[Idle] = []  # the one used last stands last, and is used first
        self._timer: threading.Timer | None = None

    def offer(self, sender: str, recipient: str, message: bytes) -> Conversation:
        """Return a conversation that has been offered the message; finish it, then give it back.

        A connection that went bad while nobody used it is no fault of this mail: it goes over a new one at once.
        Waits while as many conversations as the pool may have are under way.
        Raises: NotSentError.
        """
        self._enter()
        try:
            conversation = self._take_idle()
            if conversation is not None:
                try:
                    return self._offer_on(conversation, sender, recipient, message)
                except NotSentError as error:
                    if not _is_stale(error.reply):
                        raise
            try:
                return self._offer_on(self._open(), sender, recipient, message)
            except NotSentError as error:
                return self._offer_on(self._of_another(error), sender, recipient, message)
        except BaseException:
            self._exit()
            raise

    def give_back(self, conversation: Conversation) -> None:
        """Keep a conversation for the next mail, or close it if there can be none."""
        try:
            self._keep_or_leave(conversation)
        finally:
            self._exit()

    def shrink(self) -> None:
        """Be content with one connection less, for a while: the server says that there are too many."""
        with self._lock:
            self._size = max(1, self._size - 1)
            self._smaller_until_s = self.clock() + SMALLER_FOR_S

    def close(self) -> None:
        """Close all connections, those under way as soon as they are given back. The pool can be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._lent.clear()
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for connection in idle:
            connection.conversation.leave()

    def _enter(self) -> None:
        with self._lock:
            if self.clock() >= self._smaller_until_s:
                self._size = self._most
            self._lock.wait_for(lambda: self._busy < self._size)
            self._busy += 1

    def _exit(self) -> None:
        with self._lock:
            self._busy -= 1
            self._lock.notify_all()

    def _open(self) -> Conversation:
        conversation = self._connect()
        with self._lock:
            self._opened += 1
        return conversation

    def _of_another(self, error: NotSentError) -> Conversation:
        """Return the connection of another mail, once that is done: the server may not take one more beside it.

        Raises: the error, when there is none that works.
        """
        stage, code = error.reply.stage, error.reply.code
        if error.verdict is not Verdict.LANE or not (
            stage in BEFORE_MAIL or (stage == "mail" and code in (None, 421))
        ):
            raise error
        with self._lock:
            works, opened = bool(self._lent), self._opened
            self._waiting += 1
            self._lock.notify_all()
            self._lock.wait_for(lambda: self._idle or self._busy == self._waiting)
            self._waiting -= 1
            works = works or self._opened > opened
        if not works:
            raise error
        conversation = self._take_idle() or self._open()
        self.shrink()
        return conversation

    def _offer_on(
        self, conversation: Conversation, sender: str, recipient: str, message: bytes
    ) -> Conversation:
        with self._lock:
            self._lent.add(conversation)
        try:
            conversation.offer(sender, recipient, message)
        except BaseException:
            self._keep_or_leave(conversation)
            raise
        return conversation

    def _keep_or_leave(self, conversation: Conversation) -> None:
        with self._lock:
            # Who is not known any more was lent before the pool was closed.
            wanted = conversation in self._lent
            self._lent.discard(conversation)
            if wanted and conversation.reusable and conversation.offers < MAX_OFFERS:
                self._idle.append(Idle(conversation, self.clock()))
                self._lock.notify_all()
                self._arm_timer()
                return
        conversation.leave()

    def _take_idle(self) -> Conversation | None:
        """Return a connection that still works, if there is one."""
        self._close_overdue()
        while True:
            with self._lock:
                if not self._idle:
                    return None
                idle = self._idle.pop()
            quiet_s = self.clock() - idle.since_s
            # RSET, not NOOP: the latter says yes, too, when the next MAIL will be refused.
            if not (idle.conversation.needs_reset or quiet_s > PROBE_AFTER_S) or idle.conversation.reset():
                return idle.conversation
            idle.conversation.drop()

    def _close_overdue(self) -> None:
        with self._lock:
            border_s = self.clock() - self.close_after_s
            overdue = [idle for idle in self._idle if idle.since_s <= border_s]
            self._idle = [idle for idle in self._idle if idle.since_s > border_s]
        for idle in overdue:
            idle.conversation.leave()

    def _arm_timer(self) -> None:
        """Have the timer look when the oldest connection is due; the lock is held. No connection, no timer."""
        if self._timer is None and self._idle:
            wait_s = max(0.01, self._idle[0].since_s + self.close_after_s - self.clock())
            timer = threading.Timer(wait_s, self._tick)
            timer.name = "mail-pool"
            timer.daemon = True
            with suppress(RuntimeError):  # no thread to be had: the next mail sees to it
                timer.start()
                self._timer = timer

    def _tick(self) -> None:
        self._close_overdue()
        with self._lock:
            if threading.current_thread() is self._timer:  # else the pool was closed meanwhile
                self._timer = None
                self._arm_timer()


def _is_stale(reply: Reply) -> bool:
    """Say whether a used connection may be at fault, as a new one would not be."""
    if reply.stage == "mail":
        return reply.code in (None, 421, 451, 452, 503)
    return reply.code == 503  # the server has lost its thread
