"""Activity: what was done in the account and by whom; it is only ever added to."""

from collections.abc import AsyncIterator, Sequence

from starlette.responses import Response

from babysea_server.accounts import member_store
from babysea_server.accounts.activity import CATEGORIES, Entry
from babysea_server.accounts.roles import Action
from babysea_server.console import activity_store
from babysea_server.console.activity_store import Found, Wanted
from babysea_server.console.listing import Column, Listing, Page
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.console.row_export import EXPORT_STEP, Row, export
from babysea_server.console.templating import iso

#: Entries of one export at most, the newest.
EXPORT_MAX = 100_000

_COLUMNS = (
    Column("description", "What was done"),
    Column("action", "Action"),
    Column("actor", "Actor"),
    Column("created", "Time", sort=True),
)
_CATEGORY_NAMES = {"api_key": "API key", "auth": "Sign-in", "credit_alert": "Credit alert"}
_ACTOR_KINDS = [("key", "Any API key"), ("operator", "The operator"), ("system", "BabySea")]
_FIELDS = ("id", "created_at", "actor", "actor_id", "actor_name", "action", "description")


def routes() -> Sequence[Route]:
    """The routes of this page."""
    return [
        Route("GET", "/activity", Action.ACTIVITY_VIEW, _list),
        Route("GET", "/activity/export.csv", Action.ACTIVITY_EXPORT, _csv),
        Route("GET", "/activity/export.json", Action.ACTIVITY_EXPORT, _json),
    ]


def _listing(page: PageRequest) -> Listing:
    return Listing.read(
        page.url("/activity"),
        page.query,
        sorts={"created": "id"},
        default="-created",
        filters=["category", "actor"],
    )


def _wanted(listing: Listing) -> Wanted:
    return Wanted(listing.filters.get("category"), listing.filters.get("actor"), listing.q)


async def _list(page: PageRequest) -> Response:
    listing = _listing(page)
    cursor = listing.cursor
    found = await activity_store.search(
        page.db,
        page.account_id,
        _wanted(listing),
        limit=listing.size,
        after=int(cursor) if cursor.isascii() and cursor.isdecimal() and len(cursor) < 19 else None,
        descending=listing.descending,
    )
    exported = {"q": listing.q or None, **listing.filters}
    return await page.render(
        "activity.html",
        listing=listing,
        result=Page(found.entries, next_cursor=None if found.next is None else str(found.next)),
        columns=_COLUMNS,
        categories=[
            ("", "All categories"),
            *((name, _CATEGORY_NAMES.get(name, name.capitalize())) for name in CATEGORIES),
        ],
        actors=await _actors(page, listing, found),
        exports=[
            (kind, page.url(f"/activity/export.{kind.lower()}", **exported)) for kind in ("CSV", "JSON")
        ],
        export_max=EXPORT_MAX,
        looked_through=activity_store.LOOKED_THROUGH,
    )


async def _actors(page: PageRequest, listing: Listing, found: Found) -> list[tuple[str, str]]:
    """Whom the list can be narrowed to: members, and whoever it is narrowed to now, e.g. a former one."""
    members = await member_store.of_account(page.db, page.account_id)
    options = [("", "Everybody"), *((str(member.user_id), member.email) for member in members), *_ACTOR_KINDS]
    chosen = listing.filters.get("actor")
    if chosen and chosen not in dict(options):
        named = next((entry.actor_name for entry in found.entries), "Nobody known")
        options.append((chosen, named))
    return options


# ------------------------------------------------------------------------------- export


async def _csv(page: PageRequest) -> Response:
    return await export("activity.csv", _FIELDS, _entries(page))


async def _json(page: PageRequest) -> Response:
    return await export("activity.json", _FIELDS, _entries(page))


async def _entries(page: PageRequest) -> AsyncIterator[Sequence[Row]]:
    """The newest entries that the address asks for, some at a time."""
    wanted, after, left = _wanted(_listing(page)), None, EXPORT_MAX
    while left:
        found = await activity_store.search(
            page.db, page.account_id, wanted, limit=min(EXPORT_STEP, left), after=after
        )
        yield [_values(entry) for entry in found.entries]
        left -= len(found.entries)
        if found.next is None:
            return
        after = found.next


def _values(entry: Entry) -> Row:
    return {**{name: getattr(entry, name) for name in _FIELDS}, "created_at": iso(entry.created_at)}
