-- The balance of an account at each of these moments, which are given in their order; 0 before its first ledger row.
--
-- Found by bisection on the ledger's ids, which grow with time within an account: its rows are written under its lock.
-- So that the ledger needs no index by time, which every admission and every settlement would have to pay for.
CREATE OR REPLACE FUNCTION balances_at_v1(p_account uuid, p_moments timestamptz[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    moment   timestamptz;
    balances bigint[] := '{}';
    last_id  bigint := (SELECT max(id) FROM ledger WHERE account_id = p_account);
    low      bigint := (SELECT min(id) FROM ledger WHERE account_id = p_account);  -- what is before it is not after the moment
    high     bigint;   -- it and all later ones are after it
    middle   bigint;
    first    record;
BEGIN
    FOREACH moment IN ARRAY p_moments LOOP
        high := last_id + 1;
        WHILE low < high LOOP
            middle := low + (high - low) / 2;
            -- The first row of this account from the middle on: ids of other accounts lie between.
            SELECT id, created_at INTO first FROM ledger
            WHERE account_id = p_account AND id >= middle AND id < high ORDER BY id LIMIT 1;
            IF NOT FOUND OR first.created_at > moment THEN
                high := middle;
            ELSE
                low := first.id + 1;
            END IF;
        END LOOP;
        balances := balances || coalesce((
            SELECT balance_after FROM ledger WHERE account_id = p_account AND id < low ORDER BY id DESC LIMIT 1
        ), 0);
    END LOOP;
    RETURN balances;
END $$;
