-- Rotation of keys, billing periods, and credits that are granted once.

ALTER TABLE api_keys ADD COLUMN replaced_by uuid;  -- the key that its rotation made

ALTER TABLE accounts
    ADD COLUMN plan_changed_at  timestamptz,
    -- A period is a calendar month counted from the anchor, so that one that began on a 31st ends on a 31st
    -- again where the month has one. Without a monthly grant there is no period.
    ADD COLUMN period_anchor    timestamptz,
    ADD COLUMN period_starts_at timestamptz,
    ADD COLUMN period_ends_at   timestamptz,
    ADD CONSTRAINT period_is_whole CHECK (num_nulls(period_anchor, period_starts_at, period_ends_at) IN (0, 3)),
    ADD CONSTRAINT period_has_length CHECK (period_ends_at > period_starts_at);
CREATE INDEX accounts_period_due ON accounts (period_ends_at) WHERE period_ends_at IS NOT NULL;
-- Retention walks the accounts of the plans that have one. (No index on what admission changes: its updates of
-- accounts stay on the page.)
CREATE INDEX accounts_of_plan ON accounts (plan, id);

-- What is given once is given once: welcome credits, each period's credits, later each invoice's.
CREATE TABLE credit_grants (
    account_id uuid        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    source     text        NOT NULL,  -- "welcome", "period:<plan>:<start>"
    ledger_id  bigint      NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, source)
);
