"""Waiting for results: one that is there, may still come, or never will; and several as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import huey.contrib.asyncio
from huey.api import ChordResult, Result, ResultGroup
from huey.exceptions import ResultTimeout

from app.kit.database.file import Database
from app.kit.engine.api.signatures import give_back
from app.kit.engine.codec import TO_JSON
from app.kit.engine.jobs import job as jobs, queries
from app.kit.errors import NoResultError


class Awaited:
    """A job's result that somebody waits for."""

    def __init__(self, database: Database, uuid: str) -> None:
        self._database, self._uuid = database, uuid
        self._ahead: str | None = None
        """The live job it follows in a pipeline or chord, while it has no row of its own."""

    def is_there(self, now: float) -> bool:
        """Say whether the result is there; False while it may still come.

        Raises: NoResultError when it never will.
        """
        # One statement: between two of them a job may end, and another take its place.
        as_written = b'"id":' + TO_JSON.encode(self._uuid).encode("utf-8", "surrogatepass")
        asked = {"uuid": self._uuid, "now": now, "ahead": self._ahead, "as_written": as_written}
        row = self._database.read_one(queries.AWAITED, asked)
        assert row is not None
        self._ahead = row["ahead"]
        if row["is_there"]:
            return True
        if row["state"] in jobs.LIVE or self._ahead is not None:
            return False
        if row["state"] is None:
            raise NoResultError(
                f"There is no job {self._uuid}, and none that is waiting or running enqueues it: what it was to "
                "follow did not succeed, or it ended so long ago that its result is kept no longer."
            )
        why = row["error"] or "its result is kept no longer, or never was"
        raise NoResultError(f"Job {self._uuid} is {row['state']} and has no result: {why}.")


class Results(ResultGroup):
    """Huey's results of several jobs; who goes through them as they come is called, and refused like others."""

    def as_completed(self, backoff: float = 1.15, max_delay: float = 1.0) -> Iterator[Any]:
        """Yield each result when it is there.

        Raises: DeadlockError inside a job or a transaction, NoResultError when one never comes.
        """
        waiting: list[Result] = list(self._results)
        while waiting:
            come = [result for result in waiting if result.is_ready()]
            if not come:
                waiting[0].huey.wait_for_results([result.id for result in waiting], None)
            for result in come:
                waiting.remove(result)
                yield result.get()


class Handle(Result):
    """Huey's result of one job."""

    def reschedule(self, *arguments: Any, **options: Any) -> Any:
        """Run the job at another time instead, as a new job, which takes its place in a chord too."""
        if self.huey.immediate:
            return super().reschedule(*arguments, **options)
        give_back(self.task)
        with self.huey.database.transaction():
            self.huey.put(moved_key(self.id), True)
            return super().reschedule(*arguments, **options)


def moved_key(uuid: str) -> str:
    """Name the flag that says of a revoked job that another one has its place."""
    return f"moved:{uuid}"


async def _aget_result(
    res: Result,
    backoff: float = 1.15,
    max_delay: float = 1.0,
    preserve: bool = False,
    timeout: float | None = None,
) -> Any:
    """Await a result.

    Raises: DeadlockError inside a job or a transaction, NoResultError when it never comes, ResultTimeout.
    """
    awaited, delay, deadline = Awaited(res.huey.database, res.id), 0.1, time.monotonic() + (timeout or 0)
    while not res.is_ready():
        res.huey.refuse_to_wait()
        if not awaited.is_there(res.huey.now()):
            if timeout is not None and time.monotonic() >= deadline:
                raise ResultTimeout("timed out waiting for result")
            await asyncio.sleep(delay)
            delay = min(delay * backoff, max_delay)
    return res.get(preserve=preserve)


# Huey's own, named in its documentation, polls for ever: in a body, and for what never comes.
huey.contrib.asyncio.aget_result = _aget_result


def named(made: Any) -> Any:
    """Make what Huey returns for a group, chord or pipeline wait in our way."""
    if isinstance(made, ResultGroup):
        return Results([Handle(one.huey, one.task) if type(one) is Result else one for one in made._results])
    if isinstance(made, ChordResult):
        made.results, made.pipeline_results = named(made.results), named(made.pipeline_results)
    return made
