-- Writing the request log and its roll-ups; what attempts cost.

-- What an attempt is taken to have cost the operator, in micro-credits: what the provider billed where it said so;
-- else the generation's price where an output was made, or may have been; else nothing.
CREATE OR REPLACE FUNCTION attempt_cost_v1(
    told     bigint,
    estimate bigint,          -- what the attempt was opened with
    outcome  attempt_outcome,
    failure  failure_class
) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(told, CASE
        WHEN outcome IN ('pending', 'used', 'discarded') THEN estimate
        WHEN failure IN ('timed_out', 'outcome_unknown', 'bad_output') THEN estimate
        ELSE 0 END)
$$;

-- The bucket of a duration: four for each doubling from 1 ms, the last one for all that is slower than half an hour.
-- The routing of providers condenses its latencies in the same way.
CREATE OR REPLACE FUNCTION latency_bucket_v1(duration_us bigint) RETURNS smallint LANGUAGE sql IMMUTABLE AS $$
    SELECT least(83, floor(4 * ln(greatest(1, duration_us / 1000.0::float8)) / ln(2::float8)))::smallint
$$;

-- Attempts in the roll-up of their account, day and provider.
--
-- Locks: whoever writes attempts holds accounts, then generations, then attempts, and takes the roll-ups last, when
-- its statement ends; what it takes of them, in the order of their key. Nobody who holds a roll-up waits for
-- anything but a later roll-up, so there is no cycle. A transaction of several statements writes attempts last.

CREATE OR REPLACE FUNCTION count_opened_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_providers AS u (account_id, day, provider, submissions)
    SELECT account_id, (submitted_at AT TIME ZONE 'UTC')::date, provider, count(*)
    FROM opened GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (account_id, day, provider) DO UPDATE SET submissions = u.submissions + excluded.submissions;
    -- The rule is one attempt for a generation; a further one at another provider is a failover.
    IF EXISTS (SELECT FROM opened WHERE attempt_order > 1) THEN
        INSERT INTO usage_failovers AS u (account_id, hour, provider, next_provider, reason, failovers)
        SELECT o.account_id, date_trunc('hour', o.submitted_at, 'UTC'), a.provider, o.provider,
               coalesce(a.failure::text, a.outcome::text), count(*)
        FROM opened o JOIN attempts a ON a.generation_id = o.generation_id AND a.attempt_order = o.attempt_order - 1
        WHERE a.provider <> o.provider
        GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT (account_id, hour, provider, next_provider, reason) DO UPDATE
        SET failovers = u.failovers + excluded.failovers;
    END IF;
    RETURN NULL;
END $$;

-- An attempt ends once; what it cost may be learned later, when a bill comes after the cancellation.
CREATE OR REPLACE FUNCTION count_ended_attempts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_providers AS u (account_id, day, provider, used, cancelled, discarded, failed,
                                      estimated_cost, wasted_cost)
    SELECT a.account_id, (a.submitted_at AT TIME ZONE 'UTC')::date, a.provider,
           count(*) FILTER (WHERE ends.now AND a.outcome = 'used'),
           count(*) FILTER (WHERE ends.now AND a.outcome = 'cancelled'),
           count(*) FILTER (WHERE ends.now AND a.outcome = 'discarded'),
           count(*) FILTER (WHERE ends.now AND a.outcome = 'failed'),
           sum(ends.cost), coalesce(sum(ends.cost) FILTER (WHERE a.outcome <> 'used'), 0)
    FROM after a JOIN before b ON b.id = a.id
    CROSS JOIN LATERAL (
        SELECT b.outcome = 'pending' AS now,
               a.estimated_cost - CASE b.outcome WHEN 'pending' THEN 0 ELSE b.estimated_cost END AS cost
    ) AS ends
    WHERE a.outcome <> 'pending' AND (ends.now OR ends.cost <> 0)
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (account_id, day, provider) DO UPDATE
    SET used = u.used + excluded.used, cancelled = u.cancelled + excluded.cancelled,
        discarded = u.discarded + excluded.discarded, failed = u.failed + excluded.failed,
        estimated_cost = u.estimated_cost + excluded.estimated_cost,
        wasted_cost = u.wasted_cost + excluded.wasted_cost;
    RETURN NULL;
END $$;

-- The partition of the request log for one day (UTC), made when it is missing; whether it was.
--
-- One process makes days at a time, under the lock that attaching takes anyway: inserts run on beside it.
CREATE OR REPLACE FUNCTION make_request_log_day_v1(p_day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    day_table text := 'request_log_' || to_char(p_day, 'YYYYMMDD');
BEGIN
    IF to_regclass(day_table) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- A table's lock, because getting it is also when a session learns of tables that others have made.
    LOCK TABLE ONLY request_log IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(day_table) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE request_log INCLUDING ALL)', day_table);
    EXECUTE format('ALTER TABLE request_log ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', day_table,
                   p_day::timestamp AT TIME ZONE 'UTC', (p_day + 1)::timestamp AT TIME ZONE 'UTC');
    RETURN true;
END $$;

-- Drops the oldest day of the request log that is before p_first; NULL when there is none, or somebody else is at it.
--
-- Dropping needs the log for itself for a moment. It asks for that only briefly: inserts wait behind it.
CREATE OR REPLACE FUNCTION drop_request_log_day_v1(p_first date) RETURNS date
LANGUAGE plpgsql SET lock_timeout = '250ms' AS $$
DECLARE
    oldest record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('babysea request log', 0)) THEN
        RETURN NULL;
    END IF;
    SELECT c.oid::regclass AS name, to_date(right(c.relname, 8), 'YYYYMMDD') AS day INTO oldest
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'request_log'::regclass AND c.relname ~ '^request_log_[0-9]{8}$'
    ORDER BY c.relname LIMIT 1;
    IF oldest.day IS NULL OR oldest.day >= p_first THEN
        RETURN NULL;
    END IF;
    EXECUTE format('DROP TABLE %s', oldest.name);
    RETURN oldest.day;
END $$;

-- Writes a batch of answered requests and counts them by the hour and by the day: all of it or nothing.
--
-- The arrays are parallel, one element for each request. The time is this database's: a request was answered as long
-- ago as its process says. Roll-ups are taken in the order of their keys, so that processes never deadlock.
CREATE OR REPLACE FUNCTION log_requests_v1(
    p_ages        bigint[],    -- microseconds
    p_request_ids text[],
    p_accounts    uuid[],
    p_apikeys     uuid[],
    p_methods     text[],
    p_endpoints   text[],
    p_queries     text[],      -- JSON, or NULL
    p_statuses    smallint[],
    p_codes       text[],
    p_replays     boolean[],
    p_ip_hashes   bytea[],
    p_agents      text[],
    p_sdks        text[],      -- JSON, or NULL
    p_durations   integer[]    -- microseconds
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    present timestamptz := clock_timestamp();
    moments timestamptz[] := ARRAY(
        SELECT present - age * interval '1 microsecond' FROM unnest(p_ages) WITH ORDINALITY AS u (age, n) ORDER BY n
    );
BEGIN
    -- Off the way of admission's commits: a crash of the database may lose the last moment of the log, and with it,
    -- in the same transaction, the counts of it.
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM make_request_log_day_v1(d.day)
    FROM (SELECT DISTINCT (at AT TIME ZONE 'UTC')::date AS day FROM unnest(moments) AS at) AS d;

    INSERT INTO request_log (at, request_id, account_id, apikey_id, method, endpoint, query, status, error_code,
                             replayed, ip_hash, user_agent, sdk, duration_us)
    SELECT u.at, u.request_id, u.account_id, u.apikey_id, u.method, u.endpoint, u.query::jsonb, u.status, u.code,
           u.replayed, u.ip_hash, u.agent, u.sdk::jsonb, u.duration
    FROM unnest(moments, p_request_ids, p_accounts, p_apikeys, p_methods, p_endpoints, p_queries, p_statuses, p_codes,
                p_replays, p_ip_hashes, p_agents, p_sdks, p_durations)
         AS u (at, request_id, account_id, apikey_id, method, endpoint, query, status, code, replayed, ip_hash, agent,
               sdk, duration);

    INSERT INTO usage_hourly AS h (account_id, hour, endpoint, status_class, error_code, requests, replays, duration_us)
    SELECT u.account_id, date_trunc('hour', u.at, 'UTC'), u.endpoint, u.status / 100, coalesce(u.code, ''), count(*),
           count(*) FILTER (WHERE u.replayed), sum(u.duration)
    FROM unnest(moments, p_accounts, p_endpoints, p_statuses, p_codes, p_replays, p_durations)
         AS u (at, account_id, endpoint, status, code, replayed, duration)
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (account_id, hour, endpoint, status_class, error_code) DO UPDATE
    SET requests = h.requests + excluded.requests, replays = h.replays + excluded.replays,
        duration_us = h.duration_us + excluded.duration_us;

    INSERT INTO usage_daily AS d (account_id, day, endpoint, status_class, error_code, requests, replays)
    SELECT u.account_id, (u.at AT TIME ZONE 'UTC')::date, u.endpoint, u.status / 100, coalesce(u.code, ''), count(*),
           count(*) FILTER (WHERE u.replayed)
    FROM unnest(moments, p_accounts, p_endpoints, p_statuses, p_codes, p_replays)
         AS u (at, account_id, endpoint, status, code, replayed)
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (account_id, day, endpoint, status_class, error_code) DO UPDATE
    SET requests = d.requests + excluded.requests, replays = d.replays + excluded.replays;

    INSERT INTO usage_latency AS l (account_id, hour, endpoint, bucket, requests)
    SELECT u.account_id, date_trunc('hour', u.at, 'UTC'), u.endpoint, latency_bucket_v1(u.duration), count(*)
    FROM unnest(moments, p_accounts, p_endpoints, p_durations) AS u (at, account_id, endpoint, duration)
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (account_id, hour, endpoint, bucket) DO UPDATE SET requests = l.requests + excluded.requests;

    INSERT INTO usage_keys AS k (account_id, hour, apikey_id, status_class, requests)
    SELECT u.account_id, date_trunc('hour', u.at, 'UTC'), u.apikey_id, u.status / 100, count(*)
    FROM unnest(moments, p_accounts, p_apikeys, p_statuses) AS u (at, account_id, apikey_id, status)
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (account_id, hour, apikey_id, status_class) DO UPDATE SET requests = k.requests + excluded.requests;
END $$;
