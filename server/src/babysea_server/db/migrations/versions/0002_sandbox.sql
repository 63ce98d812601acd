-- What the sandbox provider remembers. Like a real provider it knows nothing of our tables: a job has its own
-- id and the caller's reference, and every submission is a row, so that a second purchase would show.

CREATE SCHEMA sandbox;
CREATE TABLE sandbox.jobs (
    id          text        PRIMARY KEY,
    reference   text        NOT NULL,
    provider    text        NOT NULL,
    request     jsonb       NOT NULL,
    behavior    text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    ready_at    timestamptz NOT NULL,
    canceled_at timestamptz
);
CREATE INDEX jobs_by_reference ON sandbox.jobs (reference);
CREATE INDEX jobs_by_age ON sandbox.jobs (created_at);
