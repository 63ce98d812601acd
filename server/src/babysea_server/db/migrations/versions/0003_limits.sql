-- Counters of fixed windows that all API processes share where there is no Redis. Unlogged, because a crash of the
-- database may forget a minute of counting, and because it is written with every batch of requests.

CREATE UNLOGGED TABLE window_counts (
    key       text        NOT NULL,  -- what is counted, e.g. "rate:<account>"
    window_no bigint      NOT NULL,  -- unix time / length of the window
    count     bigint      NOT NULL,
    PRIMARY KEY (key, window_no)
) WITH (fillfactor = 50);
