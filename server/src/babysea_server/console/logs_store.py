"""All SQL of the page Logs: pages of the request log by time, found through the roll-ups where they are narrowed.

The log has an index by account and time, and no other that a filter could use: each would cost every request. So the
hours that hold matching requests are looked up in the roll-ups, which have a few rows for each hour, and only these
hours of the log are read. Rows of the log that are read for one page are bounded; a page may come out short, and then
says how far it looked.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from babysea_server.db.pool import Database

#: Rows of the log that one page may read; the first hour is read however full it is.
READ_MAX = 40_000
_HOURS_MAX = 500

_COLUMNS = """r.at, r.request_id, r.apikey_id, r.method, r.endpoint, r.query, r.status, r.error_code, r.replayed,
    r.ip_hash, r.user_agent, r.duration_us"""


class Filter(msgspec.Struct, frozen=True):
    """Which requests are asked for; None is any."""

    status_class: int | None = None
    endpoint: str | None = None
    code: str | None = None
    key: UUID | None = None
    since: datetime | None = None

    @property
    def narrows(self) -> bool:
        """Whether requests are left out between others."""
        return any(value is not None for value in (self.status_class, self.endpoint, self.code, self.key))


class Place(msgspec.Struct, frozen=True):
    """A request in the order of the log."""

    at: datetime
    request_id: str


class Found(msgspec.Struct, frozen=True):
    """Requests of the log, in its order."""

    rows: Sequence[Any]
    unread: datetime | None = None
    """The next hour that may hold more, where the search was given up for this time."""


def _order(descending: bool) -> str:
    return "r.at DESC, r.request_id DESC" if descending else "r.at, r.request_id"


def _conditions(
    account_id: UUID, which: Filter, after: Place | None, descending: bool
) -> tuple[str, list[Any]]:
    """What a row of the log is like that is asked for, as SQL and its arguments.

    Only conditions that there are, so that the planner sees which days and which way through the index.
    """
    conditions, arguments = ["r.account_id = $1"], [account_id]

    def add(condition: str, *values: Any) -> None:
        places = [f"${len(arguments) + number}" for number in range(1, len(values) + 1)]
        conditions.append(condition.format(*places))
        arguments.extend(values)

    if which.since is not None:
        add("r.at >= {}", which.since)
    if which.status_class is not None:
        add("r.status / 100 = {}", which.status_class)
    if which.endpoint is not None:
        add("r.endpoint = {}", which.endpoint)
    if which.code is not None:
        add("r.error_code = {}", which.code)
    if which.key is not None:
        add("r.apikey_id = {}", which.key)
    if after is not None:
        sign = "<" if descending else ">"
        # The first half is what partitions and the index understand.
        add(f"r.at {sign}= {{0}} AND (r.at, r.request_id) {sign} ({{0}}, {{1}})", after.at, after.request_id)
    return " AND ".join(conditions), arguments


async def page(
    db: Database, account_id: UUID, which: Filter, *, after: Place | None, descending: bool, limit: int
) -> Found:
    """Requests in the order of time, at most `limit`."""
    conditions, arguments = _conditions(account_id, which, after, descending)
    order = _order(descending)
    place = len(arguments) + 1
    if not which.narrows:
        statement = f"""SELECT {_COLUMNS} FROM request_log r WHERE {conditions}
                        ORDER BY {order} LIMIT ${place}"""
        return Found(await db.fetch(statement, *arguments, limit))
    hours, unread = await _hours(db, account_id, which, after, descending=descending, limit=limit)
    rows = await db.fetch(
        f"""SELECT r.* FROM unnest(${place + 1}::timestamptz[]) AS h (hour) CROSS JOIN LATERAL (
                SELECT {_COLUMNS} FROM request_log r
                WHERE r.at >= h.hour AND r.at < h.hour + interval '1 hour' AND {conditions}
                ORDER BY {order} LIMIT ${place}
            ) AS r ORDER BY {order} LIMIT ${place}""",
        *arguments,
        limit,
        hours,
    )
    return Found(rows, unread if len(rows) < limit else None)


async def _hours(
    db: Database, account_id: UUID, which: Filter, after: Place | None, *, descending: bool, limit: int
) -> tuple[Sequence[datetime], datetime | None]:
    """The hours to be read for a page, and the next one that holds something, if the page may come out short.

    What the roll-ups count of a key they do not count by endpoint or code, so an hour may hold less than they say.
    """
    sign, direction = ("<=", "DESC") if descending else (">=", "ASC")
    rows = await db.fetch(
        f"""WITH keys AS MATERIALIZED (  -- its hours may have been condensed into their day
                SELECT hour FROM usage_keys WHERE account_id = $1 AND apikey_id = $7
                AND ($3::int IS NULL OR status_class = $3)
            ), hours AS (
                SELECT hour, sum(requests)::bigint AS requests, (sum(requests) FILTER (WHERE
                    ($3::int IS NULL OR status_class = $3) AND ($4::text IS NULL OR endpoint = $4)
                    AND ($5::text IS NULL OR error_code = $5)))::bigint AS matching
                FROM usage_hourly u
                WHERE account_id = $1 AND ($2::timestamptz IS NULL OR hour >= date_trunc('hour', $2, 'UTC'))
                  AND ($6::timestamptz IS NULL OR hour {sign} date_trunc('hour', $6, 'UTC'))
                  AND ($7::uuid IS NULL OR hour IN (SELECT hour FROM keys)
                       OR date_trunc('day', hour, 'UTC') IN (SELECT hour FROM keys))
                GROUP BY hour
            )
            SELECT hour, requests, matching FROM hours WHERE matching > 0 ORDER BY hour {direction} LIMIT $8""",
        account_id,
        which.since,
        which.status_class,
        which.endpoint,
        which.code,
        after and after.at,
        which.key,
        _HOURS_MAX + 1,
    )
    hours: list[datetime] = []
    promised = read = 0
    for number, row in enumerate(rows):
        if hours and (promised >= limit or read + row["requests"] > READ_MAX or number == _HOURS_MAX):
            return hours, row["hour"]
        hours.append(row["hour"])
        read += row["requests"]
        # The first hour may lie partly before the place, the oldest one partly before the period.
        if which.key is None and number > 0:
            promised += row["matching"]
    return hours, None


def beyond(unread: datetime, *, descending: bool) -> Place:
    """The place from which a search goes on with an hour that has not been read."""
    if descending:
        return Place(unread + timedelta(hours=1) - timedelta(microseconds=1), "z")  # after all ids
    return Place(unread, "")


async def by_id(db: Database, account_id: UUID, request_id: str) -> Any:
    """One request of the account, or None."""
    return await db.fetchrow(
        f"SELECT {_COLUMNS} FROM request_log r WHERE r.request_id = $2 AND r.account_id = $1",
        account_id,
        request_id,
    )


async def seen(db: Database, account_id: UUID) -> tuple[Sequence[str], Sequence[str]]:
    """The endpoints and the error codes that the account's requests of the last 90 days have had."""
    row = await db.fetchrow(
        """SELECT array_agg(DISTINCT endpoint ORDER BY endpoint) AS endpoints,
                  array_agg(DISTINCT error_code ORDER BY error_code) FILTER (WHERE error_code <> '') AS codes
           FROM usage_daily WHERE account_id = $1 AND day >= (now() AT TIME ZONE 'UTC')::date - 90""",
        account_id,
    )
    return row["endpoints"] or (), row["codes"] or ()
