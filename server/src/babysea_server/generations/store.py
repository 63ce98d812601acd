"""All SQL of admitting, reading, canceling and removing generations. What moves one on is in `execution.store`."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database

_COLUMNS = """id, account_id, model, media::text AS media, inputs, provider_order, prediction_id,
    status::text AS status, provider_used, outputs, error_code, error_message, predict_ms, created_at, started_at,
    completed_at, files_removed_at"""

#: Statuses after which nothing follows.
FINAL = frozenset({"succeeded", "failed", "canceled"})

_ADMIT = """SELECT n, result::text AS result, generation_id, model, provider_order, prediction_id,
        status::text AS status, balance, in_flight
    FROM admit_generations_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ORDER BY n"""


async def by_ids(db: Database, accounts: Collection[UUID], ids: Collection[UUID]) -> list[Any]:
    """These generations, as far as they exist and belong to one of these accounts.

    The accounts are asked for here, not sorted out later: a foreign row that is read and decoded takes measurably
    longer than a missing one.
    """
    return await db.fetch(
        f"SELECT {_COLUMNS} FROM generations WHERE id = ANY ($1::uuid[]) AND account_id = ANY ($2::uuid[])",
        list(ids),
        list(accounts),
    )


async def page(db: Database, account_id: UUID, *, limit: int, offset: int) -> tuple[list[Any], int]:
    """A page of the account's generations, newest first, and how many there are in all.

    The page's ids are found in the index alone; what is passed over is never read from the table, which is ten times
    slower a million rows down.
    """
    rows = await db.fetch(
        f"""SELECT {_COLUMNS} FROM generations WHERE id = ANY (ARRAY(
                SELECT id FROM generations WHERE account_id = $1 ORDER BY id DESC LIMIT $2 OFFSET $3))
            ORDER BY id DESC""",
        account_id,
        limit,
        offset,
    )
    total: int | None = await db.fetchval("SELECT generations_total FROM accounts WHERE id = $1", account_id)
    return rows, total or 0


async def admit(db: Database, deadline: datetime, columns: Sequence[Sequence[Any]]) -> list[Any]:
    """Decide a batch: `columns` are the parallel arrays of `admit_generations_v1` after the deadline.

    Raises:
        DatabaseUnavailableError: with `sent=True` the outcome is not known.
        asyncpg.PostgresError: the batch was rolled back whole.
    """
    return await db.fetch(_ADMIT, deadline, *columns)


async def admitted(
    db: Database, deadline: datetime, accounts: Sequence[UUID], ids: Sequence[UUID]
) -> tuple[set[UUID], bool]:
    """Which of these generations were admitted, and whether that is the last word on all of them.

    Args:
        deadline: what `admit` was called with.
        accounts: whose generations they are.

    Raises:
        DatabaseUnavailableError, asyncpg.LockNotAvailableError: not to be known now.
    """
    row = await db.fetchrow(
        "SELECT admitted, certain FROM admitted_generations_v1($1, $2, $3)",
        deadline,
        list(accounts),
        list(ids),
    )
    return set(row["admitted"]), row["certain"]


# ------------------------------------------------------------------------------------------- ending and removing


async def cancel(db: Database, account_id: UUID, generation_id: UUID) -> Any:
    """Cancel and refund what is in flight; the row of `cancel_generation_v1`, or None where there is none."""
    return await db.fetchrow("SELECT * FROM cancel_generation_v1($1, $2)", account_id, generation_id)


async def delete(db: Database, account_id: UUID, generation_id: UUID) -> list[str] | None:
    """Delete a final generation; the keys of the files it named, or None where there is none."""
    row = await db.fetchrow(
        "SELECT files FROM remove_generations_v1(ARRAY[$1::uuid], ARRAY[$2::uuid], false)",
        account_id,
        generation_id,
    )
    return None if row is None else row["files"]


def file_keys(row: Mapping[str, Any]) -> list[str]:
    """Keys of the files that a generation's row names."""
    return [] if row["files_removed_at"] is not None else [file["key"] for file in row["outputs"] or ()]


async def remove_old_files(
    db: Database, plan: str, after: UUID, hours: int, *, accounts: int, limit: int
) -> tuple[UUID | None, int]:
    """One step of `remove_old_files_v1`: the last account looked at, and how many generations lost their files."""
    row = await db.fetchrow(
        "SELECT last_account, removed FROM remove_old_files_v1($1, $2, $3, $4, $5)",
        plan,
        after,
        accounts,
        hours,
        limit,
    )
    return row["last_account"], row["removed"]


async def remove_old_records(
    db: Database, plan: str, after: UUID, days: int, *, accounts: int, limit: int
) -> tuple[UUID | None, int]:
    """One step of `remove_old_records_v1`: the last account looked at, and how many generations were removed."""
    row = await db.fetchrow(
        "SELECT last_account, removed FROM remove_old_records_v1($1, $2, $3, $4, $5)",
        plan,
        after,
        accounts,
        days,
        limit,
    )
    return row["last_account"], row["removed"]


# ------------------------------------------------------------------------------------------- files


async def claim_file_deletions(db: Database, *, limit: int) -> list[str]:
    """Keys whose deletion is due. They are due again after a pause that grows from a minute to six hours."""
    rows = await db.fetch(
        """UPDATE file_deletions
           SET tries = tries + 1, due_at = now() + least(interval '6 hours', interval '1 minute' * 2 ^ least(tries, 10))
           WHERE key IN (SELECT key FROM file_deletions WHERE due_at <= now() ORDER BY due_at LIMIT $1
                         FOR UPDATE SKIP LOCKED)
           RETURNING key""",
        limit,
    )
    return [row["key"] for row in rows]


async def forget_files(db: Database, keys: Sequence[str]) -> None:
    """These files are deleted."""
    await db.execute("DELETE FROM file_deletions WHERE key = ANY ($1::text[])", keys)


class SweepPlace(msgspec.Struct, frozen=True):
    """Where the search for orphaned files goes on: in this day, after this key."""

    day: date
    after: str


async def claim_sweep(db: Database) -> SweepPlace | None:
    """The next page to be looked at, for two minutes; None when another worker is at it, or all is done.

    Two days after its own nothing of a day is in flight: a generation's hard limit is hours.
    """
    row = await db.fetchrow(
        """UPDATE file_sweep SET claimed_until = now() + interval '2 minutes'
           WHERE claimed_until < now() AND day < (now() AT TIME ZONE 'UTC')::date - 2 RETURNING day, after"""
    )
    return None if row is None else SweepPlace(row["day"], row["after"])


_FINISH_SWEEP = """
WITH advanced AS (
    UPDATE file_sweep SET day = CASE WHEN $5::text IS NULL THEN day + 1 ELSE day END, after = coalesce($5, ''),
        claimed_until = '-infinity'
    WHERE day = $3 AND after = $4 RETURNING 1
), orphaned AS (
    INSERT INTO file_deletions (key)
    SELECT f.key FROM unnest($1::text[], $2::uuid[]) AS f (key, generation_id)
        LEFT JOIN generations g ON g.id = f.generation_id
    WHERE EXISTS (SELECT FROM advanced)
      -- The ledger outlives the generation, so it tells whose a file was.
      AND CASE WHEN g.id IS NULL THEN EXISTS (SELECT FROM ledger WHERE generation_id = f.generation_id)
          ELSE g.status IN ('succeeded', 'failed', 'canceled') AND NOT (
              g.files_removed_at IS NULL
              AND coalesce(g.outputs, '[]') @> jsonb_build_array(jsonb_build_object('key', f.key))) END
    ON CONFLICT (key) DO NOTHING RETURNING 1
)
SELECT count(*) FROM orphaned
"""


async def finish_sweep(
    db: Database, place: SweepPlace, files: Sequence[tuple[str, UUID]], *, after: str | None
) -> int:
    """Give up the files of a page that no generation names, and go on.

    Args:
        files: keys of the page with the generations they were stored for.
        after: the last key of the page; None when it was the day's last page.

    Returns how many files were given up.
    """
    count: int = await db.fetchval(
        _FINISH_SWEEP, [key for key, _ in files], [id for _, id in files], place.day, place.after, after
    )
    return count
