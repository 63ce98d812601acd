-- Counters of fixed windows that all API processes share where there is no Redis. Unlogged, because a crash of the
-- database may forget a minute of counting, and because it is written with every batch of requests.

CREATE UNLOGGED TABLE window_counts (
    window_no bigint      NOT NULL,  -- unix time / length of the window, in whole windows
    key       text        NOT NULL,  -- what is counted, e.g. "rate:<account>"
    count     bigint      NOT NULL,
    PRIMARY KEY (window_no, key)     -- what is over is a range at its beginning
) WITH (fillfactor = 50);            -- room for the next version of a row beside it, without a new index entry
