-- Cancellation: the final transition, its refund and its announcement to the workers, in one call.
--
-- Repeating it after a lost answer is safe: what is final stays as it is and is told again.

CREATE OR REPLACE FUNCTION cancel_generation_v1(p_account uuid, p_id uuid) RETURNS TABLE (
    status      generation_status,  -- as it is now
    canceled    boolean,            -- by this call
    refunded    bigint,
    model       text,
    inputs      jsonb,
    fence       integer,
    attempt_id  uuid,               -- the attempt that is still open, and what its provider knows it by
    provider    text,
    upstream_id text,
    upstream    jsonb
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    won boolean;
BEGIN
    PERFORM FROM accounts WHERE id = p_account FOR NO KEY UPDATE;
    IF NOT EXISTS (SELECT FROM generations WHERE id = p_id AND account_id = p_account) THEN
        RETURN;
    END IF;
    won := EXISTS (
        SELECT FROM settle_generations_v1(
            NULL, ARRAY[p_id], ARRAY[p_account], ARRAY[0], ARRAY['canceled'::generation_status], ARRAY[NULL::numeric],
            ARRAY[NULL::text], ARRAY[NULL::jsonb], ARRAY[NULL::text], ARRAY[NULL::text], ARRAY[NULL::bigint])
    );
    IF won THEN
        -- With the transaction, unlike the news of work: it is rare, and a run that goes on costs money.
        PERFORM pg_notify('generations_canceled', p_id::text);
    END IF;
    RETURN QUERY
    SELECT g.status, won, g.refunded, g.model, g.inputs, g.fence, a.id, a.provider, a.upstream_id, a.upstream
    FROM generations g LEFT JOIN attempts a ON a.generation_id = g.id AND a.outcome = 'pending'
    WHERE g.id = p_id;
END $$;
