-- Webhooks: the outbox of what happened, who must get it, each try; and the alerts on balances.

CREATE TYPE webhook_endpoint_state AS ENUM (
    'enabled',   -- deliveries are sent
    'disabled',  -- by its owner; what happens meanwhile waits for 72 hours
    'failing'    -- by us, after too many failures; else like disabled
);

CREATE TABLE webhook_endpoints (
    id                uuid                   PRIMARY KEY,  -- version 7: sorts by creation
    account_id        uuid                   NOT NULL REFERENCES accounts ON DELETE CASCADE,
    url               text                   NOT NULL CHECK (char_length(url) BETWEEN 1 AND 2048),
    description       text                   NOT NULL DEFAULT '' CHECK (char_length(description) <= 200),
    events            text[]                 NOT NULL CHECK (cardinality(events) >= 1),
    secret            bytea                  NOT NULL,     -- AES-256-GCM under a key derived from the master key
    state             webhook_endpoint_state NOT NULL DEFAULT 'enabled',
    state_changed_at  timestamptz            NOT NULL DEFAULT now(),
    -- Deliveries in a row whose first five attempts all failed; any success begins anew.
    failed_in_a_row   integer                NOT NULL DEFAULT 0 CHECK (failed_in_a_row >= 0),
    created_at        timestamptz            NOT NULL DEFAULT now(),
    secret_rotated_at timestamptz
) WITH (fillfactor = 50);
CREATE INDEX webhook_endpoints_of_account ON webhook_endpoints (account_id, id);

-- What happened, once, whoever must hear of it. Written in the transaction of the transition it tells of.
CREATE TABLE webhook_messages (
    id            uuid        PRIMARY KEY,
    account_id    uuid        NOT NULL,
    event         text        NOT NULL,
    generation_id uuid,                        -- no foreign key: a message outlives a deleted generation
    data          jsonb       NOT NULL,        -- webhook_data, with storage keys where links will stand
    created_at    timestamptz NOT NULL DEFAULT now()
);
-- A transition is told once, whatever is repeated after a lost answer.
CREATE UNIQUE INDEX webhook_messages_once ON webhook_messages (generation_id, event) WHERE generation_id IS NOT NULL;
CREATE INDEX webhook_messages_by_age ON webhook_messages (created_at);

CREATE TYPE webhook_delivery_state AS ENUM (
    'pending',    -- to be sent at due_at, or waits for its endpoint to be enabled; -> delivered | failed | expired
    'delivered',  -- final: the endpoint answered 2xx
    'failed',     -- final: every attempt failed
    'expired'     -- final: waited 72 hours for its endpoint, or was sent again under another id
);

CREATE TABLE webhook_deliveries (
    id          uuid                   PRIMARY KEY,  -- told as webhook_delivery_id; version 7
    message_id  uuid                   NOT NULL REFERENCES webhook_messages ON DELETE CASCADE,
    endpoint_id uuid                   NOT NULL REFERENCES webhook_endpoints ON DELETE CASCADE,
    account_id  uuid                   NOT NULL,
    state       webhook_delivery_state NOT NULL DEFAULT 'pending',
    attempts    smallint               NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    replay_of   uuid,                                -- the delivery that this one repeats under a fresh id
    created_at  timestamptz            NOT NULL DEFAULT now(),
    ended_at    timestamptz,
    -- The row is the job, as with generations: claimable when pending, due and without a worker.
    -- 'infinity': queued while its endpoint was not enabled; sent under a fresh id when its owner asks for it.
    due_at      timestamptz            NOT NULL DEFAULT now(),
    worker_id   uuid,
    fence       integer                NOT NULL DEFAULT 0,
    CHECK ((state = 'pending') = (ended_at IS NULL)),
    CHECK (worker_id IS NULL OR state = 'pending')
) WITH (fillfactor = 70);
CREATE INDEX webhook_deliveries_of_endpoint ON webhook_deliveries (endpoint_id, id DESC);
CREATE INDEX webhook_deliveries_of_message ON webhook_deliveries (message_id);
-- The next four hold only what is not ended. By endpoint first: a dead one's backlog is passed over in one step.
CREATE INDEX webhook_deliveries_claimable ON webhook_deliveries (endpoint_id, due_at)
    WHERE state = 'pending' AND worker_id IS NULL AND due_at < 'infinity';
-- What waits for its endpoint, in the order in which it happened.
CREATE INDEX webhook_deliveries_queued ON webhook_deliveries (endpoint_id, id)
    WHERE state = 'pending' AND due_at = 'infinity';
CREATE INDEX webhook_deliveries_in_flight ON webhook_deliveries (endpoint_id) WHERE worker_id IS NOT NULL;
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (created_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_leased ON webhook_deliveries (worker_id) WHERE worker_id IS NOT NULL;

CREATE TABLE webhook_attempts (
    delivery_id  uuid        NOT NULL REFERENCES webhook_deliveries ON DELETE CASCADE,
    number       smallint    NOT NULL CHECK (number >= 1),
    at           timestamptz NOT NULL DEFAULT now(),
    status       smallint,                     -- of the answer, where there was one
    duration_ms  integer     NOT NULL CHECK (duration_ms >= 0),
    error        text,                         -- class of the failure, NULL for a success
    response     text,                         -- the first 2 KiB of the answer
    PRIMARY KEY (delivery_id, number)
);

-- What the account's people are told inside the product: an endpoint that was disabled, a balance that is low.
CREATE TABLE notices (
    id         uuid        PRIMARY KEY,
    account_id uuid        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    kind       text        NOT NULL,
    text       text        NOT NULL CHECK (char_length(text) BETWEEN 1 AND 1000),
    data       jsonb       NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    read_at    timestamptz,
    -- The row is the job, too: it is sent as mail where there is SMTP and an address.
    mail_state text        NOT NULL DEFAULT 'due' CHECK (mail_state IN ('due', 'sent', 'failed', 'none')),
    mail_tries smallint    NOT NULL DEFAULT 0,
    mail_due_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX notices_of_account ON notices (account_id, id DESC);
CREATE INDEX notices_to_mail ON notices (mail_due_at) WHERE mail_state = 'due';

-- Low-balance alerts: one row for each threshold of an account; without rows the default applies (0.50).
CREATE TABLE credit_alerts (
    account_id uuid        NOT NULL REFERENCES accounts ON DELETE CASCADE,
    threshold  bigint      NOT NULL CHECK (threshold > 0),  -- micro-credits
    fired_at   timestamptz,
    PRIMARY KEY (account_id, threshold)
);

-- How far the ledger has been looked at: by account, because an account's rows are in order (its row is locked).
CREATE TABLE credit_alert_watermarks (
    account_id uuid   PRIMARY KEY REFERENCES accounts ON DELETE CASCADE,
    ledger_id  bigint NOT NULL
) WITH (fillfactor = 50);
