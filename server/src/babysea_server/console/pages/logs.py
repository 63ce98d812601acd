"""Logs: the requests of the account's keys, searched, narrowed, exported. No bodies, no keys, no addresses."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from starlette.responses import Response

from babysea_server.accounts.roles import Action
from babysea_server.console import logs_store
from babysea_server.console.listing import Column, Listing, Page
from babysea_server.console.logs_store import Filter, Place
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.console.row_export import EXPORT_MAX, EXPORT_STEP, export
from babysea_server.keys import store as keys
from babysea_server.kit.clock import rfc3339

_COLUMNS = (
    Column("time", "Time", sort=True),
    Column("key", "Key"),
    Column("method", "Method"),
    Column("endpoint", "Endpoint"),
    Column("parameters", "Parameters"),
    Column("status", "Status"),
    Column("code", "Error code"),
    Column("replay", "Replay"),
    Column("ip_hash", "IP hash"),
    Column("user_agent", "User agent"),
    Column("duration", "Duration", kind="number"),
)
_PERIODS = {
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
_PERIOD_NAMES = [
    ("", "Any time"),
    ("1h", "Last hour"),
    ("24h", "Last 24 hours"),
    ("7d", "Last 7 days"),
    ("30d", "Last 30 days"),
]
_STATUSES = [("", "Any status"), ("2", "2xx"), ("4", "4xx"), ("5", "5xx")]
#: What is shown of a key's name beside its prefix, in a list of choices.
_NAME_SHOWN = 14
#: What is shown of an address: enough to see that two are the same.
_IP_HASH_LENGTH = 12
_EXPORTED = (
    "time",
    "request_id",
    "key_id",
    "key_name",
    "method",
    "endpoint",
    "parameters",
    "status",
    "error_code",
    "replay",
    "ip_hash",
    "user_agent",
    "duration_ms",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def routes() -> Sequence[Route]:
    """The routes of this page."""
    return [
        Route("GET", "/logs", Action.LOGS_VIEW, _list),
        Route("GET", "/logs/export.csv", Action.LOGS_EXPORT, _export),
        Route("GET", "/logs/export.json", Action.LOGS_EXPORT, _export),
    ]


def _listing(page: PageRequest) -> Listing:
    filters = ["status", "endpoint", "key", "code", "period"]
    return Listing.read(page.url("/logs"), page.query, sorts={"time": "at"}, default="-time", filters=filters)


def _filter(listing: Listing, now: datetime) -> Filter:
    """What the address narrows the log to; what makes no sense is as if it was not there."""
    chosen = listing.filters
    try:
        key = UUID(chosen["key"]) if "key" in chosen else None
    except ValueError:
        key = None
    period = _PERIODS.get(chosen.get("period", ""))
    return Filter(
        status_class=int(status) if (status := chosen.get("status")) in ("2", "4", "5") else None,
        endpoint=_stored(chosen.get("endpoint")),
        code=_stored(chosen.get("code")),
        key=key,
        since=None if period is None else now - period,
    )


def _stored(text: str | None) -> str | None:
    """A text as it may stand in the database, which has no NUL."""
    return text and text.replace("\0", "")


async def _list(page: PageRequest) -> Response:
    listing = _listing(page)
    result, unread = await _page(page, listing)
    names = {key.id: key for key in await keys.of_account(page.db, page.account_id)}
    endpoints, codes = await logs_store.seen(page.reads, page.account_id)
    exported = {"q": listing.q or None, "sort": "time" if not listing.descending else None, **listing.filters}
    return await page.render(
        "logs.html",
        listing=listing,
        result=result,
        unread=unread,
        columns=_COLUMNS,
        keys=names,
        ip_hash=_ip_hash,
        statuses=_STATUSES,
        periods=_PERIOD_NAMES,
        endpoints=_choices(
            "Any endpoint", listing.filters.get("endpoint"), [(each, _short(each)) for each in endpoints]
        ),
        codes=_choices("Any error", listing.filters.get("code"), [(each, each) for each in codes]),
        key_choices=_choices(
            "Any key",
            listing.filters.get("key"),
            [(str(key.id), f"{key.name[:_NAME_SHOWN]} {key.prefix}…") for key in names.values()],
        ),
        exports=[(kind, page.url(f"/logs/export.{kind.lower()}", **exported)) for kind in ("CSV", "JSON")],
        export_max=EXPORT_MAX,
        keep_days=page.region.settings.request_log_days,
    )


def _short(endpoint: str) -> str:
    """An endpoint as one of a list's choices, which are as wide as the longest of them."""
    return re.sub(r"\{\w+\}", "…", endpoint.replace("/v1/", ""))


def _choices(any: str, chosen: str | None, known: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """What a list can be narrowed to, and whatever it is narrowed to now, e.g. a deleted key."""
    others = [(chosen, chosen)] if chosen and chosen not in dict(known) else []
    return [("", any), *known, *others]


async def _page(page: PageRequest, listing: Listing) -> tuple[Page[Any], datetime | None]:
    """One page of requests, and the hour before which the search was given up for now."""
    if listing.q:
        row = await logs_store.by_id(page.db, page.account_id, listing.q)
        return Page([row] if row else [], total=1 if row else 0), None
    descending = listing.descending
    found = await logs_store.page(
        page.reads,
        page.account_id,
        _filter(listing, page.now),
        after=_place(listing.cursor),
        descending=descending,
        limit=listing.size + 1,
    )
    rows = found.rows[: listing.size]
    if len(found.rows) > listing.size:
        following = _cursor(Place(rows[-1]["at"], rows[-1]["request_id"]))
    elif found.unread is not None:
        following = _cursor(logs_store.beyond(found.unread, descending=descending))
    else:
        following = None
    return Page(rows, next_cursor=following), found.unread


def _cursor(place: Place) -> str:
    """A place as the address has it: microseconds and the request's id."""
    return f"{(place.at - _EPOCH) // timedelta(microseconds=1)}.{place.request_id}"


def _place(cursor: str) -> Place | None:
    moment, dot, request_id = cursor.partition(".")
    if not (dot and moment.isascii() and moment.isdecimal() and len(moment) < 18):
        return None
    return Place(_EPOCH + timedelta(microseconds=int(moment)), request_id.replace("\0", ""))


def _ip_hash(row: Mapping[str, Any]) -> str:
    digest: bytes = row["ip_hash"]
    return digest.hex()[:_IP_HASH_LENGTH]


# ------------------------------------------------------------------------------- export


async def _export(page: PageRequest) -> Response:
    kind = page.request.url.path.rpartition(".")[2]
    return await export(f"logs.{kind}", _EXPORTED, _exported(page))


async def _exported(page: PageRequest) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    """The requests that the address asks for, from the first page on, some at a time."""
    listing = _listing(page)
    names = {key.id: key.name for key in await keys.of_account(page.db, page.account_id)}
    if listing.q:
        found, _ = await _page(page, listing)
        yield [_values(row, names) for row in found.rows]
        return
    which, after, left = _filter(listing, page.now), None, EXPORT_MAX
    descending = listing.descending
    while left:
        limit = min(EXPORT_STEP, left)
        some = await logs_store.page(
            page.reads, page.account_id, which, after=after, descending=descending, limit=limit
        )
        left -= len(some.rows)
        if some.rows:
            yield [_values(row, names) for row in some.rows]
        if len(some.rows) == limit:
            after = Place(some.rows[-1]["at"], some.rows[-1]["request_id"])
        elif some.unread is not None:
            after = logs_store.beyond(some.unread, descending=descending)
        else:
            return


def _values(row: Mapping[str, Any], names: Mapping[UUID, str]) -> Mapping[str, Any]:
    return {
        "time": rfc3339(row["at"]),
        "request_id": row["request_id"],
        "key_id": str(row["apikey_id"]),
        "key_name": names.get(row["apikey_id"]),
        "method": row["method"],
        "endpoint": row["endpoint"],
        "parameters": row["query"],
        "status": row["status"],
        "error_code": row["error_code"],
        "replay": row["replayed"],
        "ip_hash": _ip_hash(row),
        "user_agent": row["user_agent"],
        "duration_ms": row["duration_us"] / 1000,
    }
