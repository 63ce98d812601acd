-- People: users, what they sign in with, their sessions, and their roles in accounts.
--
-- Secrets that people carry (session tokens, links, recovery codes) have so many random bits that their SHA-256 tells
-- nothing; passwords are kept as argon2id.

ALTER TABLE accounts ADD COLUMN slug text;
UPDATE accounts SET slug = slug_of_v1(name) || '-' || right(id::text, 8);
ALTER TABLE accounts
    ALTER COLUMN slug SET NOT NULL,
    ADD CONSTRAINT accounts_slug_form CHECK (slug ~ '^[a-z0-9](-?[a-z0-9]){0,62}$'),
    ADD CONSTRAINT accounts_slug_once UNIQUE (slug);
CREATE TRIGGER accounts_get_a_slug BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION give_slug();

CREATE TABLE account_pictures (
    account_id   uuid        PRIMARY KEY REFERENCES accounts ON DELETE CASCADE,
    content_type text        NOT NULL CHECK (content_type IN ('image/png', 'image/jpeg', 'image/webp')),
    content      bytea       NOT NULL CHECK (octet_length(content) <= 1048576),
    changed_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE users (
    id                  uuid        PRIMARY KEY,
    email               text        NOT NULL CHECK (char_length(email) BETWEEN 3 AND 320),
    name                text        NOT NULL CHECK (char_length(name) BETWEEN 1 AND 100),
    password            text,                          -- argon2id; NULL: signs in by a link until there is one
    password_changed_at timestamptz,
    totp_secret         bytea,                         -- sealed under the master key; NULL: no second step
    totp_pending        bytea,                         -- one that has been shown and not yet confirmed
    totp_step           bigint      NOT NULL DEFAULT 0, -- the last step of time that opened: none opens twice
    created_at          timestamptz NOT NULL DEFAULT now(),
    signed_in_at        timestamptz
);
CREATE UNIQUE INDEX users_email_once ON users (lower(email));

CREATE TABLE recovery_codes (
    user_id   uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    code_hash bytea       NOT NULL CHECK (octet_length(code_hash) = 32),
    used_at   timestamptz,
    PRIMARY KEY (user_id, code_hash)
);

-- ---------------------------------------------------------------------------------------------- sessions

CREATE TABLE sessions (
    id           uuid        PRIMARY KEY,
    token_hash   bytea       NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    user_id      uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    awaits_totp  boolean     NOT NULL DEFAULT false,  -- the password was right, the second step is to come
    created_at   timestamptz NOT NULL DEFAULT now(),
    seen_at      timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,                -- whatever happens; idle ones end before
    user_agent   text        NOT NULL DEFAULT '' CHECK (char_length(user_agent) <= 300),
    address_hash text        NOT NULL DEFAULT '',
    flash        jsonb                                -- what the next page tells once
);
CREATE INDEX sessions_of_user ON sessions (user_id, seen_at DESC);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- Each opens once, and not for long.
CREATE TABLE password_resets (
    token_hash bytea       PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    user_id    uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX password_resets_of_user ON password_resets (user_id);

CREATE TABLE sign_in_links (
    token_hash bytea       PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    user_id    uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX sign_in_links_of_user ON sign_in_links (user_id);

-- ---------------------------------------------------------------------------------------------- roles

CREATE TYPE membership_role AS ENUM ('primary-owner', 'owner', 'member');

CREATE TABLE memberships (
    account_id uuid            NOT NULL REFERENCES accounts ON DELETE CASCADE,
    user_id    uuid            NOT NULL REFERENCES users ON DELETE CASCADE,
    role       membership_role NOT NULL,
    created_at timestamptz     NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, user_id)
);
CREATE INDEX memberships_of_user ON memberships (user_id);
CREATE UNIQUE INDEX memberships_one_primary_owner ON memberships (account_id) WHERE role = 'primary-owner';

CREATE TABLE invitations (
    id          uuid            PRIMARY KEY,
    account_id  uuid            NOT NULL REFERENCES accounts ON DELETE CASCADE,
    email       text            NOT NULL CHECK (char_length(email) BETWEEN 3 AND 320),
    role        membership_role NOT NULL CHECK (role <> 'primary-owner'),
    token_hash  bytea           NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    invited_by  uuid            REFERENCES users ON DELETE SET NULL,  -- NULL: the operator
    created_at  timestamptz     NOT NULL DEFAULT now(),
    expires_at  timestamptz     NOT NULL,
    accepted_at timestamptz,
    revoked_at  timestamptz,
    CHECK (accepted_at IS NULL OR revoked_at IS NULL)
);
CREATE INDEX invitations_of_account ON invitations (account_id, created_at DESC);
-- Whoever is invited again gets a new link, and the old one is dead.
CREATE UNIQUE INDEX invitations_one_open ON invitations (account_id, lower(email))
    WHERE accepted_at IS NULL AND revoked_at IS NULL;
