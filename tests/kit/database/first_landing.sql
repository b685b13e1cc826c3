BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'engine','create_queue','2026-11-28 12:03:41.208639+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'engine','keep_numbers','2026-11-28 12:03:41.210409+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'engine','lighten_arrivals','2026-11-28 12:03:41.210871+00:00');
INSERT INTO "_sqlite_migrations" VALUES(9,'mail','create_emails','2026-11-28 12:03:41.261169+00:00');
INSERT INTO "_sqlite_migrations" VALUES(10,'mail','add_tries_and_lists','2026-11-28 12:03:41.282465+00:00');
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO "about" VALUES('environment','development');
CREATE TABLE attempts (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('error', 'wait', 'death', 'stopped')),
    started_at REAL,
    ended_at REAL NOT NULL,
    error TEXT NOT NULL,
    traceback TEXT
);
INSERT INTO "attempts" VALUES(3,1,'error',1.0,2.0,'it broke',NULL);
CREATE TABLE chord_parts (
        chord TEXT NOT NULL REFERENCES chords (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (chord, position)
    ) WITHOUT ROWID;
CREATE TABLE chords (
        id TEXT PRIMARY KEY, size INTEGER NOT NULL, created_at REAL NOT NULL, fired_at REAL
    ) WITHOUT ROWID;
CREATE TABLE cron_runs (task TEXT, minute INTEGER, PRIMARY KEY (task, minute)) WITHOUT ROWID;
CREATE TABLE email_attempts (
            email_id INTEGER NOT NULL REFERENCES emails (id) ON DELETE CASCADE,
            outcome TEXT NOT NULL CHECK (
                outcome IN ('sent', 'lane', 'later', 'failed', 'suppressed', 'unknown', 'by hand')
            ),
            began_at TEXT NOT NULL,
            ended_at TEXT NOT NULL,
            stage TEXT NOT NULL,
            code INTEGER,
            enhanced TEXT NOT NULL,
            words TEXT NOT NULL
        ) STRICT;
CREATE TABLE emails (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            to_address TEXT NOT NULL,
            subject TEXT NOT NULL,
            template TEXT NOT NULL,
            message BLOB NOT NULL,                 -- every try sends these bytes
            message_id TEXT UNIQUE,
            dedup_key TEXT UNIQUE,                 -- what the mail is about: nothing is told twice
            job TEXT,
            priority REAL NOT NULL DEFAULT 0,
            policy TEXT NOT NULL DEFAULT 'retry' CHECK (policy IN ('retry', 'hold')),
            state TEXT NOT NULL DEFAULT 'queued' CHECK (
                state IN ('queued', 'sending', 'sent', 'failed', 'unknown', 'suppressed', 'cancelled')
            ),
            created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
            sending_at TEXT,
            sent_at TEXT,
            stage TEXT,                            -- what was heard last, where, and when
            code INTEGER,
            enhanced TEXT,
            words TEXT,
            answered_at TEXT, tries INTEGER NOT NULL DEFAULT 0, expires_at TEXT, maybe_sent_at TEXT, list_name TEXT NOT NULL DEFAULT '', attachments TEXT NOT NULL DEFAULT '[]',
            CHECK (state NOT IN ('sending', 'sent', 'unknown') OR sending_at IS NOT NULL),
            CHECK (state <> 'queued' OR sending_at IS NULL),
            CHECK ((state = 'sent') = (sent_at IS NOT NULL)),
            CHECK (state NOT IN ('sent', 'failed', 'unknown') OR answered_at IS NOT NULL),
            CHECK ((answered_at IS NULL) = (stage IS NULL) AND (answered_at IS NULL) = (words IS NULL)),
            CHECK (state IN ('failed', 'suppressed', 'cancelled') OR job IS NOT NULL),
            CHECK ((job IS NULL) = (message_id IS NULL))
        ) STRICT;
INSERT INTO "emails" VALUES(1,'cleo@example.com','Hello','hello',X'46726F6D3A20506F7374726F6F6D203C706F7374726F6F6D406C6F63616C686F73743E0D0A546F3A20636C656F406578616D706C652E636F6D0D0A5375626A6563743A2048656C6C6F0D0A0D0A48656C6C6F2E0D0A','<87e80f80-0432-40f1-9ee7-db06c7aca52c@localhost>',NULL,'a3651868-ad1a-4480-88d8-b7af66a36a53',0.0,'retry','queued','2026-11-28T12:03:41.410Z',NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,'2026-12-02T12:03:41.410Z',NULL,'','[]');
CREATE TABLE huey_counters (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE huey_data (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_at REAL, job TEXT);
INSERT INTO "huey_data" VALUES('r:01a2220a-2a9b-7713-a090-8127e0590d1c',X'7B22247475706C65223A5B6E756C6C2C747275655D7D',NULL,NULL);
CREATE TABLE instances (
        id TEXT PRIMARY KEY,
        pid INTEGER NOT NULL,
        threads INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'stopping')),
        clock INTEGER NOT NULL DEFAULT 0,
        started_at REAL NOT NULL
    );
CREATE TABLE jobs (
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
    error TEXT, run_ms INTEGER,
    CHECK ((state = 'scheduled') = (run_at IS NOT NULL)),
    CHECK ((state = 'running') = (instance IS NOT NULL)),
    CHECK ((state = 'done' OR state = 'failed' OR state = 'cancelled') = (finished_at IS NOT NULL)),
    CHECK ((state = 'failed' OR state = 'cancelled') = (error IS NOT NULL))
);
INSERT INTO "jobs" VALUES(1,'01a2220a-2877-7cf2-a235-28238213b3fa','tasks.example.count_words',X'7B22246D657373616765223A7B226964223A2230316132323230612D323837372D376366322D613233352D323832333832313362336661222C226E616D65223A227461736B732E6578616D706C652E636F756E745F776F726473222C2272657472696573223A332C2272657472795F64656C6179223A31302C2274696D656F7574223A3930302C2272657472795F6261636B6F6666223A302C2261726773223A7B22247475706C65223A5B22746F206265206F72206E6F74225D7D2C226B7761726773223A7B7D7D7D',0.0,'ready',NULL,0,0,0,NULL,NULL,900.0,0,0,NULL,NULL,1.79586742079202222829e+09,1.79586742079202222829e+09,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(2,'01a2220a-2a93-75e1-a377-5a2f66d16b62','tasks.example.count_words',X'7B22246D657373616765223A7B226964223A2230316132323230612D326139332D373565312D613337372D356132663636643136623632222C226E616D65223A227461736B732E6578616D706C652E636F756E745F776F726473222C22657461223A7B22246461746574696D65223A22323033362D31312D32355431323A30333A34312E333331313638227D2C2272657472696573223A332C2272657472795F64656C6179223A31302C2274696D656F7574223A3930302C2272657472795F6261636B6F6666223A302C2261726773223A7B22247475706C65223A5B226C61746572225D7D2C226B7761726773223A7B7D7D7D',0.0,'scheduled',2.11122742133116793631e+09,0,0,0,NULL,NULL,900.0,0,0,NULL,NULL,1.79586742133132433894e+09,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(3,'01a2220a-2a9b-7713-a090-8127e0590d1c','tasks.example.count_words',X'7B22246D657373616765223A7B226964223A2230316132323230612D326139622D373731332D613039302D383132376530353930643163222C226E616D65223A227461736B732E6578616D706C652E636F756E745F776F726473222C2272657472696573223A332C2272657472795F64656C6179223A31302C2274696D656F7574223A3930302C2272657472795F6261636B6F6666223A302C2261726773223A7B22247475706C65223A5B22746F206661696C225D7D2C226B7761726773223A7B7D7D7D',0.0,'failed',NULL,0,0,0,NULL,NULL,900.0,0,0,NULL,NULL,1.79586742133927273752e+09,NULL,NULL,1.79586742133927273752e+09,NULL,NULL,'it broke',NULL);
INSERT INTO "jobs" VALUES(4,'a3651868-ad1a-4480-88d8-b7af66a36a53','tasks.emails.deliver_email',X'7B22246D657373616765223A7B226964223A2261333635313836382D616431612D343438302D383864382D623761663636613336613533222C226E616D65223A227461736B732E656D61696C732E64656C697665725F656D61696C222C2272657472696573223A3130302C2272657472795F64656C6179223A302C227072696F72697479223A302C2274696D656F7574223A3930302C2272657472795F6261636B6F6666223A302C2261726773223A7B22247475706C65223A5B315D7D2C226B7761726773223A7B7D7D7D',0.0,'ready',NULL,0,0,0,NULL,NULL,900.0,0,0,NULL,NULL,1.7958674214275176525e+09,1.7958674214275176525e+09,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE mail_lanes (
            name TEXT PRIMARY KEY,
            faults INTEGER NOT NULL DEFAULT 0,     -- in a row
            paused_until REAL NOT NULL DEFAULT 0,  -- unix seconds
            reason TEXT NOT NULL DEFAULT '',
            tokens REAL,                           -- of the bucket that bounds mails a minute; NULL: full
            refilled_at REAL NOT NULL DEFAULT 0
        ) STRICT, WITHOUT ROWID;
CREATE TABLE past_minutes (
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
    ) WITHOUT ROWID;
CREATE TABLE pauses (task TEXT PRIMARY KEY, reason TEXT NOT NULL, until_at REAL) WITHOUT ROWID;
INSERT INTO "pauses" VALUES('tasks.alerts.alert_subscribers','tea',NULL);
CREATE TABLE suppressions (
            address TEXT NOT NULL COLLATE NOCASE,
            list_name TEXT NOT NULL DEFAULT '',    -- '': nothing at all goes there
            reason TEXT NOT NULL,
            created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
            PRIMARY KEY (address, list_name)
        ) STRICT, WITHOUT ROWID;
INSERT INTO "suppressions" VALUES('gone@example.com','','no such mailbox','2026-11-28T12:03:41.439Z');
CREATE TABLE task_counts (
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
;
INSERT INTO "task_counts" VALUES('tasks.emails.deliver_email',0,1,0,0,0,0,29931123,1,0,0,0,0,0,0,0.0,'');
INSERT INTO "task_counts" VALUES('tasks.example.count_words',1,1,0,0,1,0,29931123,3,0,1,0,0,0,0,0.0,'');
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX jobs_ready_by_task ON jobs (task, priority DESC, id) WHERE state = 'ready';
CREATE INDEX jobs_suspect ON jobs (id) WHERE deaths >= 2 AND state IN ('ready', 'running');
CREATE INDEX jobs_due ON jobs (run_at) WHERE state = 'scheduled';
CREATE INDEX jobs_running ON jobs (instance) WHERE state = 'running';
CREATE INDEX jobs_ended ON jobs (state, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX attempts_job ON attempts (job);
CREATE INDEX huey_data_job ON huey_data (job) WHERE job IS NOT NULL;
CREATE TRIGGER jobs_moved AFTER UPDATE OF state ON jobs WHEN old.state <> new.state BEGIN
        UPDATE task_counts SET scheduled = scheduled + (new.state = 'scheduled') - (old.state = 'scheduled'),
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
                substr(printf('%9d,', new.run_ms) || last_runs_ms, 1, 200), last_runs_ms
            )
        WHERE task = new.task;
    END;
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN
        UPDATE task_counts SET scheduled = scheduled - (old.state = 'scheduled'),
            ready = ready - (old.state = 'ready'), running = running - (old.state = 'running'),
            done = done - (old.state = 'done'), failed = failed - (old.state = 'failed'),
            cancelled = cancelled - (old.state = 'cancelled')
        WHERE task = old.task;
    END;
CREATE TRIGGER minute_over AFTER UPDATE OF minute ON task_counts WHEN old.minute <> new.minute BEGIN
        INSERT INTO past_minutes SELECT old.minute, old.task, old.now_enqueued, old.now_done, old.now_failed,
            old.now_cancelled, old.now_wait_ms, old.now_run_ms, old.now_run_ms_max WHERE old.minute > 0
        ON CONFLICT (minute, task) DO UPDATE SET enqueued = enqueued + excluded.enqueued,
            done = done + excluded.done, failed = failed + excluded.failed,
            cancelled = cancelled + excluded.cancelled, wait_ms = wait_ms + excluded.wait_ms,
            run_ms = run_ms + excluded.run_ms, run_ms_max = MAX(run_ms_max, excluded.run_ms_max);
        UPDATE task_counts SET now_enqueued = now_enqueued - old.now_enqueued,
            now_done = now_done - old.now_done, now_failed = now_failed - old.now_failed,
            now_cancelled = now_cancelled - old.now_cancelled, now_wait_ms = now_wait_ms - old.now_wait_ms,
            now_run_ms = now_run_ms - old.now_run_ms, now_run_ms_max = now_run_ms - old.now_run_ms
        WHERE task = new.task;
    END;
CREATE VIEW job_minutes AS
        SELECT minute, task, enqueued, done, failed, cancelled, wait_ms, run_ms, run_ms_max FROM past_minutes
        UNION ALL SELECT minute, task, now_enqueued, now_done, now_failed, now_cancelled, now_wait_ms, now_run_ms,
            now_run_ms_max FROM task_counts;
CREATE INDEX jobs_failed ON jobs (id) WHERE state = 'failed';
CREATE INDEX jobs_failed_by_task ON jobs (task, id) WHERE state = 'failed';
CREATE INDEX emails_by_state ON emails (state, id);
CREATE INDEX emails_by_job ON emails (job);
CREATE INDEX emails_by_address ON emails (to_address, id);
CREATE INDEX emails_by_age ON emails (created_at);
CREATE INDEX email_attempts_by_email ON email_attempts (email_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('jobs',4);
INSERT INTO "sqlite_sequence" VALUES('emails',1);
COMMIT;
