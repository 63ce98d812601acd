-- Accounts, keys, generations, attempts, the ledger.
--
-- Money is bigint micro-credits (1 credit = 1,000,000). Moments are timestamptz; the database's own clock
-- decides everything that two processes must agree on (leases, expiry, creation).

-- ---------------------------------------------------------------------------------------------- accounts

CREATE TABLE accounts (
    id                uuid        PRIMARY KEY,
    name              text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    email             text        CHECK (char_length(email) BETWEEN 3 AND 320),
    is_personal       boolean     NOT NULL DEFAULT true,
    picture_url       text,
    plan              text        NOT NULL,
    -- Invariant 1: no balance is ever negative, whatever code runs.
    credit_balance    bigint      NOT NULL DEFAULT 0 CHECK (credit_balance >= 0),
    -- Kept so that a list's `total` costs the same at five million rows as at five.
    generations_total bigint      NOT NULL DEFAULT 0 CHECK (generations_total >= 0),
    created_at        timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);  -- every admission updates its account: keep those updates on the page (HOT)

-- ---------------------------------------------------------------------------------------------- keys

CREATE TYPE key_state AS ENUM (
    'active',   -- authenticates until expires_at; -> rotated | revoked
    'rotated',  -- replaced, authenticates until grace_until; -> revoked
    'revoked'   -- final
);  -- "expired" is active with expires_at in the past: no job has to run for a key to die

CREATE TABLE api_keys (
    id           uuid        PRIMARY KEY,
    account_id   uuid        NOT NULL,  -- no foreign key: a key outlives its account, to be told that (BSE1008)
    name         text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    prefix       text        NOT NULL CHECK (char_length(prefix) = 9),
    hash         bytea       NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    scopes       text[]      NOT NULL CHECK (cardinality(scopes) >= 1),
    allowlist    text[]      NOT NULL DEFAULT '{}' CHECK (cardinality(allowlist) <= 50),
    state        key_state   NOT NULL DEFAULT 'active',
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    expires_at   timestamptz,
    grace_until  timestamptz,
    CHECK ((state = 'rotated') <= (grace_until IS NOT NULL))
);
CREATE INDEX api_keys_of_account ON api_keys (account_id, created_at);

-- Whoever changes a key or an account (a process, the command line, psql), every API process forgets it.
CREATE FUNCTION announce_key_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('keys_changed', encode(OLD.hash, 'hex'));
    RETURN NULL;
END $$;
CREATE TRIGGER api_keys_changed
    AFTER UPDATE OF name, scopes, allowlist, state, expires_at, grace_until OR DELETE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION announce_key_change();

CREATE FUNCTION announce_account_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('accounts_changed', OLD.id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER accounts_changed
    AFTER UPDATE OF name, plan OR DELETE ON accounts
    FOR EACH ROW EXECUTE FUNCTION announce_account_change();

-- ---------------------------------------------------------------------------------------------- generations

CREATE TYPE media_kind AS ENUM ('image', 'video');

CREATE TYPE generation_status AS ENUM (
    'pending',     -- accepted, credits reserved;  -> processing | succeeded | failed | canceled
    'processing',  -- a provider has it;           -> succeeded | failed | canceled
    'succeeded',   -- final: charged
    'failed',      -- final: refunded whole
    'canceled'     -- final: refunded whole
);

-- A lease belongs to a worker, not to a row: renewing all of a worker's work is one update of one row.
CREATE TABLE workers (
    id          uuid        PRIMARY KEY,
    host        text        NOT NULL,
    pid         integer     NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL
) WITH (fillfactor = 20);

CREATE TABLE generations (
    id              uuid              PRIMARY KEY,  -- version 7: sorts by creation
    account_id      uuid              NOT NULL REFERENCES accounts,
    apikey_id       uuid              NOT NULL,
    model           text              NOT NULL,
    media           media_kind        NOT NULL,
    inputs          jsonb             NOT NULL,     -- accepted fields, defaults filled in
    provider_order  text[]            NOT NULL CHECK (cardinality(provider_order) >= 1),
    prediction_id   uuid              NOT NULL,     -- id of the first attempt, told to the customer
    status          generation_status NOT NULL DEFAULT 'pending',
    provider_used   text,
    outputs         jsonb,                          -- [{key, content_type, bytes, sha256, ...}]
    error_code      text,
    error_message   text,
    predict_ms      bigint CHECK (predict_ms >= 0),
    reserved        bigint            NOT NULL CHECK (reserved >= 0),
    charged         bigint            NOT NULL DEFAULT 0 CHECK (charged >= 0),
    refunded        bigint            NOT NULL DEFAULT 0 CHECK (refunded >= 0),
    -- Set when the length is measured afterwards: micro-credits per second, `reserved` is the most it may cost.
    rate_per_second numeric CHECK (rate_per_second > 0),
    created_at      timestamptz       NOT NULL DEFAULT now(),
    started_at      timestamptz,
    completed_at    timestamptz,
    expires_at      timestamptz       NOT NULL,     -- the hard limit: past it, recovery fails and refunds it
    -- The row is the job: claimable when in flight, due and without a worker.
    due_at          timestamptz       NOT NULL DEFAULT now(),
    worker_id       uuid,
    fence           integer           NOT NULL DEFAULT 0,  -- grows with each claim; a worker writes only under its own
    CHECK ((status IN ('succeeded', 'failed', 'canceled')) = (completed_at IS NOT NULL)),
    CHECK ((status = 'succeeded') = (outputs IS NOT NULL)),
    CHECK ((status = 'failed') = (error_code IS NOT NULL)),
    CHECK (worker_id IS NULL OR status IN ('pending', 'processing')),
    -- Invariants 3 and 4: once final, charge + refund = reserve; succeeded <=> charged.
    CONSTRAINT settled_exactly CHECK (CASE status
        WHEN 'pending'    THEN charged = 0 AND refunded = 0
        WHEN 'processing' THEN charged = 0 AND refunded = 0
        WHEN 'succeeded'  THEN charged + refunded = reserved AND (charged > 0 OR reserved = 0)
        ELSE                   charged = 0 AND refunded = reserved
    END)
);
CREATE INDEX generations_of_account ON generations (account_id, id DESC);
-- The next four hold only rows in flight, so their size follows the load, never the history.
CREATE INDEX generations_in_flight ON generations (account_id) WHERE status IN ('pending', 'processing');
CREATE INDEX generations_claimable ON generations (due_at)
    WHERE status IN ('pending', 'processing') AND worker_id IS NULL;
CREATE INDEX generations_leased ON generations (worker_id) WHERE worker_id IS NOT NULL;
CREATE INDEX generations_expiring ON generations (expires_at) WHERE status IN ('pending', 'processing');

CREATE TABLE idempotency_keys (
    account_id    uuid        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    key           text        NOT NULL,
    fingerprint   bytea       NOT NULL,  -- SHA-256 over operation, model and canonical body
    generation_id uuid        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, key)        -- invariant 6: one key, one generation
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- ---------------------------------------------------------------------------------------------- attempts

CREATE TYPE attempt_outcome AS ENUM (
    'pending',    -- written before the provider is called; -> used | failed | cancelled | discarded
    'used',       -- its output is the generation's output
    'failed',     -- ended without a usable output; see failure
    'cancelled',  -- the provider confirmed that it stopped
    'discarded'   -- its result came too late (canceled, expired or lost lease) and was thrown away
);

CREATE TYPE failure_class AS ENUM (
    'never_sent', 'refused_busy', 'refused_auth', 'refused_funds', 'refused_input', 'refused_policy',
    'failed', 'timed_out', 'outcome_unknown', 'bad_output'
);

CREATE TABLE attempts (
    id             uuid            PRIMARY KEY,
    generation_id  uuid            NOT NULL,  -- no foreign key: the log outlives a deleted generation
    account_id     uuid            NOT NULL,
    model          text            NOT NULL,
    attempt_order  smallint        NOT NULL CHECK (attempt_order >= 1),
    provider       text            NOT NULL,  -- whom the chain names
    adapter        text            NOT NULL,  -- who was really called: "sandbox" where it stands in
    outcome        attempt_outcome NOT NULL DEFAULT 'pending',
    upstream_id    text,                      -- persisted before waiting: recovery resumes by it
    upstream       jsonb,                     -- what else polling needs, e.g. returned URLs
    failure        failure_class,
    error_code     text,
    error_message  text,
    estimated_cost bigint CHECK (estimated_cost >= 0),  -- what the operator pays, where known
    submitted_at   timestamptz     NOT NULL DEFAULT now(),
    accepted_at    timestamptz,
    resolved_at    timestamptz,
    UNIQUE (generation_id, attempt_order),
    CHECK ((outcome = 'pending') = (resolved_at IS NULL)),
    CHECK ((failure IS NULL) <= (outcome <> 'failed'))
);
CREATE UNIQUE INDEX attempts_one_used ON attempts (generation_id) WHERE outcome = 'used';
CREATE UNIQUE INDEX attempts_one_open ON attempts (generation_id) WHERE outcome = 'pending';

-- ---------------------------------------------------------------------------------------------- ledger

CREATE TYPE ledger_kind AS ENUM (
    'add',      -- credits bought or granted: balance grows
    'reserve',  -- set aside when a generation is accepted: balance falls
    'charge',   -- the reserve (or its measured part) became the price: balance as it is
    'refund'    -- the reserve (or its unused part) came back: balance grows
);

CREATE TABLE ledger (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id    uuid        NOT NULL,
    generation_id uuid,
    kind          ledger_kind NOT NULL,
    amount        bigint      NOT NULL CHECK (amount > 0),
    balance_after bigint      NOT NULL CHECK (balance_after >= 0),
    description   text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'add') = (generation_id IS NULL))
);
-- Invariant 3: at most one reserve, one charge, one refund for a generation.
CREATE UNIQUE INDEX ledger_once ON ledger (generation_id, kind) WHERE generation_id IS NOT NULL;
CREATE INDEX ledger_of_account ON ledger (account_id, id DESC);

CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger rows are immutable' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE ON ledger
    FOR EACH ROW EXECUTE FUNCTION refuse_ledger_change();
CREATE TRIGGER ledger_is_never_truncated BEFORE TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change();

-- ---------------------------------------------------------------------------------------------- admission

CREATE TYPE admission_result AS ENUM (  -- ordered by precedence
    'account_gone',          -- the account no longer exists
    'key_reused',            -- the idempotency key stands for a different request
    'replayed',              -- the idempotency key stands for this request: here is its generation
    'over_concurrency',      -- the plan's number of generations is in flight
    'insufficient_credits',  -- the balance does not cover the cost
    'accepted'               -- written: generation, first attempt id, reserve, idempotency key
);
