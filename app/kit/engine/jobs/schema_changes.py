"""What has changed about the queue's tables since they were first made, in the order in which it did."""

from __future__ import annotations

KEEP_ATTEMPTS = 100
"""Of one job's history, the newest."""
PLACE = "IFNULL(place, id)"
"""Where a ready job stands among those of its priority: in the order of arrival; who comes back stands last."""
IN_TURN = f"priority DESC, {PLACE}, id"

CHANGES: dict[str, tuple[str, ...]] = {
    # A retry goes behind what waits, so that no job that fails at once keeps others from their turn (P2).
    "give_places": (
        "ALTER TABLE postroom_jobs ADD COLUMN place INTEGER",  # in the line of its priority; NULL: its id
        "DROP INDEX postroom_jobs_ready_by_task",
        f"""CREATE INDEX postroom_jobs_ready_by_task ON postroom_jobs (task, priority DESC, {PLACE})
            WHERE state = 'ready'""",
    ),
    # A job whose body runs differs from one whose process still starts: a death then is not the body's.
    "know_what_has_not_begun": ("ALTER TABLE postroom_jobs ADD COLUMN starting INTEGER NOT NULL DEFAULT 0",),
    # However often a job is tried, waits or is stopped: its last tries are looked at, not its first (P4).
    "bound_history": (
        f"""CREATE TRIGGER postroom_attempts_bounded AFTER INSERT ON postroom_attempts BEGIN
    DELETE FROM postroom_attempts WHERE job = new.job AND rowid <= (
        SELECT rowid FROM postroom_attempts WHERE job = new.job ORDER BY rowid DESC LIMIT 1 OFFSET {KEEP_ATTEMPTS}
    );
END""",
    ),
    # What is kept by key has an end, but for the flags of tasks. A flag of a job stays until the job has met it.
    "end_keys": (
        "ALTER TABLE postroom_huey_counters ADD COLUMN expires_at REAL",
        "UPDATE postroom_huey_counters SET expires_at = 0",
        """UPDATE postroom_huey_data SET expires_at = strftime('%s', 'now') + 31536000
            WHERE expires_at IS NULL AND key NOT LIKE 'rt:%'""",
    ),
    # A chord's parts are counted as they come, and their bytes: more than its callback can take need not be kept
    # (P4).
    "count_chord_parts": (
        "ALTER TABLE postroom_chords ADD COLUMN parts INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE postroom_chords ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0",
        "DELETE FROM postroom_chord_parts WHERE chord IN (SELECT id FROM postroom_chords WHERE fired_at NOTNULL)",
        """UPDATE postroom_chords SET (parts, bytes) = (
            SELECT COUNT(*), IFNULL(SUM(length(value)), 0) FROM postroom_chord_parts
            WHERE chord = postroom_chords.id
        )""",
    ),
    # What a job's time to run counts from, once it was redriven.
    "restart_expiries": ("ALTER TABLE postroom_jobs ADD COLUMN redriven_at REAL",),
    # Which tasks a living process has: one of another version leaves it the jobs of those it does not know.
    "keep_tasks_of_instances": (
        """CREATE TABLE postroom_instance_tasks (
            task TEXT, instance TEXT, PRIMARY KEY (task, instance)
        ) WITHOUT ROWID""",
    ),
}
"""The steps by their names, which a file keeps: a new one comes last, none is ever changed or renamed."""
