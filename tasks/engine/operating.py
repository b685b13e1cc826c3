"""What people and pages ask of the queue: redrive, cancel, pause; one job, all of it, what ails it."""

from __future__ import annotations

import sqlite3
from typing import Any

from tasks.engine import overview, shelf
from tasks.engine.running import RunningHuey


class OperatedHuey(RunningHuey):
    """The side of the queue that its operator uses."""

    # By hand

    def redrive(self, uuid: str | None = None, task: str | None = None) -> int:
        """Run failed jobs again: one by its uuid, all of a task by its name, or all; return how many."""
        now = self.now()

        def redrive(connection: sqlite3.Connection) -> int:
            redriven = shelf.redrive(connection, now, uuid, task)
            for job, name in redriven:
                if_redriven = getattr(self._registry._registry.get(name), "if_redriven", None)
                if if_redriven is not None:
                    if_redriven(connection, job)
            return len(redriven)

        count = self.database.write(redrive)
        self.database.after_commit(lambda: self.ready_bell.ring(count))
        return count

    def cancel(self, uuid: str) -> bool:
        """Cancel a job that waits; False when it runs already or has ended."""
        now = self.now()
        cancelled = self.database.write(lambda connection: self.cancel_waiting(connection, uuid, now))
        self.database.after_commit(lambda: self.end_calls.call(uuid))
        self.database.after_commit(self.ready_bell.ring_all)  # its chord goes on, or who waited for a suspect
        return cancelled

    def delete_failed(self, uuid: str) -> bool:
        """Take a failed job off the shelf for good."""
        return self.database.write(lambda connection: shelf.delete_failed(connection, uuid))

    def pause(
        self,
        task: str = "",
        seconds: float | None = None,
        reason: str = "paused by hand",
        *,
        extend: bool = False,
    ) -> None:
        """Let no job of a task (of the whole queue, by default) start, for a time or until `resume`.

        With `extend` a pause that stands already is made longer, never shorter.
        """
        until_at = None if seconds is None else self.now() + seconds
        self.database.write(lambda connection: shelf.pause(connection, task, reason, until_at, extend=extend))
        self.database.after_commit(self.clock_bell.ring)

    def resume(self, task: str = "", *, only_timed: bool = False) -> bool:
        """Lift a pause (with `only_timed` not one without an end); False when there was none."""
        lifted = self.database.write(lambda connection: shelf.resume(connection, task, only_timed=only_timed))
        self.database.after_commit(self.ready_bell.ring_all)
        return lifted

    # Looking

    def job(self, uuid: str) -> dict[str, Any] | None:
        """Describe a job for its holder, or return None; times are unix seconds."""
        return overview.job(self.database, self.serializer, uuid)

    def overview(self) -> dict[str, Any]:
        """Describe the queue, its workers and instances; times are unix seconds."""
        return overview.queue(self.database, self.now())

    def list_jobs(self, state: str, task: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Describe the newest jobs of a state, for the operator; times are unix seconds."""
        return overview.listed(self.database, state, task, limit)

    def details(self, uuid: str) -> dict[str, Any] | None:
        """Describe a job for the operator: its arguments and each failed attempt, beside what its holder sees."""
        return overview.details(self.database, self.serializer, uuid)

    def health(self) -> list[str]:
        """Return a sentence for everything that keeps jobs from running; empty when all is well."""
        return overview.health(self.database, self.now(), self.rules().limits)
