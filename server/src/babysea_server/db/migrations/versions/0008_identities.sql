-- Signing in through the operator's identity provider (OpenID Connect).

-- By subject, which an issuer never gives to somebody else; addresses change hands.
CREATE TABLE identities (
    issuer     text        NOT NULL,
    subject    text        NOT NULL CHECK (char_length(subject) BETWEEN 1 AND 255),
    user_id    uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (issuer, subject),
    UNIQUE (user_id, issuer)
);
