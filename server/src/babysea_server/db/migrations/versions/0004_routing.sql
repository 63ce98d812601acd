-- What the order of providers is decided by: attempts condensed by time, the rankings made of them, the breaker.

-- Counts of the attempts that ended within five minutes, by the bucket of their latency. Rankings are computed from
-- these, because the attempts of a day may be tens of millions.
CREATE TABLE attempt_slots (
    slot     timestamptz NOT NULL,              -- its beginning
    model    text        NOT NULL,
    provider text        NOT NULL,
    bucket   smallint    NOT NULL,              -- of the latency, four for each doubling from 1 ms; -1: no success
    attempts bigint      NOT NULL CHECK (attempts > 0),
    failures bigint      NOT NULL CHECK (failures BETWEEN 0 AND attempts),
    wasted   bigint      NOT NULL CHECK (wasted BETWEEN 0 AND attempts),
    PRIMARY KEY (slot, model, provider, bucket),
    CHECK (bucket = -1 OR (failures = 0 AND wasted = 0))
) WITH (fillfactor = 70);                       -- the present slot is added to again and again: on the page (HOT)

-- How far the attempts have been counted, and when somebody last set about ranking; one row.
CREATE TABLE attempt_rollup (
    one       boolean     PRIMARY KEY DEFAULT true CHECK (one),
    upto      timestamptz NOT NULL,             -- every attempt that ended by then has been counted
    ranked_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 20);
INSERT INTO attempt_rollup (upto) VALUES (now() - interval '24 hours');

-- One JSON document for each model, where there is no Redis. It is computed anew every half a minute.
CREATE UNLOGGED TABLE rankings (
    key         text        PRIMARY KEY,        -- predictive:ranking:<region>:<model>
    document    text        NOT NULL,
    computed_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- What all processes agree on about a provider that fails.
CREATE TABLE provider_breakers (
    provider  text        PRIMARY KEY,
    probed_at timestamptz,                      -- when an attempt was last let through to see whether it recovered
    told_at   timestamptz                       -- when the operator was told that it waits for them
) WITH (fillfactor = 50);
