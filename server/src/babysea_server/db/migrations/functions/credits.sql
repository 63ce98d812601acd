-- Credits that come from outside: added by the operator, or granted once for a reason.

CREATE OR REPLACE FUNCTION add_credits_v1(
    p_account     uuid,
    p_amount      bigint,
    p_description text,
    OUT balance   bigint,  -- after it; NULL when there is no such account
    OUT ledger_id bigint
) LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET credit_balance = credit_balance + p_amount WHERE id = p_account
    RETURNING credit_balance INTO balance;
    IF FOUND THEN
        INSERT INTO ledger (account_id, kind, amount, balance_after, description)
        VALUES (p_account, 'add', p_amount, balance, p_description)
        RETURNING id INTO ledger_id;
    END IF;
END $$;

-- Whoever asks again for the same source, at the same time or years later, changes nothing.
CREATE OR REPLACE FUNCTION grant_credits_v1(
    p_account     uuid,
    p_source      text,
    p_amount      bigint,
    p_description text
) RETURNS boolean  -- whether this call granted it
LANGUAGE plpgsql AS $$
BEGIN
    -- Under the account's lock, so that what is looked up below is what others have committed.
    PERFORM FROM accounts WHERE id = p_account FOR NO KEY UPDATE;
    IF NOT FOUND OR EXISTS (SELECT FROM credit_grants WHERE account_id = p_account AND source = p_source) THEN
        RETURN false;
    END IF;
    INSERT INTO credit_grants (account_id, source, ledger_id)
    SELECT p_account, p_source, added.ledger_id FROM add_credits_v1(p_account, p_amount, p_description) AS added;
    RETURN true;
END $$;
