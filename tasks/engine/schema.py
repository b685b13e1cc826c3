"""The queue's tables. CHECK constraints say which rows are legal; triggers keep the counts."""

from __future__ import annotations

from sqlite_utils import Database as Tables
from sqlite_utils import Migrations

migrations = Migrations("engine")

STATES = ("scheduled", "ready", "running", "done", "failed", "cancelled")

JOBS = """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,    -- never reused: the order of arrival
    uuid TEXT NOT NULL UNIQUE,               -- how the world knows the job; Huey's task id
    task TEXT NOT NULL,
    payload BLOB NOT NULL,                   -- Huey's message as JSON; never changes
    priority REAL NOT NULL DEFAULT 0,
    state TEXT NOT NULL CHECK (state IN ('scheduled', 'ready', 'running', 'done', 'failed', 'cancelled')),
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
    CHECK ((state = 'scheduled') = (run_at IS NOT NULL)),
    CHECK ((state = 'running') = (instance IS NOT NULL)),
    CHECK ((state IN ('done', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((state IN ('failed', 'cancelled')) = (error IS NOT NULL))
)
"""

ATTEMPTS = """
CREATE TABLE attempts (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('error', 'wait', 'death', 'stopped')),
    started_at REAL,
    ended_at REAL NOT NULL,
    error TEXT NOT NULL,
    traceback TEXT
)
"""

OTHERS = (
    # A partial index holds only the rows of its state, so a claim costs the same however long the history.
    "CREATE INDEX jobs_ready ON jobs (priority DESC, id) WHERE state = 'ready'",
    "CREATE INDEX jobs_ready_by_task ON jobs (task, priority DESC, id) WHERE state = 'ready'",
    "CREATE INDEX jobs_suspect ON jobs (id) WHERE deaths >= 2 AND state IN ('ready', 'running')",
    "CREATE INDEX jobs_due ON jobs (run_at) WHERE state = 'scheduled'",
    "CREATE INDEX jobs_running ON jobs (instance) WHERE state = 'running'",
    "CREATE INDEX jobs_ended ON jobs (state, finished_at) WHERE finished_at IS NOT NULL",
    "CREATE INDEX attempts_job ON attempts (job)",
    "CREATE TABLE job_counts (state TEXT PRIMARY KEY, n INTEGER NOT NULL CHECK (n >= 0)) WITHOUT ROWID",
    """CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
        UPDATE job_counts SET n = n + 1 WHERE state = new.state;
    END""",
    """CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs WHEN old.state <> new.state BEGIN
        UPDATE job_counts SET n = n - 1 WHERE state = old.state;
        UPDATE job_counts SET n = n + 1 WHERE state = new.state;
    END""",
    """CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN
        UPDATE job_counts SET n = n - 1 WHERE state = old.state;
    END""",
    # An instance is a process that opened the queue; it lives as long as it holds its lock file.
    """CREATE TABLE instances (
        id TEXT PRIMARY KEY,
        pid INTEGER NOT NULL,
        threads INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'stopping')),
        clock INTEGER NOT NULL DEFAULT 0,
        started_at REAL NOT NULL
    )""",
    """CREATE TABLE chords (
        id TEXT PRIMARY KEY, size INTEGER NOT NULL, created_at REAL NOT NULL, fired_at REAL
    ) WITHOUT ROWID""",
    """CREATE TABLE chord_parts (
        chord TEXT NOT NULL REFERENCES chords (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (chord, position)
    ) WITHOUT ROWID""",
    # task '' pauses the whole queue; without an end a pause lasts until it is lifted.
    "CREATE TABLE pauses (task TEXT PRIMARY KEY, reason TEXT NOT NULL, until_at REAL) WITHOUT ROWID",
    "CREATE TABLE cron_runs (task TEXT, minute INTEGER, PRIMARY KEY (task, minute)) WITHOUT ROWID",
    # What Huey keeps by key: locks, revoke flags, results of pipelines that were never enqueued.
    # A lock that a body took belongs to its job: it goes when the job's process dies.
    "CREATE TABLE huey_data (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_at REAL, job TEXT)",
    "CREATE INDEX huey_data_job ON huey_data (job) WHERE job IS NOT NULL",
    "CREATE TABLE huey_counters (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
)


@migrations()
def create_queue(tables: Tables) -> None:
    """Make the tables of the queue."""
    for statement in (JOBS, ATTEMPTS, *OTHERS):
        tables.execute(statement)
    for state in STATES:
        tables.execute("INSERT INTO job_counts VALUES (?, 0)", (state,))
