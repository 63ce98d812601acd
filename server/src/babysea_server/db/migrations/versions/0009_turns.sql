-- Work that is done again and again by one of all workers: when somebody last took a turn at it.
CREATE TABLE periodic_turns (
    work     text PRIMARY KEY,
    taken_at timestamptz NOT NULL
);
