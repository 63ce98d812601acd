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
