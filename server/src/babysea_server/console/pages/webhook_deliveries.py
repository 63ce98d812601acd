"""One endpoint of the page Webhook: what it was sent, and sending again."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

from starlette.responses import Response

from babysea_server.accounts.roles import Action
from babysea_server.console import webhook_store
from babysea_server.console.faults import not_found
from babysea_server.console.forms import FieldErrors
from babysea_server.console.listing import Column, Listing, Page
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.webhooks import endpoints, replay
from babysea_server.webhooks.body import Bodies
from babysea_server.webhooks.endpoint_store import Delivery, Endpoint
from babysea_server.webhooks.endpoints import EndpointStateError
from babysea_server.webhooks.replay import STATES, Replayed
from babysea_server.webhooks.schedule import WAIT_HOURS
from babysea_server.webhooks.store import FAILURES_THAT_DISABLE
from babysea_server.webhooks.types import EVENTS, DueDelivery, SendFailure

_SORTS = {"created": "d.id"}
_COLUMNS = (
    Column("event", "Event"),
    Column("generation", "Generation"),
    Column("state", "Status"),
    Column("status", "Status code"),
    Column("error", "Error"),
    Column("attempts", "Attempts", kind="number"),
    Column("created", "Time", sort=True),
    Column("actions", "Actions", kind="actions"),
)
_ERROR_TEXTS = {
    SendFailure.FORBIDDEN_URL: "The URL is not https on port 443.",
    SendFailure.FORBIDDEN_ADDRESS: "The name leads to an address that is not public.",
    SendFailure.DNS: "The name has no address.",
    SendFailure.CONNECT: "No connection came about.",
    SendFailure.TLS: "The certificate does not hold.",
    SendFailure.TIMEOUT: "No answer within 10 s, or no connection within 5 s.",
    SendFailure.DISCONNECTED: "The connection broke before there was an answer.",
    SendFailure.PROTOCOL: "The answer was not HTTP.",
    SendFailure.REDIRECT: "A redirect; these are never followed.",
    SendFailure.HTTP_4XX: "The endpoint refused it.",
    SendFailure.HTTP_5XX: "The endpoint failed.",
    SendFailure.UNSIGNED: "The secret could not be opened: the worker has another master key. Tell the operator.",
    SendFailure.INTERNAL: "A fault of this server. Tell the operator.",
}
_MINUTE = "%Y-%m-%dT%H:%M"


def routes() -> Sequence[Route]:
    """The routes of this page."""
    view, manage = Action.WEBHOOKS_VIEW, Action.WEBHOOKS_MANAGE
    return [
        Route("GET", "/webhook/{endpoint_id}", view, _detail),
        Route("POST", "/webhook/{endpoint_id}/test", manage, _test),
        Route("GET", "/webhook/{endpoint_id}/replay-failed", manage, _ask_replay_failed),
        Route("POST", "/webhook/{endpoint_id}/replay-failed", manage, _replay_failed),
        Route("POST", "/webhook/{endpoint_id}/deliver-queued", manage, _deliver_queued),
        Route("GET", "/webhook/{endpoint_id}/deliveries/{delivery_id}", view, _delivery),
        Route("POST", "/webhook/{endpoint_id}/deliveries/{delivery_id}/replay", manage, _replay),
    ]


async def find(page: PageRequest) -> Endpoint:
    """The endpoint that the path names.

    Raises:
        PageFaultError, NotFoundError: 404, it is not the account's.
    """
    return await endpoints.find(page.db, page.account_id, page.id("endpoint_id"))


def named(endpoint: Endpoint) -> str:
    """An endpoint for a sentence in the account's activity: without its path, which may hold a secret."""
    host = urlsplit(endpoint.url).netloc
    return f"“{endpoint.description}” at {host}" if endpoint.description else f"at {host}"


def sentence(error: Exception) -> str:
    """What was refused, as a sentence."""
    text = str(error)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


async def _detail(page: PageRequest) -> Response:
    endpoint = await find(page)
    listing = Listing.read(
        page.url(f"/webhook/{endpoint.id}"),
        page.query,
        sorts=_SORTS,
        default="-created",
        filters=["state", "event"],
    )
    found = await webhook_store.deliveries(
        page.db,
        endpoint.id,
        text=listing.q,
        state=listing.filters.get("state"),
        event=listing.filters.get("event"),
        descending=listing.descending,
        after=_id(listing.cursor),
        limit=listing.size,
    )
    return await page.render(
        "webhook/detail.html",
        endpoint=endpoint,
        host=urlsplit(endpoint.url).netloc,
        waiting=await replay.count_waiting(page.db, page.account_id, endpoint.id),
        listing=listing,
        result=Page(found.rows, next_cursor=None if found.next is None else str(found.next)),
        columns=_COLUMNS,
        states=[("", "All statuses"), *((state, state.capitalize()) for state in STATES)],
        events=[("", "All events"), *((event, event) for event in EVENTS)],
        failures_max=FAILURES_THAT_DISABLE,
        wait_hours=WAIT_HOURS,
        error_texts=_ERROR_TEXTS,
        keep_days=page.region.settings.webhooks_keep_days,
        looked_through=webhook_store.LOOKED_THROUGH,
    )


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


# ------------------------------------------------------------------------------- one delivery


async def _find_delivery(page: PageRequest) -> Delivery:
    delivery = await replay.find_delivery(page.db, page.account_id, page.id("delivery_id"))
    if delivery.endpoint_id != page.id("endpoint_id"):
        raise not_found()
    return delivery


async def _delivery(page: PageRequest) -> Response:
    delivery = await _find_delivery(page)
    endpoint = await find(page)
    return await page.render(
        "webhook/delivery.html",
        endpoint=endpoint,
        delivery=delivery,
        payload=await _payload(page, delivery),
        replays=await webhook_store.replays(page.db, delivery.id),
        error_texts=_ERROR_TEXTS,
    )


async def _payload(page: PageRequest, delivery: Delivery) -> str:
    """The body of a delivery as it is sent, set out for reading."""
    happened_at = await webhook_store.happened_at(page.db, delivery.id)
    due = DueDelivery(
        id=delivery.id,
        fence=0,
        attempts=len(delivery.attempts),
        event=delivery.event,
        data=delivery.data,
        happened_at=happened_at or delivery.created_at,
        created_at=delivery.created_at,
        endpoint_id=delivery.endpoint_id,
        account_id=delivery.account_id,
        url="",
        secret=b"",
    )
    body = Bodies(page.region.signer, page.api_origin, page.region.name).render(due)
    return json.dumps(json.loads(body), indent=2, ensure_ascii=False)


async def _replay(page: PageRequest) -> Response:
    delivery = await _find_delivery(page)
    there = f"/webhook/{delivery.endpoint_id}"
    endpoint = await find(page)
    try:
        async with page.db.transaction() as connection:
            fresh = await replay.replay(connection, page.account_id, delivery.id)
            again = f"{delivery.event} was sent again to endpoint {named(endpoint)} as {fresh.id}"
            await page.record("webhook.replayed", again, connection)
    except EndpointStateError:
        return await page.redirect(there, _why_not(endpoint, delivery), "danger")
    return await page.redirect(there, f"{delivery.event} is being sent again.")


def _why_not(endpoint: Endpoint, delivery: Delivery | None = None) -> str:
    if endpoint.state != "enabled":
        return "Nothing is sent to an endpoint that is not enabled. Enable it first."
    if delivery is not None and delivery.state == "pending":
        return "This delivery has not ended: it is tried again by itself."
    return "The endpoint was changed at this moment. Try again."


# ------------------------------------------------------------------------------- sending


async def _test(page: PageRequest) -> Response:
    endpoint = await find(page)
    there = f"/webhook/{endpoint.id}"
    try:
        async with page.db.transaction() as connection:
            await replay.send_test(connection, page.account_id, endpoint.id)
            sent = f"A test event was sent to endpoint {named(endpoint)}"
            await page.record("webhook.test_sent", sent, connection)
    except EndpointStateError:
        return await page.redirect(there, _why_not(endpoint), "danger")
    return await page.redirect(there, "The test event is on its way. See the first of the deliveries.")


async def _ask_replay_failed(page: PageRequest) -> Response:
    since = (page.now - timedelta(days=1)).astimezone(UTC).strftime(_MINUTE)
    return await _show_replay_failed(page, await find(page), since, FieldErrors())


async def _show_replay_failed(
    page: PageRequest, endpoint: Endpoint, since: str, errors: FieldErrors
) -> Response:
    return await page.render(
        "webhook/replay_failed.html",
        422 if errors else 200,
        endpoint=endpoint,
        since=since,
        errors=errors,
        keep_days=page.region.settings.webhooks_keep_days,
    )


async def _replay_failed(page: PageRequest) -> Response:
    endpoint = await find(page)
    since = page.form.text("since")
    try:
        moment = _moment(since, page.now)
        done = await replay.replay_failed_since(page.db, page.account_id, endpoint.id, moment)
    except ValueError as error:
        return await _show_replay_failed(page, endpoint, since, FieldErrors(since=str(error)))
    except EndpointStateError:
        return await _show_replay_failed(page, endpoint, since, FieldErrors({"": _why_not(endpoint)}))
    if done.count:
        told = (
            f"{_many(done.count, 'failed delivery', 'failed deliveries')} since {moment:%Y-%m-%d %H:%M} UTC"
        )
        were = "was" if done.count == 1 else "were"
        await page.record(
            "webhook.failed_replayed", f"{told} {were} sent again to endpoint {named(endpoint)}"
        )
    return await page.redirect(
        f"/webhook/{endpoint.id}", _told(done, "Nothing failed since then."), _kind(done)
    )


async def _deliver_queued(page: PageRequest) -> Response:
    endpoint = await find(page)
    there = f"/webhook/{endpoint.id}"
    try:
        done = await replay.deliver_queued(page.db, page.account_id, endpoint.id)
    except EndpointStateError:
        return await page.redirect(there, _why_not(endpoint), "danger")
    if done.count:
        were = "was" if done.count == 1 else "were"
        await page.record(
            "webhook.queued_delivered",
            f"{_many(done.count, 'queued event', 'queued events')} {were} sent to endpoint {named(endpoint)}",
        )
    return await page.redirect(there, _told(done, "Nothing waits."), _kind(done))


def _moment(text: str, now: datetime) -> datetime:
    """A moment in UTC from a form.

    Raises:
        ValueError: with a sentence for whoever typed it.
    """
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise ValueError("Enter a date and a time.") from None
    if moment > now:
        raise ValueError("Enter a moment in the past.")
    return moment


def _told(done: Replayed, nothing: str) -> str:
    if not done.count:
        return nothing
    verb = "is" if done.count == 1 else "are"
    more = " More are left: do it again for the next." if done.more else ""
    return f"{_many(done.count, 'delivery', 'deliveries')} {verb} on the way.{more}"


def _kind(done: Replayed) -> str:
    return "success" if done.count else "info"


def _many(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"
