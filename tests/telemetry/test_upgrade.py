"""A database of the version before roll-ups: its attempts are counted, and old processes go on writing."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.migrate import migrate

_ATTEMPTS = """
INSERT INTO accounts (id, name, plan) VALUES ('00000000-0000-0000-0000-000000000001', 'A', 'free');
INSERT INTO generations (id, account_id, apikey_id, model, media, inputs, provider_order, prediction_id, reserved,
                         expires_at)
VALUES ('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-000000000001', gen_random_uuid(), 'a/b',
        'image', '{}', '{fal}', gen_random_uuid(), 500, now());
INSERT INTO attempts (id, generation_id, account_id, model, attempt_order, provider, adapter, outcome, failure,
                      estimated_cost, submitted_at, resolved_at)
SELECT gen_random_uuid(), generation::uuid, '00000000-0000-0000-0000-000000000001', 'a/b', n, provider, 's',
       outcome::attempt_outcome, failure::failure_class, cost, '2026-04-27 23:30+00',
       CASE WHEN outcome <> 'pending' THEN timestamptz '2026-04-28 00:30+00' END
FROM (VALUES
    ('00000000-0000-0000-0000-00000000000a', 1, 'fal', 'failed', 'refused_busy', NULL),
    ('00000000-0000-0000-0000-00000000000a', 2, 'bfl', 'failed', 'bad_output', NULL),
    ('00000000-0000-0000-0000-00000000000a', 3, 'bfl', 'used', NULL, 40),
    ('00000000-0000-0000-0000-00000000000a', 4, 'bfl', 'pending', NULL, NULL),
    ('00000000-0000-0000-0000-00000000000b', 1, 'fal', 'used', NULL, NULL)  -- its generation is gone
) AS a (generation, n, provider, outcome, failure, cost);
"""


@pytest.fixture
async def old(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """Connection string of a database at revision 0002 with attempts in it."""
    dsn = await postgres.ensure_database("old")
    await migrate(dsn, to="0002")
    admin = await asyncpg.connect(dsn)
    await admin.execute(_ATTEMPTS)
    await admin.close()
    yield dsn
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    await admin.execute('DROP DATABASE "old" WITH (FORCE)')
    await admin.close()


async def test_attempts_from_before_are_priced_and_counted(old: str) -> None:
    await migrate(old)
    db = await asyncpg.connect(old)
    rows = await db.fetch(
        """SELECT day::text, provider, submissions, used, failed, estimated_cost, wasted_cost FROM usage_providers
           ORDER BY provider"""
    )
    assert [tuple(row) for row in rows] == [
        ("2026-04-27", "bfl", 3, 1, 1, 540, 500),
        ("2026-04-27", "fal", 2, 1, 1, 0, 0),
    ]
    assert await db.fetchval("SELECT estimated_cost FROM attempts WHERE outcome = 'pending'") == 500
    # A process of the old version does not know of costs.
    await db.execute(
        """INSERT INTO attempts (id, generation_id, account_id, model, attempt_order, provider, adapter)
           VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'a/b', 1, 'fal', 's')"""
    )
    assert await db.fetchval("SELECT sum(submissions) FROM usage_providers") == 6
    await db.close()
