-- Removal of final generations and of their files.
--
-- Whatever stops naming a file writes its key into file_deletions in the same transaction. Locks are taken in the
-- order of admission and settlement: accounts by id, then generations.

-- Removes final generations whole; what is in flight or gone is not among the returned rows. The ledger stays, and
-- with it everything that was ever reserved, charged and refunded.

CREATE OR REPLACE FUNCTION remove_generations_v1(
    p_accounts uuid[],   -- whose they must be
    p_ids      uuid[],
    p_attempts boolean   -- their attempts as well
) RETURNS TABLE (generation_id uuid, files text[]) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM FROM accounts WHERE id = ANY (p_accounts) ORDER BY id FOR NO KEY UPDATE;
    PERFORM FROM generations WHERE id = ANY (p_ids) AND account_id = ANY (p_accounts) ORDER BY id FOR UPDATE;

    RETURN QUERY
    WITH removed AS (
        DELETE FROM generations g
        WHERE g.id = ANY (p_ids) AND g.account_id = ANY (p_accounts) AND g.status IN ('succeeded', 'failed', 'canceled')
        RETURNING g.id, g.account_id, CASE WHEN g.files_removed_at IS NULL THEN ARRAY(
            SELECT file ->> 'key' FROM jsonb_array_elements(coalesce(g.outputs, '[]')) AS file
        ) ELSE '{}' END AS files
    ), counted AS (
        UPDATE accounts a SET generations_total = a.generations_total - fewer.count
        FROM (SELECT r.account_id, count(*) AS count FROM removed r GROUP BY r.account_id) AS fewer
        WHERE a.id = fewer.account_id
    ), queued AS (
        -- Whoever removes a generation may delete the files at once; a little later a worker does.
        INSERT INTO file_deletions (key, due_at)
        SELECT unnest(r.files), now() + interval '30 seconds' FROM removed r
        ON CONFLICT (key) DO NOTHING
    ), forgotten AS (
        DELETE FROM attempts a USING removed r WHERE p_attempts AND a.generation_id = r.id
    )
    SELECT r.id, r.files FROM removed r;
END $$;

-- One step of retention over the accounts of a plan, in id order: the files of generations that ended too long ago.
-- Several workers share the work, since each passes by what another has locked.

CREATE OR REPLACE FUNCTION remove_old_files_v1(
    p_plan     text,
    p_after    uuid,     -- the last account of the step before
    p_accounts integer,  -- accounts looked at, at most
    p_hours    integer,  -- how long files are kept after completion
    p_limit    integer,  -- generations, at most
    OUT last_account uuid,  -- NULL: there are no more
    OUT removed      bigint
) LANGUAGE plpgsql AS $$
DECLARE
    page uuid[] := ARRAY(SELECT id FROM accounts WHERE plan = p_plan AND id > p_after ORDER BY id LIMIT p_accounts);
BEGIN
    last_account := page[cardinality(page)];
    WITH due AS MATERIALIZED (
        SELECT old.id FROM unnest(page) AS p (account_id) CROSS JOIN LATERAL (
            SELECT g.id FROM generations g
            WHERE g.account_id = p.account_id AND g.status = 'succeeded' AND g.files_removed_at IS NULL
              AND g.completed_at < now() - make_interval(hours => p_hours)
            ORDER BY g.completed_at LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED
        ) AS old LIMIT p_limit
    ), bare AS (
        UPDATE generations g SET files_removed_at = now() FROM due WHERE g.id = due.id RETURNING g.outputs
    ), queued AS (
        INSERT INTO file_deletions (key)
        SELECT file ->> 'key' FROM bare CROSS JOIN LATERAL jsonb_array_elements(bare.outputs) AS file
        ON CONFLICT (key) DO NOTHING
    )
    SELECT count(*) INTO removed FROM bare;
END $$;

-- The same for whole records. An account that somebody else holds just now is left to the next walk.

CREATE OR REPLACE FUNCTION remove_old_records_v1(
    p_plan     text,
    p_after    uuid,
    p_accounts integer,
    p_days     integer,
    p_limit    integer,
    OUT last_account uuid,
    OUT removed      bigint
) LANGUAGE plpgsql AS $$
DECLARE
    page   uuid[] := ARRAY(SELECT id FROM accounts WHERE plan = p_plan AND id > p_after ORDER BY id LIMIT p_accounts);
    oldest timestamptz := now() - make_interval(days => p_days);
    due    uuid[];
    held   uuid[];
BEGIN
    last_account := page[cardinality(page)];
    removed := 0;
    due := ARRAY(
        SELECT old.id FROM unnest(page) AS p (account_id) CROSS JOIN LATERAL (
            (SELECT g.id FROM generations g
             WHERE g.account_id = p.account_id AND (g.status IN ('failed', 'canceled') OR g.files_removed_at IS NOT NULL)
               AND g.completed_at < oldest ORDER BY g.completed_at LIMIT p_limit)
            UNION ALL
            (SELECT g.id FROM generations g
             WHERE g.account_id = p.account_id AND g.status = 'succeeded' AND g.files_removed_at IS NULL
               AND g.completed_at < oldest ORDER BY g.completed_at LIMIT p_limit)
        ) AS old LIMIT p_limit
    );
    IF cardinality(due) = 0 THEN
        RETURN;
    END IF;
    held := ARRAY(
        SELECT a.id FROM accounts a
        WHERE a.id IN (SELECT g.account_id FROM generations g WHERE g.id = ANY (due))
        ORDER BY a.id FOR NO KEY UPDATE SKIP LOCKED
    );
    removed := (SELECT count(*) FROM remove_generations_v1(held, due, true));
END $$;
