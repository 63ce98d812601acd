"""All SQL of the ledger outside admission and settlement (those are functions of the database)."""

from collections.abc import Sequence
from uuid import UUID

from babysea_server.db.pool import Database
from babysea_server.kit.faults import NotFoundError


def check_addition(amount_micro: int) -> None:
    """What may be added.

    Raises:
        ValueError: amount not positive.
    """
    if amount_micro <= 0:
        raise ValueError("credits to add must be more than zero")


async def add(db: Database, account_id: UUID, amount_micro: int, description: str) -> int:
    """Add credits; returns the new balance in micro-credits.

    Raises:
        ValueError: amount not positive.
        NotFoundError: no such account.
    """
    check_addition(amount_micro)
    balance: int | None = await db.fetchval(
        "SELECT balance FROM add_credits_v1($1, $2, $3)", account_id, amount_micro, description
    )
    if balance is None:
        raise NotFoundError(f"no account {account_id} in this region")
    return balance


#: Each check: what is promised, and a query whose rows are the places where it does not hold.
CHECKS: Sequence[tuple[str, str]] = (
    (
        "balance = adds - reserves + refunds",
        """SELECT a.id::text AS account, NULL AS generation,
                  format('balance is %s, the ledger says %s', a.credit_balance, coalesce(l.total, 0)) AS difference
           FROM accounts a LEFT JOIN (
               SELECT account_id, sum(CASE kind WHEN 'add' THEN amount WHEN 'refund' THEN amount
                                                WHEN 'reserve' THEN -amount ELSE 0 END) AS total
               FROM ledger GROUP BY account_id
           ) l ON l.account_id = a.id
           WHERE a.credit_balance <> coalesce(l.total, 0)""",
    ),
    (
        "each row's balance_after follows from the rows before it",
        """SELECT account_id::text AS account, generation_id::text AS generation,
                  format('row %s says %s after it, its predecessors say %s', id, balance_after, running) AS difference
           FROM (
               SELECT id, account_id, generation_id, balance_after,
                      sum(CASE kind WHEN 'add' THEN amount WHEN 'refund' THEN amount
                                    WHEN 'reserve' THEN -amount ELSE 0 END)
                          OVER (PARTITION BY account_id ORDER BY id) AS running
               FROM ledger
           ) r WHERE balance_after <> running""",
    ),
    (
        "a generation's ledger rows say what its own row says",
        """SELECT g.account_id::text AS account, g.id::text AS generation,
                  format('%s: row has reserved %s, charged %s, refunded %s; ledger has %s, %s, %s', g.status,
                         g.reserved, g.charged, g.refunded, l.reserve, l.charge, l.refund) AS difference
           FROM generations g LEFT JOIN LATERAL (
               SELECT coalesce(sum(amount) FILTER (WHERE kind = 'reserve'), 0) AS reserve,
                      coalesce(sum(amount) FILTER (WHERE kind = 'charge'), 0) AS charge,
                      coalesce(sum(amount) FILTER (WHERE kind = 'refund'), 0) AS refund
               FROM ledger WHERE generation_id = g.id
           ) l ON true
           WHERE (g.reserved, g.charged, g.refunded) <> (l.reserve, l.charge, l.refund)""",
    ),
    (
        "once final, charge + refund = reserve; succeeded is charged, failed and canceled are refunded whole",
        """SELECT account_id::text AS account, id::text AS generation,
                  format('%s with reserved %s, charged %s, refunded %s', status, reserved, charged, refunded)
                      AS difference
           FROM generations WHERE CASE status
               WHEN 'succeeded' THEN charged + refunded <> reserved OR (charged = 0 AND reserved > 0)
               WHEN 'failed' THEN charged <> 0 OR refunded <> reserved
               WHEN 'canceled' THEN charged <> 0 OR refunded <> reserved
               ELSE charged <> 0 OR refunded <> 0 END""",
    ),
    (
        "one reserve, at most one charge and one refund for a generation",
        """SELECT min(account_id::text) AS account, generation_id::text AS generation,
                  format('%s %s rows', count(*), kind) AS difference
           FROM ledger WHERE generation_id IS NOT NULL GROUP BY generation_id, kind HAVING count(*) > 1""",
    ),
    (
        "never more charged and refunded than reserved, and all of it once the generation is deleted",
        """SELECT account, l.generation_id::text AS generation,
                  format('reserved %s, charged and refunded %s', l.reserved, l.resolved) AS difference
           FROM (
               SELECT generation_id, min(account_id::text) AS account,
                      coalesce(sum(amount) FILTER (WHERE kind = 'reserve'), 0) AS reserved,
                      coalesce(sum(amount) FILTER (WHERE kind IN ('charge', 'refund')), 0) AS resolved
               FROM ledger WHERE generation_id IS NOT NULL GROUP BY generation_id
           ) l LEFT JOIN generations g ON g.id = l.generation_id
           WHERE l.resolved > l.reserved OR (g.id IS NULL AND l.resolved <> l.reserved)""",
    ),
    (
        "accounts count their generations",
        """SELECT a.id::text AS account, NULL AS generation,
                  format('counts %s, has %s', a.generations_total, coalesce(g.total, 0)) AS difference
           FROM accounts a LEFT JOIN (
               SELECT account_id, count(*) AS total FROM generations GROUP BY account_id
           ) g ON g.account_id = a.id
           WHERE a.generations_total <> coalesce(g.total, 0)""",
    ),
    (
        "each grant names an addition to its account",
        """SELECT g.account_id::text AS account, NULL AS generation,
                  format('grant %s names row %s, which is none', g.source, g.ledger_id) AS difference
           FROM credit_grants g LEFT JOIN ledger l
               ON l.id = g.ledger_id AND l.account_id = g.account_id AND l.kind = 'add'
           WHERE l.id IS NULL""",
    ),
)
