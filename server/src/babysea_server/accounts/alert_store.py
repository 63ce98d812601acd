"""All SQL of low-balance alerts.

A ledger row tells by itself which thresholds it crossed: the balance before and after it. So an alert needs no state
beside the watermark of its account, and is armed exactly while the balance is at or above it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database

# ------------------------------------------------------------------------------- what an account is warned of


async def thresholds(
    db: Database | Any, account_id: UUID
) -> tuple[int, list[tuple[int, datetime | None]]] | None:
    """Balance and own thresholds of an account, highest first, each with when it last fired; None: no such account.

    Amounts are in micro-credits.
    """
    rows = await db.fetch(
        """SELECT a.credit_balance, c.threshold, c.fired_at
           FROM accounts a LEFT JOIN credit_alerts c ON c.account_id = a.id
           WHERE a.id = $1 ORDER BY c.threshold DESC""",
        account_id,
    )
    if not rows:
        return None
    own = [(row["threshold"], row["fired_at"]) for row in rows if row["threshold"] is not None]
    return rows[0]["credit_balance"], own


async def replace_thresholds(connection: Any, account_id: UUID, chosen: Sequence[int]) -> bool:
    """Make these the account's thresholds; whether there is such an account. What stays keeps when it fired."""
    if await lock(connection, account_id) is None:
        return False
    await connection.execute(
        "DELETE FROM credit_alerts WHERE account_id = $1 AND threshold <> ALL ($2::bigint[])",
        account_id,
        chosen,
    )
    await connection.execute(
        """INSERT INTO credit_alerts (account_id, threshold) SELECT $1, unnest($2::bigint[])
           ON CONFLICT DO NOTHING""",
        account_id,
        chosen,
    )
    return True


async def delete_threshold(db: Database, account_id: UUID, threshold: int) -> bool:
    """Remove one threshold; whether there was such a one."""
    return (
        await db.execute(
            "DELETE FROM credit_alerts WHERE account_id = $1 AND threshold = $2", account_id, threshold
        )
        == 1
    )


# ------------------------------------------------------------------------------- the position in the ledger


class Position(msgspec.Struct, frozen=True):
    """How far the ledger has been looked at. All are ids of ledger rows."""

    settled_id: int
    """Up to here for good."""
    seen_id: int
    """Up to here once, when rows in between might not have been committed."""
    complete: bool
    """Whether by now all rows up to `seen_id` are committed."""
    waiting: bool
    """Whether that is still to be waited for."""


# Transaction ids begin anew where a dump is restored: one that lies ahead says nothing.
_CLAIM = """
UPDATE credit_alert_scan SET claimed_at = now() WHERE claimed_at <= now() - make_interval(secs => $1)
RETURNING settled_id, seen_id, pg_snapshot_xmin(pg_current_snapshot()) >= seen_xid AS complete,
          pg_snapshot_xmin(pg_current_snapshot()) < seen_xid
              AND seen_xid <= pg_snapshot_xmax(pg_current_snapshot()) AS waiting
"""


async def claim(db: Database, *, seconds: float) -> Position | None:
    """Where to go on looking; None if somebody set about it in the last `seconds`."""
    row = await db.fetchrow(_CLAIM, seconds)
    return None if row is None else Position(**row)


class Page(msgspec.Struct, frozen=True):
    """Some ledger rows in the order of their ids."""

    rows: int
    last_id: int | None
    accounts: Sequence[UUID]
    """Those with rows in it that have not been looked at."""
    next_xid: str
    """Transactions that wrote ids up to `last_id` come before this one."""


_PAGE = """
WITH page AS MATERIALIZED (SELECT id, account_id FROM ledger WHERE id > $1 ORDER BY id LIMIT $2)
SELECT (SELECT count(*) FROM page) AS rows,
       (SELECT max(id) FROM page) AS last_id,
       ARRAY(SELECT p.account_id FROM page p LEFT JOIN credit_alert_watermarks w USING (account_id)
             WHERE w.ledger_id IS NULL OR w.ledger_id < p.id
             GROUP BY p.account_id ORDER BY p.account_id) AS accounts,
       pg_snapshot_xmax(pg_current_snapshot())::text AS next_xid
"""


async def page(db: Database, *, after: int, limit: int) -> Page:
    """The next `limit` ledger rows, read off the primary key."""
    return Page(**await db.fetchrow(_PAGE, after, limit))


async def note_position(db: Database, *, settled_id: int, seen_id: int, next_xid: str) -> None:
    """Keep how far the ledger has been looked at; a position never goes back."""
    await db.execute(
        """UPDATE credit_alert_scan SET settled_id = $1, seen_id = $2, seen_xid = $3::text::xid8
           WHERE settled_id <= $1""",
        settled_id,
        seen_id,
        next_xid,
    )


# ------------------------------------------------------------------------------- looking at accounts

# No lock that a reserve would wait for: the foreign key's goes together with changes of the balance.
_BEGIN = """
INSERT INTO credit_alert_watermarks (account_id, ledger_id) SELECT id, $2 FROM accounts WHERE id = ANY ($1)
ON CONFLICT DO NOTHING
"""

# Each account's rows from its own watermark, not from the page's beginning: a row that was committed late lies before.
# The bounds by the position change nothing but the plan, which then cannot read more than what is new.
_LOOK = """
WITH watched AS MATERIALIZED (
    SELECT w.account_id, w.ledger_id, coalesce(nullif(ARRAY(
        SELECT c.threshold FROM credit_alerts c WHERE c.account_id = w.account_id
    ), '{}'), ARRAY[$4::bigint]) AS thresholds
    FROM credit_alert_watermarks w WHERE w.account_id = ANY ($1)
), looked AS MATERIALIZED (
    SELECT w.account_id, w.ledger_id, new.last_id, new.crossed
    FROM watched w CROSS JOIN LATERAL (
        SELECT max(l.id) AS last_id, bool_or(l.kind = 'reserve' AND EXISTS (
            SELECT FROM unnest(w.thresholds) AS t (threshold)
            WHERE l.balance_after < t.threshold AND t.threshold <= l.balance_after + l.amount
        )) AS crossed
        FROM ledger l
        WHERE l.account_id = w.account_id AND l.id > w.ledger_id AND l.id > $2 AND l.id <= $3
    ) AS new
), passed AS (
    UPDATE credit_alert_watermarks w SET ledger_id = l.last_id FROM looked l
    WHERE w.account_id = l.account_id AND w.ledger_id = l.ledger_id AND NOT l.crossed
)
SELECT account_id FROM looked WHERE crossed ORDER BY account_id
"""


async def pass_quiet(
    db: Database, accounts: Sequence[UUID], *, after: int, upto: int, default: int
) -> list[UUID]:
    """Move the watermarks of accounts that crossed no threshold; returns those that did, untouched.

    Args:
        after: rows up to here have been looked at for good.
        upto: the last row to look at.
        default: the threshold of accounts without any, in micro-credits.
    """
    await db.execute(_BEGIN, accounts, after)
    return [row["account_id"] for row in await db.fetch(_LOOK, accounts, after, upto, default)]


async def lock(connection: Any, account_id: UUID) -> int | None:
    """The account's watermark, locked until the transaction ends; None: no such account.

    One that has no watermark begins where the ledger as a whole has been looked at.
    """
    await connection.execute(
        """INSERT INTO credit_alert_watermarks (account_id, ledger_id)
           SELECT a.id, s.settled_id FROM accounts a, credit_alert_scan s WHERE a.id = $1
           ON CONFLICT DO NOTHING""",
        account_id,
    )
    watermark: int | None = await connection.fetchval(
        "SELECT ledger_id FROM credit_alert_watermarks WHERE account_id = $1 FOR UPDATE", account_id
    )
    return watermark


class Walk(msgspec.Struct, frozen=True):
    """What an account's new rows say. Amounts are in micro-credits."""

    last_id: int
    balance: int
    crossed: Sequence[tuple[int, int]]
    """Each threshold that was crossed, highest first, with the balance after the last row that did."""


_WALK = """
WITH new AS MATERIALIZED (
    SELECT id, kind, amount, balance_after FROM ledger WHERE account_id = $1 AND id > $2 AND id <= $3
), watched AS (
    SELECT unnest(coalesce(nullif(ARRAY(
        SELECT threshold FROM credit_alerts WHERE account_id = $1
    ), '{}'), ARRAY[$4::bigint])) AS threshold
), crossed AS (
    SELECT DISTINCT ON (w.threshold) w.threshold, n.balance_after
    FROM watched w JOIN new n
        ON n.kind = 'reserve' AND n.balance_after < w.threshold AND w.threshold <= n.balance_after + n.amount
    ORDER BY w.threshold, n.id DESC
), fired AS (
    UPDATE credit_alerts a SET fired_at = now() FROM crossed c
    WHERE a.account_id = $1 AND a.threshold = c.threshold
), passed AS (
    UPDATE credit_alert_watermarks SET ledger_id = (SELECT max(id) FROM new)
    WHERE account_id = $1 AND EXISTS (SELECT FROM new)
)
SELECT id AS last_id, balance_after AS balance,
       (SELECT coalesce(jsonb_agg(jsonb_build_array(threshold, balance_after) ORDER BY threshold DESC), '[]')
        FROM crossed) AS crossed
FROM new ORDER BY id DESC LIMIT 1
"""


async def walk(connection: Any, account_id: UUID, *, after: int, upto: int, default: int) -> Walk | None:
    """Look at the rows after the locked watermark and move it past them; None: there are none."""
    row = await connection.fetchrow(_WALK, account_id, after, upto, default)
    if row is None:
        return None
    return Walk(row["last_id"], row["balance"], [(threshold, at) for threshold, at in row["crossed"]])


async def enqueue_event(connection: Any, account_id: UUID, event: str, data: Any) -> None:
    """Write a webhook message to whoever of the account subscribed, in the present transaction."""
    await connection.execute("SELECT enqueue_account_event_v1($1, $2, $3)", account_id, event, data)
