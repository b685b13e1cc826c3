"""What tests of claiming share: a queue of several tasks, and workers that claim from it."""

from __future__ import annotations

import sqlite3

from app.kit.engine.jobs import claim as claims, enqueue as arrivals, shelf
from app.kit.engine.jobs.claim import Rules
from app.kit.engine.jobs.enqueue import NewJob
from app.kit.engine.jobs.job import ClaimedJob, Ending
from tests.kit.queue_rig import NOW, Queue


class Tasks:
    """A queue whose jobs are named after their tasks: "mail 1" is the task mail's."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.rules = Rules()
        self._workers = iter(range(1, 1_000_000))

    def add(self, *uuids: str, priority: float = 0) -> None:
        new = [NewJob(uuid, uuid.split()[0], b"{}", priority) for uuid in uuids]
        self.queue.database.write(lambda connection: arrivals.insert(connection, new, NOW))

    def claim(self, instance: str = "i1", now: float = NOW, worker: str | None = None) -> list[ClaimedJob]:
        """Claim for a worker nobody else is, unless it is named."""
        name = worker or f"Worker-{next(self._workers)}"
        rules = self.rules

        def take(connection: sqlite3.Connection) -> list[ClaimedJob]:
            return claims.claim(connection, instance, name, now, rules)

        return self.queue.database.write(take)

    def claimed(self, instance: str = "i1", now: float = NOW) -> list[str]:
        return [job.uuid for job in self.claim(instance, now)]

    def all_claimed(self, instance: str = "i1") -> list[str]:
        """Claim until there is nothing to be had."""
        found: list[str] = []
        while more := self.claimed(instance):
            found += more
        return found

    def finish(self, job: ClaimedJob) -> None:
        assert self.queue.finish(job, Ending("done"))

    def pause(self, task: str, until_at: float | None = None) -> None:
        self.queue.database.write(lambda connection: shelf.pause(connection, task, "a rest", until_at))

    def make_suspect(self, uuid: str, deaths: int = 2) -> None:
        sql = "UPDATE postroom_jobs SET deaths = ? WHERE uuid = ?"
        self.queue.database.write(lambda connection: connection.execute(sql, (deaths, uuid)))
