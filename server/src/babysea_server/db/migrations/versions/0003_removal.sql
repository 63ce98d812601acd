-- Removing output files and records: by the customer, and by the plan's retention.

ALTER TABLE generations ADD COLUMN files_removed_at timestamptz;
-- What retention looks at. Every final generation is in exactly one of the two, so settling pays for one entry.
CREATE INDEX generations_with_files ON generations (account_id, completed_at)
    WHERE status = 'succeeded' AND files_removed_at IS NULL;
CREATE INDEX generations_without_files ON generations (account_id, completed_at)
    WHERE status IN ('failed', 'canceled') OR files_removed_at IS NOT NULL;

-- Files whose generation no longer names them. Written in the same transaction, so that no crash leaves a file
-- behind that nobody knows of.
CREATE TABLE file_deletions (
    key    text        PRIMARY KEY,
    due_at timestamptz NOT NULL DEFAULT now(),
    tries  integer     NOT NULL DEFAULT 0
);
CREATE INDEX file_deletions_due ON file_deletions (due_at);

-- How far the search for files that no generation names has come; one row. Files are stored under the day of their
-- generation, and a day is searched once, when nothing of it can be in flight any more.
CREATE TABLE file_sweep (
    one           boolean     PRIMARY KEY DEFAULT true CHECK (one),
    day           date        NOT NULL,                       -- the day being searched, UTC
    after         text        NOT NULL DEFAULT '',            -- its last key that has been looked at
    claimed_until timestamptz NOT NULL DEFAULT '-infinity'    -- by a worker that looks at the next page
);
INSERT INTO file_sweep (day)
SELECT coalesce(min(created_at AT TIME ZONE 'UTC'), now() AT TIME ZONE 'UTC')::date FROM accounts;

-- The answer of an accepted request, kept beside its key: it is repeated even when the generation is deleted.
ALTER TABLE idempotency_keys ADD COLUMN prediction_id uuid, ADD COLUMN provider_order text[];
UPDATE idempotency_keys k SET prediction_id = g.prediction_id, provider_order = g.provider_order
FROM generations g WHERE g.id = k.generation_id;
