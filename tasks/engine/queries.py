"""What is asked of the queue's tables: every statement that only looks."""

from __future__ import annotations

FIND = """
SELECT uuid, task, state, attempt, deaths, enqueued_at, started_at, finished_at, progress, result, error
FROM jobs WHERE uuid = ?
"""

# The oldest head among the priorities: one index seek each, however many jobs wait.
OLDEST_READY = """
WITH RECURSIVE heads (priority) AS (
    SELECT MAX(priority) FROM jobs WHERE state = 'ready'
    UNION ALL
    SELECT (SELECT MAX(priority) FROM jobs WHERE state = 'ready' AND priority < heads.priority)
    FROM heads WHERE heads.priority IS NOT NULL
)
SELECT MIN(
    (SELECT ready_at FROM jobs WHERE state = 'ready' AND priority = heads.priority ORDER BY id LIMIT 1)
) FROM heads
"""

NEXT_RESUME = "SELECT MIN(until_at) FROM pauses WHERE until_at > ?"
LAST_CRON_RUN = "SELECT MAX(minute) FROM cron_runs WHERE task = ? AND minute <= ?"
LISTED = """
SELECT uuid, task, state, attempt, deaths, enqueued_at, started_at, finished_at, error FROM jobs
WHERE state = ?1 AND (?2 IS NULL OR task = ?2) ORDER BY id DESC LIMIT ?3
"""
DETAILS = "SELECT id, payload, priority, waits, run_at FROM jobs WHERE uuid = ?"
ATTEMPTS = """
SELECT number, outcome, started_at, ended_at, error, traceback FROM attempts WHERE job = ? ORDER BY rowid
"""
NEXT_RUN_AT = "SELECT MIN(run_at) FROM jobs WHERE state = 'scheduled'"
STATE = "SELECT state FROM jobs WHERE uuid = ?"
COUNTS = "SELECT state, n FROM job_counts"
# Of a claim whose instance is not in the table (a restored backup, say) it is known no less that it is dead.
INSTANCE_IDS = """
SELECT id FROM instances UNION SELECT instance FROM jobs WHERE state = 'running'
"""
INSTANCES = "SELECT id, pid, threads, state, clock, started_at FROM instances ORDER BY started_at, id"
LAST_MOVE = """
SELECT MAX(at) FROM (
    SELECT MAX(started_at) AS at FROM jobs WHERE state = 'running'
    UNION ALL SELECT MAX(finished_at) FROM jobs WHERE state = 'done'
    UNION ALL SELECT MAX(finished_at) FROM jobs WHERE state = 'failed'
    UNION ALL SELECT MAX(finished_at) FROM jobs WHERE state = 'cancelled'
)
"""
RUNNING = """
SELECT uuid, task, instance, worker, started_at, timeout_s, deaths FROM jobs WHERE state = 'running' ORDER BY id
"""
SUSPECT = "SELECT 1 FROM jobs WHERE deaths >= 2 AND state IN ('ready', 'running') LIMIT 1"

PAYLOADS = {
    "ready": "SELECT payload FROM jobs WHERE state = 'ready' ORDER BY priority DESC, id LIMIT ?",
    "scheduled": "SELECT payload FROM jobs WHERE state = 'scheduled' ORDER BY run_at, id LIMIT ?",
}
COUNT = "SELECT n FROM job_counts WHERE state = ?"

# A job's own result stays with its row, and is the only one for its uuid; what else Huey keeps by key is in
# huey_data.
VALUE = """
SELECT result AS value FROM jobs WHERE uuid = ?1 AND result IS NOT NULL
UNION ALL SELECT value FROM huey_data WHERE key = ?1 AND (expires_at IS NULL OR expires_at > ?2)
AND NOT EXISTS (SELECT 1 FROM jobs WHERE uuid = ?1) LIMIT 1
"""
VALUES = """
SELECT uuid AS key, result AS value FROM jobs WHERE result IS NOT NULL
UNION ALL SELECT key, value FROM huey_data
"""
