"""The kit's named errors. Each says what was found, what was expected and what to do."""

from __future__ import annotations

import math


class PostroomError(Exception):
    """Base of every error the kit raises on purpose; its message is fit to be shown to people."""

    code = "error"
    status = 500


class SettingError(PostroomError):
    """An environment variable holds a value that cannot be used."""

    code = "bad_setting"

    def __init__(self, variable: str, found: object, expected: str) -> None:
        self.variable = variable
        super().__init__(
            f"{variable} is {found!r}, expected {expected}. Change it, or unset it for the default."
        )


class CannotListenError(PostroomError):
    """The port or the address that the site is to listen on cannot be had."""

    code = "cannot_listen"


class InvalidInputError(PostroomError):
    """Somebody sent a value that cannot be accepted; `field` names it."""

    code = "invalid_input"
    status = 400

    def __init__(self, message: str, field: str | None = None) -> None:
        self.field = field
        super().__init__(message)


class NotFoundError(PostroomError):
    """What was asked for does not exist."""

    code = "not_found"
    status = 404


class OperatorOnlyError(PostroomError):
    """Only the operator may do this, and the request does not show that it is him."""

    code = "operator_only"
    status = 401


class FormRefusedError(PostroomError):
    """A form or a call may have been made by another site in the visitor's name."""

    code = "form_refused"
    status = 400


class UnknownHostError(PostroomError):
    """A request came by a name that is not ours."""

    code = "unknown_host"
    status = 421

    def __init__(self, name: str) -> None:
        super().__init__(
            f"This site does not answer to the name {name}. If the site and the name are yours, set "
            f"TRUSTED_HOSTS={name}, or PUBLIC_URL to the whole address, and start it again."
        )


class TooManyRequestsError(PostroomError):
    """Somebody does a thing more often than it is allowed; `retry_after_s` tells when it is allowed again."""

    code = "too_many_requests"
    status = 429

    def __init__(self, message: str, retry_after_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(retry_after_s))
        super().__init__(message)


class ConflictError(PostroomError):
    """What is asked for cannot be done to a thing in the state it is in."""

    code = "conflict"
    status = 409


class DatabaseBusyError(PostroomError):
    """The writer's turn did not come within the time limit."""

    code = "database_busy"
    status = 503


class DatabaseUnusableError(PostroomError):
    """The database file cannot be opened, is damaged, or belongs to another environment."""

    code = "database_unusable"
    status = 503


class DatabaseUnwritableError(DatabaseUnusableError):
    """Nothing can be kept for now: the disk is full or read-only, or the file is gone; its words name no folder."""

    code = "database_unwritable"


class QueueFullError(PostroomError):
    """As many jobs are pending as MAX_PENDING_JOBS allows."""

    code = "queue_full"
    status = 503
    retry_after_s = 5


class JobTooLargeError(PostroomError):
    """A job's arguments or result are larger than MAX_JOB_BYTES; big things go by reference."""

    code = "job_too_large"
    status = 413


class PayloadError(PostroomError):
    """A job's argument or result cannot be written as JSON; the message names it."""

    code = "bad_payload"


class NoResultError(PostroomError):
    """A job's result is waited for that will never come."""

    code = "no_result"
    status = 409


class DeadlockError(PostroomError):
    """Waiting there, for a job's result or for the writer, would wait for ever."""

    code = "deadlock"
