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

SELECT make_request_log_day_v1((now() AT TIME ZONE 'UTC')::date + ahead) FROM generate_series(0, 2) AS ahead;

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
CREATE INDEX usage_hourly_by_age ON usage_hourly (hour);

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
CREATE INDEX usage_daily_by_age ON usage_daily (day);

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
CREATE INDEX usage_providers_by_age ON usage_providers (day);

-- An attempt carries the generation's price from its beginning, and what it is taken to have cost from its end.
UPDATE attempts a SET estimated_cost = attempt_cost_v1(a.estimated_cost, g.reserved, a.outcome, a.failure)
FROM generations g WHERE g.id = a.generation_id AND a.estimated_cost IS NULL;
UPDATE attempts SET estimated_cost = 0 WHERE estimated_cost IS NULL;
ALTER TABLE attempts ALTER COLUMN estimated_cost SET DEFAULT 0, ALTER COLUMN estimated_cost SET NOT NULL;

INSERT INTO usage_providers (account_id, day, provider, submissions, used, cancelled, discarded, failed,
                             estimated_cost, wasted_cost)
SELECT account_id, (submitted_at AT TIME ZONE 'UTC')::date, provider, count(*),
       count(*) FILTER (WHERE outcome = 'used'), count(*) FILTER (WHERE outcome = 'cancelled'),
       count(*) FILTER (WHERE outcome = 'discarded'), count(*) FILTER (WHERE outcome = 'failed'),
       coalesce(sum(estimated_cost) FILTER (WHERE outcome <> 'pending'), 0),
       coalesce(sum(estimated_cost) FILTER (WHERE outcome NOT IN ('pending', 'used')), 0)
FROM attempts GROUP BY 1, 2, 3;

-- Once for a statement, not for a row: a batch of attempts touches few roll-ups.
CREATE TRIGGER attempts_opened AFTER INSERT ON attempts
    REFERENCING NEW TABLE AS opened
    FOR EACH STATEMENT EXECUTE FUNCTION count_opened_attempts();
CREATE TRIGGER attempts_ended AFTER UPDATE ON attempts
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION count_ended_attempts();

-- The health of providers is judged by the attempts that ended lately.
CREATE INDEX attempts_resolved ON attempts (resolved_at) INCLUDE (provider, outcome, failure)
    WHERE resolved_at IS NOT NULL;
