-- The request log, and the roll-ups that usage is read from.

-- One row for each authenticated request. Dropped by the day: deleting rows would cost as much as writing them.
CREATE TABLE request_log (
    at          timestamptz NOT NULL,
    request_id  text        NOT NULL,
    account_id  uuid        NOT NULL,
    apikey_id   uuid        NOT NULL,
    method      text        NOT NULL,
    endpoint    text        NOT NULL,  -- template, never a path
    query       jsonb,                 -- the admitted parameters, typed; NULL when there were none
    status      smallint    NOT NULL,
    error_code  text,
    replayed    boolean     NOT NULL,
    ip_hash     bytea       NOT NULL,  -- keyed, so that addresses cannot be tried
    user_agent  text,
    sdk         jsonb,                 -- name, version, runtime, runtime_version, as far as sent
    duration_us integer     NOT NULL
) PARTITION BY RANGE (at);
CREATE INDEX request_log_of_account ON request_log (account_id, at DESC);

-- Hours for charts, days for `/v1/usage`: what is read is bounded by time, whatever the traffic.
CREATE TABLE usage_hourly (
    account_id   uuid        NOT NULL,
    hour         timestamptz NOT NULL,
    endpoint     text        NOT NULL,
    status_class smallint    NOT NULL,             -- 2, 4 or 5
    error_code   text        NOT NULL DEFAULT '',
    requests     bigint      NOT NULL,
    replays      bigint      NOT NULL,
    duration_us  bigint      NOT NULL,             -- of all of them together
    PRIMARY KEY (account_id, hour, endpoint, status_class, error_code)
) WITH (fillfactor = 70);

CREATE TABLE usage_daily (
    account_id   uuid     NOT NULL,
    day          date     NOT NULL,                -- UTC
    endpoint     text     NOT NULL,
    status_class smallint NOT NULL,
    error_code   text     NOT NULL DEFAULT '',
    requests     bigint   NOT NULL,
    replays      bigint   NOT NULL,
    PRIMARY KEY (account_id, day, endpoint, status_class, error_code)
) WITH (fillfactor = 70);

-- Attempts by the day they were submitted. Written in the transaction that writes the attempt (trigger).
CREATE TABLE usage_providers (
    account_id     uuid   NOT NULL,
    day            date   NOT NULL,
    provider       text   NOT NULL,
    submissions    bigint NOT NULL DEFAULT 0,
    used           bigint NOT NULL DEFAULT 0,
    cancelled      bigint NOT NULL DEFAULT 0,
    discarded      bigint NOT NULL DEFAULT 0,
    failed         bigint NOT NULL DEFAULT 0,
    estimated_cost bigint NOT NULL DEFAULT 0,      -- micro-credits, of attempts that ended
    wasted_cost    bigint NOT NULL DEFAULT 0,      -- the part of it whose output was not used
    PRIMARY KEY (account_id, day, provider)
) WITH (fillfactor = 50);

-- The health of providers is judged by the attempts that ended lately.
CREATE INDEX attempts_resolved ON attempts (resolved_at) INCLUDE (provider, outcome, failure)
    WHERE resolved_at IS NOT NULL;
