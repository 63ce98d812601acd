-- Webhooks: the outbox is written in the transaction of what it tells of; claims and results of the deliverers.
--
-- Locks are taken in one order: accounts, generations, endpoints by id, deliveries.

-- A version 7 UUID like those of the server: the time to a quarter of a microsecond, then random bits.

CREATE OR REPLACE FUNCTION new_id_v1() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT encode(
        substring(int8send(us / 1000) FROM 3)
        || substring(int4send((28672 + us % 1000 * 4096 / 1000)::integer) FROM 3)
        || substring(uuid_send(gen_random_uuid()) FROM 9), 'hex')::uuid
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us) AS clock
$$;

-- Writes one message for each event that somebody subscribed to, and a delivery for each endpoint that did.
--
-- What has been told of a generation is not told again. An endpoint that is not enabled has its deliveries queued:
-- they wait to be asked for. Nothing happens without arguments, as where an array was gathered from no rows.

CREATE OR REPLACE FUNCTION enqueue_webhooks_v1(
    p_accounts    uuid[],
    p_generations uuid[],  -- an element is NULL where the event is the account's own
    p_events      text[],
    p_data        jsonb[]
) RETURNS integer LANGUAGE plpgsql STRICT AS $$
DECLARE
    deliveries integer;
BEGIN
    WITH heard AS MATERIALIZED (
        -- Locked against their deletion, which would fail the transaction whose event this is.
        SELECT id, account_id, events, state FROM webhook_endpoints
        WHERE account_id = ANY (p_accounts) ORDER BY id FOR KEY SHARE
    ), messages AS (
        INSERT INTO webhook_messages (id, account_id, event, generation_id, data)
        SELECT new_id_v1(), u.account_id, u.event, u.generation_id, u.data
        FROM unnest(p_accounts, p_generations, p_events, p_data) AS u (account_id, generation_id, event, data)
        WHERE EXISTS (SELECT FROM heard h WHERE h.account_id = u.account_id AND u.event = ANY (h.events))
        ON CONFLICT (generation_id, event) WHERE generation_id IS NOT NULL DO NOTHING
        RETURNING id, account_id, event
    )
    INSERT INTO webhook_deliveries (id, message_id, endpoint_id, account_id, due_at)
    SELECT new_id_v1(), m.id, h.id, m.account_id, CASE h.state WHEN 'enabled' THEN now() ELSE 'infinity' END
    FROM messages m JOIN heard h ON h.account_id = m.account_id AND m.event = ANY (h.events);
    GET DIAGNOSTICS deliveries = ROW_COUNT;
    RETURN deliveries;
END $$;

-- What every event of a generation says.

CREATE OR REPLACE FUNCTION generation_event_v1(
    p_account uuid, p_model text, p_generation uuid, p_status generation_status
) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT jsonb_build_object('account_id', p_account, 'model_identifier', p_model, 'generation_id', p_generation,
                              'generation_status', p_status)
$$;

-- An event of an account as such; returns to how many endpoints it goes.

CREATE OR REPLACE FUNCTION enqueue_account_event_v1(p_account uuid, p_event text, p_data jsonb) RETURNS integer
LANGUAGE sql AS $$
    SELECT enqueue_webhooks_v1(ARRAY[p_account], ARRAY[NULL::uuid], ARRAY[p_event], ARRAY[p_data])
$$;

-- Claims due deliveries of enabled endpoints, a few of each, so that none waits behind another's backlog.
--
-- Endpoints are visited in the order of their ids from p_after on, each in one step of the index whatever lies
-- before it; the last one visited is returned with every row, and in a row of its own where nothing was due; no row at
-- all means that nothing waits there. An endpoint whose deliveries fail gets a quarter of the places: many dead ones must
-- not fill the process.

CREATE OR REPLACE FUNCTION claim_webhooks_v1(
    p_worker       uuid,
    p_limit        integer,
    p_per_endpoint integer,  -- in flight at once, over all workers
    p_after        uuid,     -- where the last call ended
    p_endpoints    integer   -- visited at most
) RETURNS TABLE (
    last_endpoint uuid, visited integer,  -- of the call, with every row
    id uuid, fence integer, attempts smallint, event text, data jsonb, happened_at timestamptz, created_at timestamptz,
    endpoint_id uuid, account_id uuid, url text, secret bytea
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    endpoints uuid[];
    mine      uuid[];
BEGIN
    WITH RECURSIVE visits AS (
        SELECT first.endpoint_id, 1 AS n FROM (
            SELECT d.endpoint_id FROM webhook_deliveries d
            WHERE d.state = 'pending' AND d.worker_id IS NULL AND d.due_at < 'infinity' AND d.endpoint_id > p_after
            ORDER BY d.endpoint_id LIMIT 1) AS first
        UNION ALL
        SELECT following.endpoint_id, v.n + 1 FROM visits v CROSS JOIN LATERAL (
            SELECT d.endpoint_id FROM webhook_deliveries d
            WHERE d.state = 'pending' AND d.worker_id IS NULL AND d.due_at < 'infinity'
              AND d.endpoint_id > v.endpoint_id
            ORDER BY d.endpoint_id LIMIT 1) AS following
        WHERE v.n < p_endpoints
    )
    SELECT array_agg(v.endpoint_id ORDER BY v.n) INTO endpoints FROM visits v;
    IF endpoints IS NULL THEN
        RETURN;
    END IF;

    -- A statement of its own, so that the next counts what is in flight after others have let go of the endpoint.
    SELECT array_agg(e.id) INTO mine FROM (
        SELECT id FROM webhook_endpoints e
        WHERE e.id = ANY (endpoints) AND e.state = 'enabled' AND EXISTS (
            SELECT FROM webhook_deliveries d
            WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.worker_id IS NULL AND d.due_at < 'infinity'
              AND d.due_at <= now())
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    ) AS e;

    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT d.id FROM unnest(mine) WITH ORDINALITY AS m (id, n) CROSS JOIN LATERAL (
            SELECT p.id FROM webhook_deliveries p
            WHERE p.endpoint_id = m.id AND p.state = 'pending' AND p.worker_id IS NULL AND p.due_at < 'infinity'
              AND p.due_at <= now()
            ORDER BY p.due_at
            LIMIT greatest(0, (
                SELECT CASE e.failed_in_a_row WHEN 0 THEN p_per_endpoint ELSE (p_per_endpoint + 3) / 4 END
                FROM webhook_endpoints e WHERE e.id = m.id) - (
                SELECT count(*) FROM webhook_deliveries f WHERE f.endpoint_id = m.id AND f.worker_id IS NOT NULL))
            FOR UPDATE SKIP LOCKED
        ) AS d
        WHERE EXISTS (SELECT FROM workers w WHERE w.id = p_worker)
        ORDER BY m.n LIMIT p_limit
    ), claimed AS (
        UPDATE webhook_deliveries d SET worker_id = p_worker, fence = d.fence + 1 FROM due WHERE d.id = due.id
        RETURNING d.id, d.fence, d.attempts, d.message_id, d.created_at, d.endpoint_id, d.account_id
    )
    SELECT endpoints[cardinality(endpoints)], cardinality(endpoints), c.id, c.fence, c.attempts, m.event, m.data,
           m.created_at, c.created_at, c.endpoint_id, c.account_id, e.url, e.secret
    FROM (VALUES (1)) AS always (n)
        LEFT JOIN (claimed c JOIN webhook_messages m ON m.id = c.message_id
                             JOIN webhook_endpoints e ON e.id = c.endpoint_id) ON true;
END $$;

-- Records what came of a batch of tries; only under the worker's own fence.
--
-- A repetition after a lost answer finds no lease and changes nothing. Returned are the deliveries that were
-- recorded, and with the last of an endpoint whether that was disabled for failing.

CREATE OR REPLACE FUNCTION record_webhooks_v1(
    p_worker    uuid,
    p_ids       uuid[],
    p_fences    integer[],
    p_delivered boolean[],
    p_again_s   double precision[],  -- NULL: not again
    p_statuses  smallint[],
    p_durations integer[],           -- milliseconds
    p_errors    text[],
    p_responses text[],
    p_tries     integer,             -- of a delivery that failed so often its endpoint is held to have failed
    p_in_a_row  integer,             -- of these deliveries that disable an endpoint
    p_wait      integer              -- hours that deliveries wait for one that is disabled
) RETURNS TABLE (delivery_id uuid, disabled_endpoint uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    -- Only those whose counter may change: the common case, a success of a sound endpoint, locks nothing.
    PERFORM FROM webhook_endpoints e WHERE e.id IN (
        SELECT d.endpoint_id
        FROM unnest(p_ids, p_delivered) AS u (id, delivered) JOIN webhook_deliveries d ON d.id = u.id
            JOIN webhook_endpoints s ON s.id = d.endpoint_id
        WHERE CASE WHEN u.delivered THEN s.failed_in_a_row > 0 ELSE d.attempts + 1 = p_tries END
    ) ORDER BY e.id FOR NO KEY UPDATE;

    RETURN QUERY
    WITH tried AS (
        SELECT * FROM unnest(p_ids, p_fences, p_delivered, p_again_s, p_statuses, p_durations, p_errors, p_responses)
            WITH ORDINALITY AS u (id, fence, delivered, again_s, status, duration, error, response, n)
    ), recorded AS (
        UPDATE webhook_deliveries d SET
            attempts = d.attempts + 1, worker_id = NULL,
            state = CASE WHEN u.delivered THEN 'delivered'::webhook_delivery_state
                         WHEN u.again_s IS NULL THEN 'failed' ELSE 'pending' END,
            ended_at = CASE WHEN u.delivered OR u.again_s IS NULL THEN now() END,
            due_at = CASE WHEN u.delivered OR u.again_s IS NULL THEN d.due_at
                          ELSE now() + make_interval(secs => u.again_s) END
        FROM tried u WHERE d.id = u.id AND d.worker_id = p_worker AND d.fence = u.fence
        RETURNING d.id, d.endpoint_id, d.attempts, u.delivered, u.status, u.duration, u.error, u.response, u.n
    ), logged AS (
        INSERT INTO webhook_attempts (delivery_id, number, status, duration_ms, error, response)
        SELECT r.id, r.attempts, r.status, r.duration, r.error, r.response FROM recorded r
    ), last_success AS (
        SELECT r.endpoint_id, max(r.n) FILTER (WHERE r.delivered) AS n FROM recorded r GROUP BY 1
    ), counted AS (
        SELECT r.endpoint_id, l.n IS NOT NULL AS success,
               -- What we ourselves did wrong, such as a master key that is out of date, speaks against nobody.
               count(*) FILTER (WHERE NOT r.delivered AND r.attempts = p_tries AND r.n > coalesce(l.n, 0)
                                      AND r.error NOT IN ('unsigned', 'internal')) AS failures
        FROM recorded r JOIN last_success l USING (endpoint_id) GROUP BY 1, 2
    ), marked AS (
        UPDATE webhook_endpoints e SET
            failed_in_a_row = after.failures,
            state = CASE WHEN after.disabled THEN 'failing' ELSE e.state END,
            state_changed_at = CASE WHEN after.disabled THEN now() ELSE e.state_changed_at END
        FROM counted c JOIN webhook_endpoints b ON b.id = c.endpoint_id CROSS JOIN LATERAL (
            SELECT failures, failures >= p_in_a_row AND b.state = 'enabled' AS disabled
            FROM (SELECT (CASE WHEN c.success THEN 0 ELSE b.failed_in_a_row END + c.failures)::integer AS failures) AS f
        ) AS after
        WHERE e.id = c.endpoint_id AND after.failures <> e.failed_in_a_row
        RETURNING e.id, e.account_id, e.url, after.disabled
    ), noticed AS (
        INSERT INTO notices (id, account_id, kind, text, data)
        SELECT new_id_v1(), m.account_id, 'webhook.disabled',
               format('The webhook endpoint %s was disabled because %s deliveries in a row failed. What happens from '
                      'now on waits %s hours for it to be enabled.', left(m.url, 200), p_in_a_row, p_wait),
               jsonb_build_object('endpoint_id', m.id, 'url', m.url)
        FROM marked m WHERE m.disabled
    )
    SELECT r.id, m.id FROM recorded r
        LEFT JOIN marked m ON m.id = r.endpoint_id AND m.disabled
           AND r.n = (SELECT max(o.n) FROM recorded o WHERE o.endpoint_id = r.endpoint_id);
END $$;
