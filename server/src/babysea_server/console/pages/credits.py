"""Credits: the balance, how it came to be, and the ledger that says so. Also a generation's page."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from starlette.responses import Response

from babysea_server.accounts.roles import Action
from babysea_server.console import charts, credits_store, templating
from babysea_server.console.charts import Series
from babysea_server.console.credits_store import Entry
from babysea_server.console.listing import Column, Listing, Page
from babysea_server.console.metrics_store import Span
from babysea_server.console.pages.credits_generation import show_generation
from babysea_server.console.pages.metrics import chosen_period, period_choices, time_labels
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.console.row_export import EXPORT_MAX, EXPORT_STEP, export
from babysea_server.kit import money
from babysea_server.kit.clock import rfc3339

_COLUMNS = (
    Column("time", "Time", sort=True),
    Column("type", "Type"),
    Column("amount", "Amount", kind="number"),
    Column("balance", "Balance after", kind="number"),
    Column("model", "Model"),
    Column("generation", "Generation"),
    Column("description", "Description"),
)
_TYPES = [("", "All types"), *((kind, kind.capitalize()) for kind in credits_store.KINDS)]
_EXPORTED = (
    "time",
    "id",
    "type",
    "amount",
    "balance_change",
    "balance_after",
    "model",
    "generation_id",
    "description",
)


def routes() -> Sequence[Route]:
    """The routes of this page."""
    return [
        Route("GET", "/credits", Action.CREDITS_VIEW, _list),
        Route("GET", "/credits/export.csv", Action.CREDITS_EXPORT, _export),
        Route("GET", "/credits/export.json", Action.CREDITS_EXPORT, _export),
        Route("GET", "/generations/{generation_id}", Action.CREDITS_VIEW, show_generation),
    ]


def _listing(page: PageRequest) -> Listing:
    return Listing.read(
        page.url("/credits"), page.query, sorts={"time": "id"}, default="-time", filters=["type", "period"]
    )


async def _list(page: PageRequest) -> Response:
    listing = _listing(page)
    entries = await _entries(page, listing, _place(listing.cursor), listing.size + 1)
    rows = entries[: listing.size]
    period = chosen_period(page, "30d")
    span = Span.of(period, page.now)
    segments, current = period_choices(page, "/credits", period)
    exported = {
        "q": listing.q or None,
        "type": listing.filters.get("type"),
        "sort": None if listing.descending else "time",
    }
    return await page.render(
        "credits.html",
        listing=listing,
        narrowed=bool(listing.q or listing.filters.get("type")),
        result=Page(rows, next_cursor=str(rows[-1].id) if len(entries) > listing.size else None),
        columns=_COLUMNS,
        types=_TYPES,
        segments=segments,
        current=current,
        chart=await _chart(page, span),
        exports=[(kind, page.url(f"/credits/export.{kind.lower()}", **exported)) for kind in ("CSV", "JSON")],
        export_max=EXPORT_MAX,
    )


async def _entries(page: PageRequest, listing: Listing, after: int | None, limit: int) -> Sequence[Entry]:
    """What the address asks for; a generation is searched for by its whole id."""
    generation_id = None
    if listing.q:
        try:
            generation_id = UUID(listing.q)
        except ValueError:
            return ()
    kind = listing.filters.get("type")
    return await credits_store.ledger(
        page.db,
        page.account_id,
        kind=kind if kind in credits_store.KINDS else None,
        generation_id=generation_id,
        after=after,
        descending=listing.descending,
        limit=limit,
    )


def _place(cursor: str) -> int | None:
    return int(cursor) if cursor.isascii() and cursor.isdecimal() and len(cursor) < 19 else None


async def _chart(page: PageRequest, span: Span) -> Any:
    """The balance at the end of each slot; the last one is the present balance."""
    ends = [*span.moments()[1:], page.now]
    balances = await credits_store.balances(page.db, page.account_id, ends)
    return charts.lines(
        "Balance",
        time_labels(span),
        [Series("Balance", balances)],
        description="The balance at the end of each time. The figures are in the table below.",
        format=lambda micro: templating.credits(int(micro), 2),
        area=True,
    )


# ------------------------------------------------------------------------------- export


async def _export(page: PageRequest) -> Response:
    kind = page.request.url.path.rpartition(".")[2]
    return await export(f"credits.{kind}", _EXPORTED, _exported(page))


async def _exported(page: PageRequest) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
    """The rows that the address asks for, from the first page on, some at a time."""
    listing, after, left = _listing(page), None, EXPORT_MAX
    while left:
        limit = min(EXPORT_STEP, left)
        entries = await _entries(page, listing, after, limit)
        if entries:
            yield [_values(entry) for entry in entries]
        if len(entries) < limit:
            return
        after, left = entries[-1].id, left - limit


def _values(entry: Entry) -> Mapping[str, Any]:
    return {
        "time": rfc3339(entry.created_at),
        "id": entry.id,
        "type": entry.kind,
        "amount": money.credits(entry.amount),
        "balance_change": money.credits(entry.change),
        "balance_after": money.credits(entry.balance_after),
        "model": entry.model,
        "generation_id": entry.generation_id and str(entry.generation_id),
        "description": entry.description,
    }
