"""What is asked of the queue's tables: every statement that only looks."""

from __future__ import annotations

from app.kit.engine.jobs.job import CLAIMED
from app.kit.engine.jobs.schema_changes import IN_TURN, PLACE

FIND = """
SELECT uuid, task, state, claim, attempt, deaths, enqueued_at, started_at, finished_at, progress, result, error
FROM postroom_jobs WHERE uuid = ?
"""

# The oldest head among the priorities of the tasks: one index seek each, however many jobs wait.
OLDEST_READY = f"""
WITH RECURSIVE heads (task, priority) AS (
    SELECT task, (SELECT MAX(priority) FROM postroom_jobs WHERE state = 'ready' AND task = counts.task)
    FROM postroom_task_counts AS counts WHERE ready > 0
    UNION ALL
    SELECT task, (
        SELECT MAX(priority) FROM postroom_jobs
        WHERE state = 'ready' AND task = heads.task AND priority < heads.priority
    ) FROM heads WHERE heads.priority IS NOT NULL
)
SELECT MIN((
    SELECT ready_at FROM postroom_jobs WHERE state = 'ready' AND task = heads.task AND priority = heads.priority
    ORDER BY {PLACE} LIMIT 1
)) FROM heads
"""

NEXT_RESUME = "SELECT MIN(until_at) FROM postroom_pauses WHERE until_at > ?"
LAST_CRON_RUN = "SELECT MAX(minute) FROM postroom_cron_runs WHERE task = ? AND minute <= ?"
# Of the newest jobs of a state only so many are looked at, whether their errors hold the text or not.
LISTED = """
SELECT id, uuid, task, state, attempt, deaths, enqueued_at, started_at, finished_at, error FROM postroom_jobs
WHERE id IN (
    SELECT id FROM postroom_jobs {by} WHERE state = '{state}' {of_task} AND id < :before_id
    ORDER BY id DESC LIMIT :looked_at
) AND (:text = '' OR instr(lower(error), lower(:text))) ORDER BY id DESC LIMIT :limit
"""
LAST_LOOKED_AT = """
SELECT id FROM postroom_jobs {by} WHERE state = '{state}' {of_task} AND id < :before_id
ORDER BY id DESC LIMIT 1 OFFSET :looked_at - 1
"""
DETAILS = """
SELECT id, payload, priority, waits, run_at, ready_at, timeout_s, instance, worker FROM postroom_jobs WHERE uuid = ?
"""
ATTEMPTS = """
SELECT number, outcome, started_at, ended_at, error, traceback FROM postroom_attempts WHERE job = ? ORDER BY rowid
"""
NEXT_RUN_AT = "SELECT MIN(run_at) FROM postroom_jobs WHERE state = 'scheduled'"
STATE = "SELECT state FROM postroom_jobs WHERE uuid = ?"
LIVE = """
SELECT uuid FROM postroom_jobs
WHERE uuid IN (SELECT value FROM json_each(?)) AND state IN ('scheduled', 'ready', 'running')
"""
VERSION = "SELECT state, claim, progress FROM postroom_jobs WHERE uuid = ?"
PAUSES = (
    "SELECT task, reason, until_at FROM postroom_pauses WHERE until_at IS NULL OR until_at > ? ORDER BY task"
)
COUNTS = """
SELECT IFNULL(SUM(scheduled), 0) AS scheduled, IFNULL(SUM(ready), 0) AS ready, IFNULL(SUM(running), 0) AS running,
    IFNULL(SUM(done), 0) AS done, IFNULL(SUM(failed), 0) AS failed, IFNULL(SUM(cancelled), 0) AS cancelled
FROM postroom_task_counts
"""
# Of a claim whose instance is not in the table (a restored backup, say) it is known no less that it is dead.
INSTANCE_IDS = """
SELECT id FROM postroom_instances UNION SELECT instance FROM postroom_jobs WHERE state = 'running'
"""
INSTANCES = (
    "SELECT id, pid, threads, state, clock, started_at FROM postroom_instances ORDER BY started_at, id"
)
# The end of an index, state by state; it holds what has a finished_at, which SQLite must be told.
LAST_MOVE = """
SELECT MAX(at) FROM (
    SELECT MAX(started_at) AS at FROM postroom_jobs WHERE state = 'running'
    UNION ALL SELECT MAX(finished_at) FROM postroom_jobs INDEXED BY postroom_jobs_ended
        WHERE state = 'done' AND finished_at > 0
    UNION ALL SELECT MAX(finished_at) FROM postroom_jobs INDEXED BY postroom_jobs_ended
        WHERE state = 'failed' AND finished_at > 0
    UNION ALL SELECT MAX(finished_at) FROM postroom_jobs INDEXED BY postroom_jobs_ended
        WHERE state = 'cancelled' AND finished_at > 0
)
"""
# The last thing that the queue did, as far as its tables tell.
NEWEST = f"""
SELECT MAX(at) FROM (
    SELECT at FROM ({LAST_MOVE.strip().replace("MAX(at)", "MAX(at) AS at")})
    UNION ALL SELECT * FROM (SELECT enqueued_at FROM postroom_jobs ORDER BY id DESC LIMIT 1)
    UNION ALL SELECT MAX(minute) * 60.0 FROM postroom_cron_runs
    UNION ALL SELECT MAX(started_at) FROM postroom_instances
)
"""
# Left to itself SQLite would follow the ids, through every job there is.
RUNNING = """
SELECT uuid, task, instance, worker, started_at, timeout_s, deaths
FROM postroom_jobs INDEXED BY postroom_jobs_running
WHERE state = 'running' ORDER BY id
"""
SUSPECT = "SELECT 1 FROM postroom_jobs WHERE deaths >= 2 AND state IN ('ready', 'running') LIMIT 1"

PAYLOADS = {
    "ready": f"SELECT payload FROM postroom_jobs WHERE state = 'ready' ORDER BY {IN_TURN} LIMIT ?",
    "scheduled": "SELECT payload FROM postroom_jobs WHERE state = 'scheduled' ORDER BY run_at, id LIMIT ?",
}
WAITING = {state: sql.replace("payload", f"{CLAIMED}, run_at", 1) for state, sql in PAYLOADS.items()}

# A job's own result stays with its row, and is the only one for its uuid; what else Huey keeps by key is in
# postroom_huey_data.
VALUE = """
SELECT result AS value FROM postroom_jobs WHERE uuid = ?1 AND result IS NOT NULL
UNION ALL SELECT value FROM postroom_huey_data WHERE key = ?1 AND (expires_at IS NULL OR expires_at > ?2)
AND NOT EXISTS (SELECT 1 FROM postroom_jobs WHERE uuid = ?1) LIMIT 1
"""
# A job without a row may be one that a live job enqueues when it ends: then its id stands in that one's message.
AWAITED = """
SELECT job.state, job.error,
    CASE WHEN job.uuid IS NULL THEN EXISTS (
        SELECT 1 FROM postroom_huey_data WHERE key = :uuid AND (expires_at IS NULL OR expires_at > :now)
    ) ELSE job.result IS NOT NULL END AS is_there,
    CASE WHEN job.uuid IS NULL THEN COALESCE(
        (SELECT uuid FROM postroom_jobs WHERE uuid = :ahead AND state IN ('scheduled', 'ready', 'running')),
        (SELECT uuid FROM postroom_jobs WHERE state = 'running' AND instr(payload, :as_written)),
        (SELECT uuid FROM postroom_jobs WHERE state = 'ready' AND instr(payload, :as_written)),
        (SELECT uuid FROM postroom_jobs WHERE state = 'scheduled' AND instr(payload, :as_written))
    ) END AS ahead
FROM (SELECT 1) LEFT JOIN postroom_jobs AS job ON job.uuid = :uuid
"""
VALUES = """
SELECT uuid AS key, result AS value FROM postroom_jobs WHERE result IS NOT NULL
UNION ALL SELECT key, value FROM postroom_huey_data
"""

# The numbers, as triggers keep them. Nothing here reads a job.
MINUTES = """
SELECT minute, SUM(enqueued) AS enqueued, SUM(done) AS done, SUM(failed) AS failed, SUM(cancelled) AS cancelled,
    SUM(wait_ms) AS wait_ms, SUM(run_ms) AS run_ms
FROM postroom_job_minutes WHERE minute BETWEEN ? AND ? GROUP BY minute
"""
TASK_MINUTES = """
SELECT task, SUM(enqueued) AS enqueued, SUM(done) AS done, SUM(failed) AS failed, SUM(cancelled) AS cancelled,
    MAX(run_ms_max) AS run_ms_max
FROM postroom_job_minutes WHERE minute BETWEEN ? AND ? GROUP BY task
"""
FLOW = """
SELECT TOTAL(enqueued) AS arrived, TOTAL(done + failed + cancelled) AS left FROM postroom_job_minutes
WHERE minute BETWEEN ? AND ?
"""
TASK_NAMES = "SELECT task FROM postroom_task_counts UNION SELECT task FROM postroom_pauses WHERE task <> ''"
TASKS = "SELECT task, ready, scheduled, running, last_run_at, last_runs_ms FROM postroom_task_counts"
