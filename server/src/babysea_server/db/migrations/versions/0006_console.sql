-- What the console keeps beside people: activity, notices' channels, custom domains, payments.

-- What was done in an account, and by whom. It outlives the account and everybody in it.
CREATE TABLE activity (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id  uuid        NOT NULL,
    actor       text        NOT NULL CHECK (actor IN ('user', 'key', 'operator', 'system')),
    actor_id    uuid,                              -- of the user or the key
    actor_name  text        NOT NULL CHECK (char_length(actor_name) BETWEEN 1 AND 320),
    action      text        NOT NULL CHECK (action ~ '^[a-z_]+\.[a-z_]+$'),
    description text        NOT NULL CHECK (char_length(description) BETWEEN 1 AND 500),
    created_at  timestamptz NOT NULL DEFAULT now(),
    CHECK ((actor IN ('user', 'key')) = (actor_id IS NOT NULL))
);
CREATE INDEX activity_of_account ON activity (account_id, id DESC);

CREATE FUNCTION refuse_activity_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'activity rows are immutable' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER activity_is_append_only BEFORE UPDATE OR DELETE ON activity
    FOR EACH ROW EXECUTE FUNCTION refuse_activity_change();
CREATE TRIGGER activity_is_never_truncated BEFORE TRUNCATE ON activity
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_activity_change();

-- Kinds of notices that an account does not want as mail; without a row it does.
CREATE TABLE notice_channels (
    account_id uuid    NOT NULL REFERENCES accounts ON DELETE CASCADE,
    kind       text    NOT NULL,
    mail       boolean NOT NULL,
    PRIMARY KEY (account_id, kind)
);

CREATE TABLE custom_domains (
    id          uuid        PRIMARY KEY,
    account_id  uuid        NOT NULL UNIQUE REFERENCES accounts ON DELETE CASCADE,
    hostname    text        NOT NULL CHECK (hostname = lower(hostname) AND char_length(hostname) BETWEEN 4 AND 253),
    state       text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'active')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    checked_at  timestamptz,
    verified_at timestamptz,
    CHECK ((state = 'active') <= (verified_at IS NOT NULL))
);
-- Several may ask for a name; it belongs to the one who could set its DNS record.
CREATE UNIQUE INDEX custom_domains_once ON custom_domains (hostname) WHERE state = 'active';

CREATE TABLE billing_customers (
    account_id           uuid        PRIMARY KEY REFERENCES accounts ON DELETE CASCADE,
    customer_id          text        NOT NULL UNIQUE,  -- at the payment service
    subscription_id      text        UNIQUE,
    subscription_status  text,
    cancel_at_period_end boolean,
    currency             text,
    period_starts_at     timestamptz,
    period_ends_at       timestamptz,
    created_at           timestamptz NOT NULL DEFAULT now(),
    updated_at           timestamptz NOT NULL DEFAULT now()
);

-- Events of the payment service that have been carried out: each once.
CREATE TABLE stripe_events (
    id          text        PRIMARY KEY,
    type        text        NOT NULL,
    account_id  uuid,
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX stripe_events_by_age ON stripe_events (received_at);
