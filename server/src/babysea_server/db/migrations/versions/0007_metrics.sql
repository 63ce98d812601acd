-- What the console's charts and searches read: roll-ups by the hour, and ways into the log and the ledger.
--
-- `hour` is the beginning of an hour. Hours that are over for a while are condensed into one row at the beginning of
-- their day (UTC), so that a quarter of a year is few rows; see telemetry/store.py.

-- Generations by the hour in which they ended. Written by settlement, under the account's lock.
CREATE TABLE usage_generations (
    account_id  uuid              NOT NULL,
    hour        timestamptz       NOT NULL,
    model       text              NOT NULL,
    provider    text              NOT NULL,             -- whose output was used; '' for none
    status      generation_status NOT NULL,             -- a final one
    error_code  text              NOT NULL DEFAULT '',
    generations bigint            NOT NULL,
    charged     bigint            NOT NULL,             -- micro-credits
    total_ms    bigint            NOT NULL,             -- from being accepted to the end, of all of them together
    PRIMARY KEY (account_id, hour, model, provider, status, error_code)
) WITH (fillfactor = 70);
CREATE INDEX usage_generations_by_age ON usage_generations (hour);

-- Attempts that another provider's failure led to. Written in the transaction that writes the attempt (trigger).
CREATE TABLE usage_failovers (
    account_id    uuid        NOT NULL,
    hour          timestamptz NOT NULL,
    provider      text        NOT NULL,                 -- who failed
    next_provider text        NOT NULL,
    reason        text        NOT NULL,                 -- class of the failure, or how else the attempt ended
    failovers     bigint      NOT NULL,
    PRIMARY KEY (account_id, hour, provider, next_provider, reason)
) WITH (fillfactor = 70);
CREATE INDEX usage_failovers_by_age ON usage_failovers (hour);

-- Requests by how long they took. Written with the log.
CREATE TABLE usage_latency (
    account_id uuid        NOT NULL,
    hour       timestamptz NOT NULL,
    endpoint   text        NOT NULL,
    bucket     smallint    NOT NULL,                    -- of the duration, four for each doubling from 1 ms
    requests   bigint      NOT NULL,
    PRIMARY KEY (account_id, hour, endpoint, bucket)
) WITH (fillfactor = 70);
CREATE INDEX usage_latency_by_age ON usage_latency (hour);

-- Requests by the key that they came with. Written with the log.
CREATE TABLE usage_keys (
    account_id   uuid        NOT NULL,
    hour         timestamptz NOT NULL,
    apikey_id    uuid        NOT NULL,
    status_class smallint    NOT NULL,                  -- 2, 4 or 5
    requests     bigint      NOT NULL,
    PRIMARY KEY (account_id, hour, apikey_id, status_class)
) WITH (fillfactor = 70);
CREATE INDEX usage_keys_by_age ON usage_keys (hour);

-- What there is already, as it would have been counted.
INSERT INTO usage_generations (account_id, hour, model, provider, status, error_code, generations, charged, total_ms)
SELECT account_id, date_trunc('hour', completed_at, 'UTC'), model, coalesce(provider_used, ''), status,
       coalesce(error_code, ''), count(*), sum(charged),
       sum((extract(epoch FROM completed_at - created_at) * 1000)::bigint)
FROM generations WHERE completed_at IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6;

INSERT INTO usage_failovers (account_id, hour, provider, next_provider, reason, failovers)
SELECT n.account_id, date_trunc('hour', n.submitted_at, 'UTC'), a.provider, n.provider,
       coalesce(a.failure::text, a.outcome::text), count(*)
FROM attempts n JOIN attempts a ON a.generation_id = n.generation_id AND a.attempt_order = n.attempt_order - 1
WHERE n.attempt_order > 1 AND a.provider <> n.provider GROUP BY 1, 2, 3, 4, 5;

INSERT INTO usage_latency (account_id, hour, endpoint, bucket, requests)
SELECT account_id, date_trunc('hour', at, 'UTC'), endpoint, latency_bucket_v1(duration_us), count(*)
FROM request_log GROUP BY 1, 2, 3, 4;

INSERT INTO usage_keys (account_id, hour, apikey_id, status_class, requests)
SELECT account_id, date_trunc('hour', at, 'UTC'), apikey_id, status / 100, count(*) FROM request_log GROUP BY 1, 2, 3, 4;

-- One request by its id, whenever it was.
CREATE INDEX request_log_by_id ON request_log (request_id);
-- Reserves and charges are everywhere in the ledger; these are few among them.
CREATE INDEX ledger_additions ON ledger (account_id, kind, id DESC) WHERE kind IN ('add', 'refund');
