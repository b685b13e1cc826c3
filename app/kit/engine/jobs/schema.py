"""The queue's tables. CHECK constraints say which rows are legal; triggers keep the counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.kit.database.setup import Migrations, adopt
from app.kit.engine.jobs.schema_changes import CHANGES

if TYPE_CHECKING:
    from sqlite_utils import Database as Tables

migrations = Migrations("postroom_queue")

OLDER_NAMES = (
    "jobs", "attempts", "instances", "chords", "chord_parts", "pauses", "cron_runs", "huey_data", "huey_counters",
    "task_counts", "past_minutes", "job_minutes",
)  # fmt: skip
"""What the tables were called before they had a prefix. With it, a table `jobs` of your own is not the queue's."""

STATES = ("scheduled", "ready", "running", "done", "failed", "cancelled")

# OR and not IN in the checks: for an IN SQLite fills a little table of its own, at every insert and update, which
# took as long as all the rest of an insert.
JOBS = """
CREATE TABLE postroom_jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,    -- never reused: the order of arrival
    uuid TEXT NOT NULL UNIQUE,               -- how the world knows the job; Huey's task id
    task TEXT NOT NULL,
    payload BLOB NOT NULL,                   -- Huey's message as JSON; never changes
    priority REAL NOT NULL DEFAULT 0,
    state TEXT NOT NULL CHECK (
        state = 'ready' OR state = 'running' OR state = 'done'
        OR state = 'scheduled' OR state = 'failed' OR state = 'cancelled'
    ),
    run_at REAL,
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    deaths INTEGER NOT NULL DEFAULT 0,       -- times its process died under it
    waits INTEGER NOT NULL DEFAULT 0,        -- times it asked to run later; burns no attempt
    retries INTEGER,                         -- left; NULL: as the payload says
    retry_delay REAL,                        -- next; NULL: as the payload says
    timeout_s REAL,                          -- past it a running body is overdue
    alone INTEGER NOT NULL DEFAULT 0,        -- a batch it was in failed: it is tried by itself
    claim INTEGER NOT NULL DEFAULT 0,        -- grows at every claim: the fence of finish
    instance TEXT,
    worker TEXT,
    enqueued_at REAL NOT NULL,
    ready_at REAL,
    started_at REAL,
    finished_at REAL,
    progress TEXT,
    result BLOB,
    error TEXT,
    -- How long the run took that has just ended. NULL: it runs, its process died, or it was in a batch, whose run
    -- is that of another job.
    run_ms INTEGER,
    CHECK ((state = 'scheduled') = (run_at IS NOT NULL)),
    CHECK ((state = 'running') = (instance IS NOT NULL)),
    CHECK ((state = 'done' OR state = 'failed' OR state = 'cancelled') = (finished_at IS NOT NULL)),
    CHECK ((state = 'failed' OR state = 'cancelled') = (error IS NOT NULL))
)
"""

ATTEMPTS = """
CREATE TABLE postroom_attempts (
    job INTEGER NOT NULL REFERENCES postroom_jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('error', 'wait', 'death', 'stopped')),
    started_at REAL,
    ended_at REAL NOT NULL,
    error TEXT NOT NULL,
    traceback TEXT
)
"""

# One row a task, so that a job's end changes one page for all of its numbers: how many jobs are in each state, what
# happened in the present minute (or the last one in which anything did), how long its last runs took. They are kept
# in the transaction that they count (by triggers, but for what comes): so they are exact, and survive kills.
TASK_COUNTS = """
CREATE TABLE postroom_task_counts (
    task TEXT PRIMARY KEY,
    scheduled INTEGER NOT NULL DEFAULT 0,
    ready INTEGER NOT NULL DEFAULT 0,
    running INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    minute INTEGER NOT NULL DEFAULT 0,       -- unix time // 60, of the numbers that follow
    now_enqueued INTEGER NOT NULL DEFAULT 0,
    now_done INTEGER NOT NULL DEFAULT 0,
    now_failed INTEGER NOT NULL DEFAULT 0,
    now_cancelled INTEGER NOT NULL DEFAULT 0,
    now_wait_ms INTEGER NOT NULL DEFAULT 0,
    now_run_ms INTEGER NOT NULL DEFAULT 0,
    now_run_ms_max INTEGER NOT NULL DEFAULT 0,
    last_run_at REAL NOT NULL DEFAULT 0,
    last_runs_ms TEXT NOT NULL DEFAULT ''    -- numbers of one width, newest first; too many fall off the end
) WITHOUT ROWID
"""
LAST_RUNS = 20
RUN_MS_MOST = 999_999_999
"""What fits into the width of a number in last_runs_ms: eleven days."""

TABLES = (
    JOBS,
    ATTEMPTS,
    TASK_COUNTS,
    # An instance is a process that opened the queue; it lives as long as it holds its lock file.
    """CREATE TABLE postroom_instances (
        id TEXT PRIMARY KEY,
        pid INTEGER NOT NULL,
        threads INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'stopping')),
        clock INTEGER NOT NULL DEFAULT 0,
        started_at REAL NOT NULL
    )""",
    """CREATE TABLE postroom_chords (
        id TEXT PRIMARY KEY, size INTEGER NOT NULL, created_at REAL NOT NULL, fired_at REAL
    ) WITHOUT ROWID""",
    """CREATE TABLE postroom_chord_parts (
        chord TEXT NOT NULL REFERENCES postroom_chords (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (chord, position)
    ) WITHOUT ROWID""",
    # task '' pauses the whole queue; without an end a pause lasts until it is lifted.
    "CREATE TABLE postroom_pauses (task TEXT PRIMARY KEY, reason TEXT NOT NULL, until_at REAL) WITHOUT ROWID",
    "CREATE TABLE postroom_cron_runs (task TEXT, minute INTEGER, PRIMARY KEY (task, minute)) WITHOUT ROWID",
    # What Huey keeps by key: locks, revoke flags, results of pipelines that were never enqueued.
    # A lock that a body took belongs to its job: it goes when the job's process dies.
    "CREATE TABLE postroom_huey_data (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_at REAL, job TEXT)",
    "CREATE TABLE postroom_huey_counters (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    # What happened to a task's jobs in a minute that is over. Times are sums over the runs that ended in it.
    """CREATE TABLE postroom_past_minutes (
        minute INTEGER NOT NULL,
        task TEXT NOT NULL,
        enqueued INTEGER NOT NULL,
        done INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        cancelled INTEGER NOT NULL,
        wait_ms INTEGER NOT NULL,
        run_ms INTEGER NOT NULL,
        run_ms_max INTEGER NOT NULL,
        PRIMARY KEY (minute, task)
    ) WITHOUT ROWID""",
)
INDEXES = (
    # A partial index holds only the rows of its state, so a claim costs the same however long the history.
    "CREATE INDEX postroom_jobs_ready_by_task ON postroom_jobs (task, priority DESC, id) WHERE state = 'ready'",
    """CREATE INDEX postroom_jobs_suspect ON postroom_jobs (id)
        WHERE deaths >= 2 AND state IN ('ready', 'running')""",
    "CREATE INDEX postroom_jobs_due ON postroom_jobs (run_at) WHERE state = 'scheduled'",
    "CREATE INDEX postroom_jobs_running ON postroom_jobs (instance) WHERE state = 'running'",
    "CREATE INDEX postroom_jobs_ended ON postroom_jobs (state, finished_at) WHERE finished_at IS NOT NULL",
    # The shelf, newest first: a page of it costs the same however many jobs lie on it.
    "CREATE INDEX postroom_jobs_failed ON postroom_jobs (id) WHERE state = 'failed'",
    "CREATE INDEX postroom_jobs_failed_by_task ON postroom_jobs (task, id) WHERE state = 'failed'",
    "CREATE INDEX postroom_attempts_job ON postroom_attempts (job)",
    "CREATE INDEX postroom_huey_data_job ON postroom_huey_data (job) WHERE job IS NOT NULL",
)
TRIGGERS = (
    # What ends is counted, what comes back from the shelf comes in again, what runs again later does neither; the
    # time of every run that has ended is.
    f"""CREATE TRIGGER postroom_jobs_moved AFTER UPDATE OF state ON postroom_jobs WHEN old.state <> new.state BEGIN
        UPDATE postroom_task_counts SET
            scheduled = scheduled + (new.state = 'scheduled') - (old.state = 'scheduled'),
            ready = ready + (new.state = 'ready') - (old.state = 'ready'),
            running = running + (new.state = 'running') - (old.state = 'running'),
            done = done + (new.state = 'done') - (old.state = 'done'),
            failed = failed + (new.state = 'failed') - (old.state = 'failed'),
            cancelled = cancelled + (new.state = 'cancelled') - (old.state = 'cancelled'),
            minute = IFNULL(CAST(CASE
                WHEN new.finished_at NOTNULL THEN new.finished_at
                WHEN old.finished_at NOTNULL THEN new.ready_at
                WHEN old.state = 'running' THEN new.started_at + new.run_ms / 1000.0 END / 60 AS INTEGER), minute),
            now_enqueued = now_enqueued + (old.finished_at NOTNULL),
            now_done = now_done + (new.state = 'done'),
            now_failed = now_failed + (new.state = 'failed'),
            now_cancelled = now_cancelled + (new.state = 'cancelled'),
            now_wait_ms = now_wait_ms + IIF(
                old.state = 'running' AND (new.run_ms NOTNULL OR new.finished_at NOTNULL),
                MAX(0, CAST(1000 * (new.started_at - old.ready_at) AS INTEGER)), 0
            ),
            now_run_ms = now_run_ms + IIF(old.state = 'running', IFNULL(new.run_ms, 0), 0),
            now_run_ms_max = MAX(now_run_ms_max, IIF(old.state = 'running', IFNULL(new.run_ms, 0), 0)),
            last_run_at = IIF(
                old.state = 'running' AND new.run_ms NOTNULL, new.started_at + new.run_ms / 1000.0, last_run_at
            ),
            last_runs_ms = IIF(
                old.state = 'running' AND new.run_ms NOTNULL,
                substr(printf('%9d,', new.run_ms) || last_runs_ms, 1, {10 * LAST_RUNS}), last_runs_ms
            )
        WHERE task = new.task;
    END""",
    """CREATE TRIGGER postroom_jobs_deleted AFTER DELETE ON postroom_jobs BEGIN
        UPDATE postroom_task_counts SET scheduled = scheduled - (old.state = 'scheduled'),
            ready = ready - (old.state = 'ready'), running = running - (old.state = 'running'),
            done = done - (old.state = 'done'), failed = failed - (old.state = 'failed'),
            cancelled = cancelled - (old.state = 'cancelled')
        WHERE task = old.task;
    END""",
    # The numbers of the minute that is over are put by; what has just been added to them stays. A minute comes
    # twice when the clock is set back.
    """CREATE TRIGGER postroom_minute_over AFTER UPDATE OF minute ON postroom_task_counts
    WHEN old.minute <> new.minute BEGIN
        INSERT INTO postroom_past_minutes
            SELECT old.minute, old.task, old.now_enqueued, old.now_done, old.now_failed,
            old.now_cancelled, old.now_wait_ms, old.now_run_ms, old.now_run_ms_max WHERE old.minute > 0
        ON CONFLICT (minute, task) DO UPDATE SET enqueued = enqueued + excluded.enqueued,
            done = done + excluded.done, failed = failed + excluded.failed,
            cancelled = cancelled + excluded.cancelled, wait_ms = wait_ms + excluded.wait_ms,
            run_ms = run_ms + excluded.run_ms, run_ms_max = MAX(run_ms_max, excluded.run_ms_max);
        UPDATE postroom_task_counts SET now_enqueued = now_enqueued - old.now_enqueued,
            now_done = now_done - old.now_done, now_failed = now_failed - old.now_failed,
            now_cancelled = now_cancelled - old.now_cancelled, now_wait_ms = now_wait_ms - old.now_wait_ms,
            now_run_ms = now_run_ms - old.now_run_ms, now_run_ms_max = now_run_ms - old.now_run_ms
        WHERE task = new.task;
    END""",
    """CREATE VIEW postroom_job_minutes AS
        SELECT minute, task, enqueued, done, failed, cancelled, wait_ms, run_ms, run_ms_max
            FROM postroom_past_minutes
        UNION ALL SELECT minute, task, now_enqueued, now_done, now_failed, now_cancelled, now_wait_ms, now_run_ms,
            now_run_ms_max FROM postroom_task_counts""",
)


@migrations()
def create_queue(tables: Tables) -> None:
    """Make the tables of the queue, or rename those of a file from before they had a prefix."""
    if not adopt(tables, "engine", "lighten_arrivals", OLDER_NAMES):
        for statement in TABLES:
            tables.execute(statement)
    for statement in (*INDEXES, *TRIGGERS):
        tables.execute(statement)


for _name, _statements in CHANGES.items():
    migrations.add_statements(_name, _statements)
