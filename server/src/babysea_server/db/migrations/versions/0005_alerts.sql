-- How far the ledger as a whole has been looked at for balances that fell; one row.
--
-- Ids of different accounts may be committed out of order. Whoever looks notes the newest id that it saw, and the
-- next transaction id of that moment. Once every transaction before that one has ended, all ids up to the noted
-- one that will ever be there are there, and need not be looked at again afterwards.

CREATE TABLE credit_alert_scan (
    one        boolean     PRIMARY KEY DEFAULT true CHECK (one),
    settled_id bigint      NOT NULL,                       -- every row up to it has been looked at
    seen_id    bigint      NOT NULL,                       -- the newest row that was seen
    seen_xid   xid8        NOT NULL,                       -- rows up to seen_id were written by earlier transactions
    claimed_at timestamptz NOT NULL DEFAULT '-infinity'    -- when somebody last set about looking
) WITH (fillfactor = 20);
-- What was spent before there were alerts is not told.
INSERT INTO credit_alert_scan (settled_id, seen_id, seen_xid)
SELECT coalesce(max(id), 0), coalesce(max(id), 0), pg_snapshot_xmax(pg_current_snapshot()) FROM ledger;
