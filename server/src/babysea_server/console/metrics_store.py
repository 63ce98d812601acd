"""All SQL of the page Metrics: sums of roll-ups, so that it costs the same whatever the traffic was."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database


class Span(msgspec.Struct, frozen=True):
    """What time a page of charts shows, in equal slots; the last one is the present one."""

    since: datetime
    slot: timedelta
    slots: int

    @classmethod
    def of(cls, period: str, now: datetime) -> "Span":
        """The slots of `24h`, `7d`, `30d` or `90d`: hours, quarters of days, days, in UTC."""
        hours, slots = {"24h": (1, 24), "7d": (6, 28), "30d": (24, 30), "90d": (24, 90)}[period]
        utc = now.astimezone(UTC)
        present = utc.replace(hour=utc.hour // hours * hours, minute=0, second=0, microsecond=0)
        slot = timedelta(hours=hours)
        return cls(present - slot * (slots - 1), slot, slots)

    @property
    def by_days(self) -> bool:
        """Whether slots are whole days."""
        return self.slot >= timedelta(days=1)

    def moments(self) -> Sequence[datetime]:
        """The beginnings of the slots."""
        return [self.since + self.slot * number for number in range(self.slots)]

    def place(self, moment: datetime) -> int:
        """The slot that a moment lies in."""
        return (moment - self.since) // self.slot


#: `/v1/usage` counts by the day too, so days need not be added up from hours.
_BY_HOURS = "SELECT hour AS at, * FROM usage_hourly WHERE account_id = $1 AND hour >= $2"
_BY_DAYS = """SELECT day::timestamp AT TIME ZONE 'UTC' AS at, * FROM usage_daily
    WHERE account_id = $1 AND day >= ($2 AT TIME ZONE 'UTC')::date"""


async def requests(db: Database, account_id: UUID, span: Span) -> list[Any]:
    """Requests by time and class of their status; by endpoint and class; by endpoint and error code.

    Each row has `requests` and those of `at`, `status_class`, `endpoint`, `error_code` that it is counted by.
    """
    return await db.fetch(
        f"""SELECT date_bin($3, at, $2) AS at, endpoint, status_class, error_code, sum(requests)::bigint AS requests
            FROM ({_BY_DAYS if span.by_days else _BY_HOURS}) AS u
            GROUP BY GROUPING SETS ((date_bin($3, at, $2), status_class), (endpoint, status_class),
                                    (endpoint, error_code))""",
        account_id,
        span.since,
        span.slot,
    )


async def latencies(db: Database, account_id: UUID, span: Span) -> list[Any]:
    """Requests by bucket of their duration: by time, and by endpoint; `at` or `endpoint` is None."""
    return await db.fetch(
        """SELECT date_bin($3, hour, $2) AS at, endpoint, bucket, sum(requests)::bigint AS requests
           FROM usage_latency WHERE account_id = $1 AND hour >= $2
           GROUP BY GROUPING SETS ((date_bin($3, hour, $2), bucket), (endpoint, bucket))""",
        account_id,
        span.since,
        span.slot,
    )


async def keys(db: Database, account_id: UUID, span: Span, *, limit: int) -> list[Any]:
    """The keys with the most requests, also deleted ones: `apikey_id`, `name`, `prefix`, and requests by class."""
    return await db.fetch(
        """SELECT u.*, k.name, k.prefix FROM (
               SELECT apikey_id, sum(requests)::bigint AS requests,
                      coalesce(sum(requests) FILTER (WHERE status_class = 2), 0)::bigint AS succeeded,
                      coalesce(sum(requests) FILTER (WHERE status_class = 4), 0)::bigint AS client_errors,
                      coalesce(sum(requests) FILTER (WHERE status_class = 5), 0)::bigint AS server_errors
               FROM usage_keys WHERE account_id = $1 AND hour >= $2 GROUP BY apikey_id
               ORDER BY requests DESC, apikey_id LIMIT $3
           ) AS u LEFT JOIN api_keys k ON k.id = u.apikey_id AND k.account_id = $1
           ORDER BY u.requests DESC, u.apikey_id""",
        account_id,
        span.since,
        limit,
    )


async def generations(db: Database, account_id: UUID, span: Span) -> list[Any]:
    """Ended generations by time and status; by model and status; by provider; by error code of the failed ones.

    Each row has `generations`, `charged` in micro-credits, `total_ms`, and those of `at`, `status`, `model`,
    `provider`, `error_code` that it is counted by.
    """
    return await db.fetch(
        """SELECT date_bin($3, hour, $2) AS at, status::text AS status, model, provider, error_code,
                  sum(generations)::bigint AS generations, sum(charged)::bigint AS charged,
                  sum(total_ms)::bigint AS total_ms
           FROM usage_generations WHERE account_id = $1 AND hour >= $2
           GROUP BY GROUPING SETS ((date_bin($3, hour, $2), status), (model, status), (provider), (error_code))""",
        account_id,
        span.since,
        span.slot,
    )


async def failovers(db: Database, account_id: UUID, span: Span) -> list[Any]:
    """How often the failure of one provider led to another one, and why; most often first."""
    return await db.fetch(
        """SELECT provider, next_provider, reason, sum(failovers)::bigint AS failovers
           FROM usage_failovers WHERE account_id = $1 AND hour >= $2
           GROUP BY provider, next_provider, reason ORDER BY failovers DESC, 1, 2, 3 LIMIT 50""",
        account_id,
        span.since,
    )


async def standing(db: Database, account_id: UUID) -> Any:
    """Plan, balance and period of an account, what was charged in the period, and what is in flight.

    What was charged is counted from the beginning of the hour in which the period began; without a period, from the
    beginning of the day 30 days ago.
    """
    return await db.fetchrow(
        """SELECT a.plan, a.credit_balance, a.period_starts_at, a.period_ends_at, (
               SELECT coalesce(sum(charged), 0)::bigint FROM usage_generations u WHERE u.account_id = a.id
               AND hour >= coalesce(date_trunc('hour', a.period_starts_at, 'UTC'),
                                date_trunc('day', now() - interval '30 days', 'UTC'))
           ) AS charged, (
               SELECT count(*) FROM generations g
               WHERE g.account_id = a.id AND g.status IN ('pending', 'processing')
           ) AS in_flight
           FROM accounts a WHERE a.id = $1""",
        account_id,
    )
