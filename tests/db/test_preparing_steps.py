"""Preparing steps run while older processes work, so they only add; what they change is looked up in the database.

Not by reading SQL: a step may do what it likes, as long as all that was there before is there afterwards, and whatever
an older process writes is still taken.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.migrate import head, migrate
from babysea_server.db.migrations import known_revisions

#: Steps before the first release: no older process ever worked on what they made.
_BEFORE_RELEASE = {f"{number:04}" for number in range(1, 9)}

_OURS = "nspname !~ '^pg_' AND nspname <> 'information_schema'"
#: Everything that a process relies on, one line each: it may not go away.
_RELIED_ON = f"""
SELECT format('column %I.%I.%I %s', nspname, relname, attname, format_type(atttypid, atttypmod))
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
WHERE {_OURS} AND relkind IN ('r', 'p', 'v', 'm') AND attnum > 0 AND NOT attisdropped AND NOT relispartition
UNION ALL
SELECT format('default of %I.%I.%I', nspname, relname, attname)
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
WHERE {_OURS} AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped AND NOT relispartition
  AND (atthasdef OR attidentity <> '')
UNION ALL
SELECT format('function %I.%I(%s) returns %s', nspname, proname, pg_get_function_arguments(p.oid),
              pg_get_function_result(p.oid))
FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE {_OURS}
UNION ALL
SELECT format('value %L of %I.%I', enumlabel, nspname, typname)
FROM pg_enum e JOIN pg_type t ON t.oid = enumtypid JOIN pg_namespace n ON n.oid = typnamespace WHERE {_OURS}
UNION ALL
SELECT format('unique (%s) on %I.%I', array_to_string(ARRAY(
           SELECT pg_get_indexdef(indexrelid, k, true) FROM generate_series(1, indnkeyatts) k), ', '), nspname, relname)
       || coalesce(' where ' || pg_get_expr(indpred, indrelid), '')
FROM pg_index JOIN pg_class c ON c.oid = indrelid JOIN pg_namespace n ON n.oid = relnamespace
WHERE {_OURS} AND indisunique AND NOT relispartition
"""
#: Everything that refuses a row, one line each, with its table: it may not come to a table that was there.
_REFUSING = f"""
SELECT format('%I.%I', nspname, relname), format('%I is not null', attname)
FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
WHERE {_OURS} AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped AND NOT relispartition AND attnotnull
  AND NOT atthasdef AND attidentity = ''
UNION ALL
SELECT format('%I.%I', nspname, relname), 'constraint ' || pg_get_constraintdef(o.oid)
FROM pg_constraint o JOIN pg_class c ON c.oid = conrelid JOIN pg_namespace n ON n.oid = relnamespace
WHERE {_OURS} AND NOT relispartition AND contype <> 'n'
UNION ALL
SELECT format('%I.%I', nspname, relname), 'index ' || pg_get_indexdef(indexrelid)
FROM pg_index JOIN pg_class c ON c.oid = indrelid JOIN pg_namespace n ON n.oid = relnamespace
WHERE {_OURS} AND indisunique AND NOT relispartition
"""


class Look:
    """What a database is like at one moment."""

    def __init__(self, relied_on: set[str], refusing: set[tuple[str, str]]) -> None:
        self.relied_on = relied_on
        self.refusing = refusing

    @classmethod
    async def through(cls, connection: Any) -> "Look":
        """As a connection sees it."""
        relied_on = {row[0] for row in await connection.fetch(_RELIED_ON)}
        return cls(relied_on, {(row[0], row[1]) for row in await connection.fetch(_REFUSING)})


def breaks(before: Look, after: Look) -> list[str]:
    """What an older process would miss, and what it would be refused."""
    tables = {line.split()[1].rpartition(".")[0] for line in before.relied_on if line.startswith("column ")}
    gone = [f"gone: {line}" for line in before.relied_on - after.relied_on]
    refused = [
        f"refused now: {table}: {rule}" for table, rule in after.refusing - before.refusing if table in tables
    ]
    return sorted(gone + refused)


@pytest.fixture
async def empty(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    yield await postgres.ensure_database("steps")
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    await admin.execute('DROP DATABASE "steps" WITH (FORCE)')
    await admin.close()


async def test_no_preparing_step_takes_anything_from_an_older_process(empty: str) -> None:
    await migrate(empty, to=max(_BEFORE_RELEASE))
    connection = await asyncpg.connect(empty)
    try:
        for step in sorted(known_revisions() - _BEFORE_RELEASE):
            before = await Look.through(connection)
            await migrate(empty, to=step)
            found = breaks(before, await Look.through(connection))
            assert found == [], f"step {step} takes something away: make that a finishing step"
    finally:
        await connection.close()
    assert max(known_revisions()) == head()


_GOOD = [
    "ALTER TABLE generations ADD COLUMN note text",
    "ALTER TABLE generations ADD COLUMN note text NOT NULL DEFAULT ''",
    "ALTER TABLE accounts ALTER COLUMN name DROP NOT NULL",
    "CREATE INDEX note ON generations (model)",
    "CREATE TABLE notes (id uuid PRIMARY KEY, text text NOT NULL CHECK (text <> ''))",
    "CREATE FUNCTION note_v1(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
]
_BAD = [
    "ALTER TABLE generations DROP COLUMN model CASCADE",
    "ALTER TABLE generations RENAME COLUMN model TO kind",
    "ALTER TABLE generations RENAME TO makings",
    "ALTER TABLE generations ADD COLUMN note text NOT NULL",
    "ALTER TABLE generations ALTER COLUMN started_at SET NOT NULL",
    "ALTER TABLE generations ALTER COLUMN model TYPE varchar(100)",
    "ALTER TABLE generations ADD CHECK (model <> 'x')",
    "ALTER TABLE accounts ALTER COLUMN created_at DROP DEFAULT",
    "CREATE UNIQUE INDEX one ON generations (model)",
    "DROP TABLE ledger CASCADE",
    "DROP FUNCTION grant_credits_v1",
    "DROP TRIGGER IF EXISTS none ON ledger; ALTER TABLE accounts DROP COLUMN slug CASCADE",
]


async def test_steps_that_only_add_are_let_through(dsn: str) -> None:
    assert {step: found for step, found in (await _tried(dsn, _GOOD)).items() if found} == {}


async def test_steps_that_an_older_process_would_notice_are_found(dsn: str) -> None:
    assert [step for step, found in (await _tried(dsn, _BAD)).items() if not found] == []


async def _tried(dsn: str, steps: Sequence[str]) -> dict[str, list[str]]:
    """What each step breaks; none is kept."""
    connection = await asyncpg.connect(dsn)
    try:
        before = await Look.through(connection)
        found = {}
        for step in steps:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(step)
            found[step] = breaks(before, await Look.through(connection))
            await transaction.rollback()
        return found
    finally:
        await connection.close()
