-- Removing output files and records: by the customer, and by the plan's retention.

ALTER TABLE generations ADD COLUMN files_removed_at timestamptz;
CREATE INDEX generations_with_files ON generations (account_id, completed_at)
    WHERE status = 'succeeded' AND files_removed_at IS NULL;

-- Files whose generation no longer names them. Written in the same transaction, so that no crash leaves a file
-- behind that nobody knows of.
CREATE TABLE file_deletions (
    key    text        PRIMARY KEY,
    due_at timestamptz NOT NULL DEFAULT now(),
    tries  integer     NOT NULL DEFAULT 0
);
CREATE INDEX file_deletions_due ON file_deletions (due_at);

-- The answer of an accepted request, kept beside its key: it is repeated even when the generation is deleted.
ALTER TABLE idempotency_keys ADD COLUMN prediction_id uuid, ADD COLUMN provider_order text[];
UPDATE idempotency_keys k SET prediction_id = g.prediction_id, provider_order = g.provider_order
FROM generations g WHERE g.id = k.generation_id;
