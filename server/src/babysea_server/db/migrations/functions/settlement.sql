-- Settlement: the final transition of a batch of generations, with its ledger rows and webhook messages, in one call.
--
-- Guarded: only a generation still in flight changes, and with p_worker only under that worker's own fence.
-- What lost the race (canceled meanwhile, expired, leased to another) is simply not among the returned rows.
-- Locks are taken in the same order as at admission: accounts by id, then generations.

CREATE OR REPLACE FUNCTION settle_generations_v1(
    p_worker      uuid,                -- NULL: decided outside a lease (cancel, expiry)
    p_ids         uuid[],
    p_accounts    uuid[],
    p_fences      integer[],
    p_statuses    generation_status[], -- succeeded | failed | canceled
    p_seconds     numeric[],           -- measured length, where the price follows it
    p_providers   text[],
    p_outputs     jsonb[],
    p_codes       text[],
    p_messages    text[],
    p_predict_ms  bigint[]
) RETURNS TABLE (generation_id uuid, status generation_status, charged bigint, refunded bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM accounts WHERE id = ANY (p_accounts) ORDER BY id FOR NO KEY UPDATE;
    PERFORM FROM generations WHERE id = ANY (p_ids) ORDER BY id FOR NO KEY UPDATE;

    RETURN QUERY
    WITH settled AS (
        UPDATE generations g
        SET status = u.status,
            charged = CASE WHEN u.status = 'succeeded' THEN price.charge ELSE 0 END,
            refunded = CASE WHEN u.status = 'succeeded' THEN g.reserved - price.charge ELSE g.reserved END,
            provider_used = u.provider, outputs = u.outputs, error_code = u.code, error_message = u.message,
            predict_ms = u.predict_ms, started_at = coalesce(g.started_at, CASE WHEN u.status = 'succeeded' THEN now() END),
            completed_at = now(), worker_id = NULL
        FROM unnest(p_ids, p_fences, p_statuses, p_seconds, p_providers, p_outputs, p_codes, p_messages, p_predict_ms)
             WITH ORDINALITY AS u (id, fence, status, seconds, provider, outputs, code, message, predict_ms, n)
             JOIN generations r ON r.id = u.id
             CROSS JOIN LATERAL (
                 SELECT CASE WHEN r.rate_per_second IS NULL OR u.seconds IS NULL THEN r.reserved
                        ELSE least(r.reserved, greatest(1, round(r.rate_per_second * u.seconds)::bigint)) END AS charge
             ) AS price
        WHERE g.id = u.id AND g.status IN ('pending', 'processing')
          AND (p_worker IS NULL OR (g.worker_id = p_worker AND g.fence = u.fence))
        RETURNING g.id, g.account_id, g.model, g.status, g.charged, g.refunded, u.n, g.created_at, g.completed_at,
                  g.prediction_id, g.provider_used, g.outputs, g.error_code, g.error_message
    ), counted AS (
        -- Nobody waits for these rows: their account is locked.
        INSERT INTO usage_generations AS c (account_id, hour, model, provider, status, error_code,
                                            generations, charged, total_ms)
        SELECT s.account_id, date_trunc('hour', s.completed_at, 'UTC'), s.model, coalesce(s.provider_used, ''),
               s.status, coalesce(s.error_code, ''), count(*), sum(s.charged),
               sum((extract(epoch FROM s.completed_at - s.created_at) * 1000)::bigint)
        FROM settled s GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
        ON CONFLICT (account_id, hour, model, provider, status, error_code) DO UPDATE
        SET generations = c.generations + excluded.generations, charged = c.charged + excluded.charged,
            total_ms = c.total_ms + excluded.total_ms
    ), moved AS (
        SELECT s.account_id, s.id, s.model, s.n, move.kind, move.amount,
               sum(CASE move.kind WHEN 'refund' THEN move.amount ELSE 0 END)
                   OVER (PARTITION BY s.account_id ORDER BY s.n, move.kind) AS returned
        FROM settled s CROSS JOIN LATERAL (
            VALUES ('charge'::ledger_kind, s.charged), ('refund'::ledger_kind, s.refunded)
        ) AS move (kind, amount)
        WHERE move.amount > 0
    ), booked AS (
        INSERT INTO ledger (account_id, generation_id, kind, amount, balance_after, description)
        SELECT m.account_id, m.id, m.kind, m.amount, a.credit_balance + m.returned, m.model
        FROM moved m JOIN accounts a ON a.id = m.account_id
        ORDER BY m.n, m.kind
    ), paid_back AS (
        UPDATE accounts a SET credit_balance = a.credit_balance + back.amount
        FROM (SELECT m.account_id, sum(m.amount) AS amount FROM moved m WHERE m.kind = 'refund' GROUP BY 1) AS back
        WHERE a.id = back.account_id
    ), told AS MATERIALIZED (
        -- Whose events nobody subscribed to are not even written out.
        SELECT enqueue_webhooks_v1(array_agg(t.account_id), array_agg(t.id), array_agg(t.event), array_agg(
            generation_event_v1(t.account_id, t.model, t.id, t.status) || CASE t.status
                WHEN 'succeeded' THEN jsonb_build_object(
                    'generation_provider_used', t.provider_used, 'generation_prediction_id', t.prediction_id,
                    'generation_output_file', jsonb_path_query_array(t.outputs, '$[*].key'))
                WHEN 'failed' THEN jsonb_build_object(
                    'generation_error', coalesce(t.error_message, 'The generation failed.'),
                    'generation_error_code', t.error_code)
                ELSE jsonb_build_object(
                    'generation_prediction_id', t.prediction_id,
                    'credits_refunded', trim_scale(t.refunded / 1000000.0))
            END))
        FROM (
            SELECT s.*, CASE s.status WHEN 'succeeded' THEN 'generation.completed'
                        ELSE 'generation.' || s.status END AS event FROM settled s
        ) AS t
        WHERE EXISTS (SELECT FROM webhook_endpoints e WHERE e.account_id = t.account_id AND t.event = ANY (e.events))
    )
    SELECT s.id, s.status, s.charged, s.refunded FROM settled s CROSS JOIN told;
END $$;
