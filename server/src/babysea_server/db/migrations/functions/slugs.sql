-- The name of an account in addresses of the console.

-- Lower-case ASCII letters, digits and single hyphens, from whatever the account is called.

CREATE OR REPLACE FUNCTION slug_of_v1(p_name text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(btrim(left(btrim(
        regexp_replace(regexp_replace(lower(normalize(p_name, NFKD)), '[\u0300-\u036f]', '', 'g'), '[^a-z0-9]+', '-', 'g'), '-'), 40), '-'), ''), 'account')
$$;

-- Whoever inserts an account without one (a command, an import) gets one that nobody else takes at the same time.

CREATE OR REPLACE FUNCTION give_slug() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.slug IS NULL THEN
        NEW.slug := slug_of_v1(NEW.name) || '-' || right(NEW.id::text, 8);
    END IF;
    RETURN NEW;
END $$;
