"""Notifications: what the account's people are told, and over which channels."""

from collections.abc import Sequence
from uuid import UUID

import msgspec
from starlette.responses import Response

from babysea_server.accounts.notices import Notice
from babysea_server.accounts.roles import Action
from babysea_server.console import notifications_store
from babysea_server.console.faults import not_found
from babysea_server.console.listing import Column, Listing, Page
from babysea_server.console.notifications_store import Place
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.webhooks import endpoints

_COLUMNS = (
    Column("text", "Notification"),
    Column("kind", "About"),
    Column("mail", "Mail"),
    Column("created", "Time"),
    Column("actions", "Actions", kind="actions"),
)


class _Kind(msgspec.Struct, frozen=True):
    """What notices of one kind are about."""

    label: str
    icon: str
    tone: str
    link: str
    """What their link says."""


_KINDS = {
    "credits.low_balance": _Kind("Low balance", "coins", "warn", "Open Billing"),
    "webhook.disabled": _Kind("Webhook disabled", "webhook", "bad", "Open the endpoint"),
}
_MAIL_TEXTS = {"due": "To be sent", "sent": "Sent", "failed": "Given up", "none": "None"}
_EVENT = "credits.low_balance"


def routes() -> Sequence[Route]:
    """The routes of this page."""
    view, edit = Action.NOTIFICATIONS_VIEW, Action.NOTIFICATIONS_EDIT
    return [
        Route("GET", "/notifications", view, _list),
        Route("POST", "/notifications/read-all", edit, _read_all),
        Route("POST", "/notifications/{notice_id}/read", edit, _read),
    ]


async def _list(page: PageRequest) -> Response:
    listing = Listing.read(
        page.url("/notifications"),
        page.query,
        sorts={"unread": "n.id"},
        default="-unread",
        filters=["kind", "show"],
    )
    rows, place = await notifications_store.search(
        page.db,
        page.account_id,
        text=listing.q,
        kind=listing.filters.get("kind"),
        unread=listing.filters.get("show") == "unread",
        after=Place.parse(listing.cursor),
        limit=listing.size,
    )
    mine = await endpoints.page(page.db, page.account_id)
    return await page.render(
        "notifications.html",
        listing=listing,
        result=Page(rows, next_cursor=None if place is None else str(place)),
        columns=_COLUMNS,
        unread=await notifications_store.count_unread(page.db, page.account_id),
        kinds=_KINDS,
        kind_options=[("", "Everything"), *((name, kind.label) for name, kind in _KINDS.items())],
        mail_texts=_MAIL_TEXTS,
        path_of=lambda notice: _path(notice, {endpoint.id for endpoint in mine}),
        mails=page.region.mailing.works,
        address=page.account.email,
        listening=sum(_EVENT in endpoint.events and endpoint.state == "enabled" for endpoint in mine),
    )


def _path(notice: Notice, endpoint_ids: set[UUID]) -> str | None:
    """The page that a notice is about; None where it is about none, or that is gone."""
    if notice.kind == "credits.low_balance":
        return "/billing"
    if notice.kind == "webhook.disabled":
        try:
            endpoint_id = UUID(str(notice.data.get("endpoint_id")))
        except ValueError:
            return None
        return f"/webhook/{endpoint_id}" if endpoint_id in endpoint_ids else None
    return None


async def _read(page: PageRequest) -> Response:
    notice_id = page.id("notice_id")
    async with page.db.transaction() as connection:
        if not await notifications_store.is_there(connection, page.account_id, notice_id):
            raise not_found()
        if await notifications_store.mark_read(connection, page.account_id, notice_id):
            await page.record("notification.read", "A notification was marked as read", connection)
    return await page.redirect("/notifications")


async def _read_all(page: PageRequest) -> Response:
    async with page.db.transaction() as connection:
        count = await notifications_store.mark_read(connection, page.account_id)
        many = "1 notification was" if count == 1 else f"{count:,} notifications were"
        if count:
            await page.record("notification.all_read", f"{many} marked as read", connection)
    return await page.redirect("/notifications", f"{many} marked as read." if count else "")
