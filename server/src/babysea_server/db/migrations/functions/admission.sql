-- Admission: decides and writes a batch of generation requests in one call.
--
-- The arrays are parallel, one element for each request, in arrival order. Within an account requests are
-- decided in that order, each against what its predecessors left: an account with credit for three of five
-- gets exactly the first three that fit. Account rows are locked in id order, so batches never deadlock.
--
-- Past p_deadline the call writes nothing: a caller that lost the connection can be certain, once the
-- deadline is over, that a request it cannot find was not and will not be accepted.

CREATE OR REPLACE FUNCTION admit_generations_v1(
    p_deadline     timestamptz,
    p_ids          uuid[],
    p_accounts     uuid[],
    p_apikeys      uuid[],
    p_models       text[],
    p_media        media_kind[],
    p_inputs       jsonb[],
    p_orders       text[],      -- provider ids joined by ","
    p_predictions  uuid[],
    p_costs        bigint[],
    p_rates        numeric[],   -- micro-credits per measured second, or NULL
    p_lifetimes    integer[],   -- seconds until the hard limit
    p_limits       integer[],   -- generations in flight the plan allows, or NULL
    p_keys         text[],      -- idempotency key, or NULL
    p_fingerprints bytea[]
) RETURNS TABLE (
    n              bigint,      -- position in the arrays, from 1
    result         admission_result,
    generation_id  uuid,        -- of the accepted or replayed generation
    model          text,
    provider_order text[],
    prediction_id  uuid,
    status         generation_status,
    balance        bigint,      -- what the decision left
    in_flight      bigint       -- what the decision found, where the plan has a limit
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    request     record;
    remembered  record;
    decision    admission_result;
    current     uuid;             -- the account being decided
    purse       bigint;           -- its balance so far
    running     bigint;           -- its generations in flight so far, NULL until somebody asks
    unwritten   bigint;           -- how many of those this batch accepted: their rows are written at the end
    total       integer := cardinality(p_ids);
    results     admission_result[] := array_fill(NULL::admission_result, ARRAY[total]);
    found_ids   uuid[]   := array_fill(NULL::uuid, ARRAY[total]);
    balances    bigint[] := array_fill(NULL::bigint, ARRAY[total]);  -- after the decision
    in_flights  bigint[] := array_fill(NULL::bigint, ARRAY[total]);
BEGIN
    PERFORM FROM accounts WHERE id = ANY (p_accounts) ORDER BY id FOR NO KEY UPDATE;
    IF clock_timestamp() > p_deadline THEN
        RAISE EXCEPTION 'admission came after its deadline' USING ERRCODE = 'query_canceled';
    END IF;

    FOR request IN
        SELECT u.n, u.account_id, u.id, u.cost, u.capacity, u.key, u.fingerprint,
               a.id IS NOT NULL AS account_exists, a.credit_balance
        FROM unnest(p_accounts, p_ids, p_costs, p_limits, p_keys, p_fingerprints)
             WITH ORDINALITY AS u (account_id, id, cost, capacity, key, fingerprint, n)
        LEFT JOIN accounts a ON a.id = u.account_id
        ORDER BY u.account_id, u.n
    LOOP
        IF current IS DISTINCT FROM request.account_id THEN
            current := request.account_id;
            purse := request.credit_balance;
            running := NULL;
            unwritten := 0;
        END IF;
        decision := NULL;
        IF NOT request.account_exists THEN
            decision := 'account_gone';
        ELSIF request.key IS NOT NULL THEN
            SELECT k.generation_id, k.fingerprint INTO remembered FROM idempotency_keys k
            WHERE k.account_id = request.account_id AND k.key = request.key
              AND k.created_at > now() - interval '24 hours';
            IF FOUND THEN
                IF remembered.fingerprint = request.fingerprint THEN
                    decision := 'replayed';
                    found_ids[request.n] := remembered.generation_id;
                ELSE
                    decision := 'key_reused';
                END IF;
            END IF;
        END IF;
        IF decision IS NULL AND request.capacity IS NOT NULL THEN
            IF running IS NULL THEN
                SELECT count(*) + unwritten INTO running FROM generations g
                WHERE g.account_id = request.account_id AND g.status IN ('pending', 'processing');
            END IF;
            in_flights[request.n] := running;
            IF running >= request.capacity THEN
                decision := 'over_concurrency';
            END IF;
        END IF;
        IF decision IS NULL AND purse < request.cost THEN
            decision := 'insufficient_credits';
        END IF;
        IF decision IS NULL THEN
            decision := 'accepted';
            purse := purse - request.cost;
            running := running + 1;
            unwritten := unwritten + 1;
            found_ids[request.n] := request.id;
            IF request.key IS NOT NULL THEN
                INSERT INTO idempotency_keys AS k (account_id, key, fingerprint, generation_id, prediction_id,
                                                   provider_order)
                VALUES (request.account_id, request.key, request.fingerprint, request.id,
                        p_predictions[request.n], string_to_array(p_orders[request.n], ','))
                ON CONFLICT (account_id, key) DO UPDATE  -- only a key older than 24 hours gets here
                SET fingerprint = excluded.fingerprint, generation_id = excluded.generation_id,
                    prediction_id = excluded.prediction_id, provider_order = excluded.provider_order,
                    created_at = excluded.created_at;
            END IF;
        END IF;
        results[request.n] := decision;
        balances[request.n] := purse;
    END LOOP;

    UPDATE accounts a
    SET credit_balance = a.credit_balance - spent.cost, generations_total = a.generations_total + spent.accepted
    FROM (
        SELECT u.account_id, sum(u.cost) AS cost, count(*) AS accepted
        FROM unnest(p_accounts, p_costs, results) AS u (account_id, cost, result)
        WHERE u.result = 'accepted' GROUP BY u.account_id
    ) AS spent
    WHERE a.id = spent.account_id;

    INSERT INTO generations (id, account_id, apikey_id, model, media, inputs, provider_order, prediction_id,
                             reserved, rate_per_second, expires_at)
    SELECT u.id, u.account_id, u.apikey_id, u.model, u.media, u.inputs, string_to_array(u.provider_order, ','),
           u.prediction_id, u.cost, u.rate, now() + make_interval(secs => u.lifetime)
    FROM unnest(p_ids, p_accounts, p_apikeys, p_models, p_media, p_inputs, p_orders, p_predictions, p_costs,
                p_rates, p_lifetimes, results)
         AS u (id, account_id, apikey_id, model, media, inputs, provider_order, prediction_id, cost,
               rate, lifetime, result)
    WHERE u.result = 'accepted';

    INSERT INTO ledger (account_id, generation_id, kind, amount, balance_after, description)
    SELECT u.account_id, u.id, 'reserve', u.cost, u.balance, u.model
    FROM unnest(p_accounts, p_ids, p_costs, balances, p_models, results)
         WITH ORDINALITY AS u (account_id, id, cost, balance, model, result, n)
    WHERE u.result = 'accepted' AND u.cost > 0
    ORDER BY u.n;

    IF NOT 'replayed' = ANY (results) THEN
        RETURN QUERY
        SELECT u.n, u.result, u.generation_id, NULL::text, NULL::text[], NULL::uuid, NULL::generation_status,
               u.balance, u.in_flight
        FROM unnest(results, found_ids, balances, in_flights)
             WITH ORDINALITY AS u (result, generation_id, balance, in_flight, n);
    ELSE
        RETURN QUERY
        -- The answer stands beside the key, so that it can be repeated when the generation is deleted by now.
        SELECT u.n, u.result, u.generation_id, u.model, k.provider_order, k.prediction_id, g.status, u.balance,
               u.in_flight
        FROM unnest(results, found_ids, p_accounts, p_keys, p_models, balances, in_flights)
             WITH ORDINALITY AS u (result, generation_id, account_id, key, model, balance, in_flight, n)
        -- Look-ups by key for each replay: the planner must not think of reading the tables.
        LEFT JOIN LATERAL (
            SELECT * FROM idempotency_keys WHERE account_id = u.account_id AND key = u.key AND u.result = 'replayed'
            OFFSET 0
        ) AS k ON true
        LEFT JOIN LATERAL (
            SELECT * FROM generations WHERE id = u.generation_id AND u.result = 'replayed' OFFSET 0
        ) AS g ON true;
    END IF;
END $$;

-- After a lost answer: which of these generations were admitted, and whether that is the last word.
--
-- An admission holds its accounts until its commit can be seen. So whoever holds them past the deadline sees
-- all that was admitted, however long a commit took, and knows that nothing follows: an admission that gets
-- them later finds the deadline over. Both read the same clock, the database's.

CREATE OR REPLACE FUNCTION admitted_generations_v1(
    p_deadline timestamptz,  -- what the admission was called with
    p_accounts uuid[],
    p_ids      uuid[],
    OUT certain  boolean,
    OUT admitted uuid[]
) LANGUAGE plpgsql SET lock_timeout = '500ms' AS $$
BEGIN
    PERFORM FROM accounts WHERE id = ANY (p_accounts) ORDER BY id FOR SHARE;
    certain := clock_timestamp() > p_deadline;
    admitted := ARRAY(SELECT id FROM generations WHERE id = ANY (p_ids));
END $$;
