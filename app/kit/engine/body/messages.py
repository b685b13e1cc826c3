"""What a process of bodies and its parent say to each other, and how an exception gets from one to the other."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

from app.kit.engine.codec import RemoteError
from app.kit.engine.error_words import MAX_ERROR_CHARS, trace_of, words_of
from app.kit.engine.jobs.job import ClaimedJob

# Down, to the child


class Start(NamedTuple):
    """The first words: how to make the queue (pickled, for reading it imports the project), for which module."""

    recipe: bytes
    module: str


class Call(NamedTuple):
    """A body to be run: its job, and its task as it is by now. Units: timeout_s from the reading on."""

    job: ClaimedJob
    task: bytes
    module: str
    timeout_s: float | None


# Up, to the parent


class Ring(NamedTuple):
    """A commit made work: one of the parent's bells is to be rung, for so many waiters (None: for all)."""

    bell: str
    waiters: int | None


class Changed(NamedTuple):
    """A job got on: whoever waits for it in the parent is to look."""

    uuid: str


class Ready(NamedTuple):
    """The child has started, or says why it cannot."""

    error: PackedError | None = None


class Answer(NamedTuple):
    """How a body ended: with a value, with an error, or with a value that no job can keep (the error says why)."""

    value: bytes | None = None
    error: PackedError | None = None
    is_value_refused: bool = False
    retries: int | None = None
    retry_delay: float | None = None
    progress: str | None = None


class RaisedInChildError(Exception):
    """Where an error was raised in the child; it stands as the cause of the error that the parent raises."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class PackedError(NamedTuple):
    """An exception on its way: pickled, and in words for where it cannot be read."""

    pickled: bytes | None
    kind: str
    message: str
    traceback: str

    def unpack(self) -> BaseException:
        """Make the exception again, or a RemoteError that says what it was."""
        try:
            error = pickle.loads(self.pickled or b"")
        except Exception:
            error = RemoteError(self.kind, self.message)
        assert isinstance(error, BaseException)
        error.__cause__ = RaisedInChildError(self.traceback)
        return error


def pack(error: BaseException) -> PackedError:
    """Make an exception fit to travel."""
    lines = trace_of(error)
    kind, _, message = words_of(error).partition(": ")
    return PackedError(_pickled(error), kind, message, lines[-MAX_ERROR_CHARS:])


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error being handled; if it comes from a child, the child's own."""
    try:
        cause = error.__cause__
    except Exception:  # an error that answers for its attributes itself
        cause = None
    return cause.text if isinstance(cause, RaisedInChildError) else trace_of(error)


def _pickled(error: BaseException) -> bytes | None:
    for form in (error, _WithoutInit(error)):
        try:
            data = pickle.dumps(form)
            again = pickle.loads(data)
            # A class that makes its message itself would make it a second time, from the message.
            if type(again) is type(error) and words_of(again) == words_of(error):
                return data
        except Exception:
            continue
    return None


class _WithoutInit:
    """An exception whose __init__ wants other arguments than it keeps: made again from what it holds."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        args = [arg if _travels(arg) else repr(arg) for arg in self.error.args]
        state = {name: value for name, value in vars(self.error).items() if _travels(value)}
        return _make_without_init, (type(self.error), args, state)


def _make_without_init(kind: type[BaseException], args: list[Any], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def _travels(value: object) -> bool:
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:
        return False
    return True
