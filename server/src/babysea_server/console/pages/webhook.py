"""Webhook: the endpoints of an account, and the life of each; its deliveries are in `webhook_deliveries.py`."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.responses import Response

from babysea_server.accounts.roles import Action
from babysea_server.console import webhook_store
from babysea_server.console.forms import FieldErrors, Form
from babysea_server.console.listing import Column, Listing, Page
from babysea_server.console.pages import webhook_deliveries
from babysea_server.console.pages.webhook_deliveries import find, named, sentence
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.webhooks import endpoints, replay
from babysea_server.webhooks.endpoint_store import Endpoint
from babysea_server.webhooks.endpoints import (
    DESCRIPTION_MAX,
    ENDPOINTS_MAX,
    SUBSCRIBABLE,
    EndpointLimitError,
    EndpointStateError,
    check_description,
    check_events,
)
from babysea_server.webhooks.schedule import WAIT_HOURS
from babysea_server.webhooks.urls import check_endpoint_url

_SORTS = {"url": "lower(e.url)", "state": "e.state", "last": "newest.created_at", "created": "e.created_at"}
_COLUMNS = (
    Column("url", "Endpoint", sort=True),
    Column("events", "Events"),
    Column("state", "Status", sort=True),
    Column("last", "Last delivery", sort=True),
    Column("created", "Created", sort=True),
    Column("actions", "Actions", kind="actions"),
)
_EVENT_TEXTS = {
    "generation.started": "A provider took the job",
    "generation.completed": "It succeeded; the message holds links to its files",
    "generation.failed": "It failed on every provider, or was given up",
    "generation.canceled": "It was canceled, and its credits refunded",
    "credits.low_balance": "The balance fell below one of your thresholds",
}
#: How many events a list names before it only counts them.
_NAMED_MAX = 2


def routes() -> Sequence[Route]:
    """The routes of this page."""
    view, manage = Action.WEBHOOKS_VIEW, Action.WEBHOOKS_MANAGE
    return [
        Route("GET", "/webhook", view, _list),
        Route("GET", "/webhook/new", manage, _new),
        Route("POST", "/webhook/new", manage, _create),
        Route("GET", "/webhook/{endpoint_id}/secret", manage, _secret),
        Route("GET", "/webhook/{endpoint_id}/edit", manage, _ask_change),
        Route("POST", "/webhook/{endpoint_id}/edit", manage, _change),
        Route("POST", "/webhook/{endpoint_id}/enable", manage, _enable),
        Route("GET", "/webhook/{endpoint_id}/disable", manage, _ask_disable),
        Route("POST", "/webhook/{endpoint_id}/disable", manage, _disable),
        Route("GET", "/webhook/{endpoint_id}/rotate", manage, _ask_rotate),
        Route("POST", "/webhook/{endpoint_id}/rotate", manage, _rotate),
        Route("GET", "/webhook/{endpoint_id}/delete", manage, _ask_delete),
        Route("POST", "/webhook/{endpoint_id}/delete", manage, _delete),
        *webhook_deliveries.routes(),
    ]


async def _list(page: PageRequest) -> Response:
    listing = Listing.read(
        page.url("/webhook"), page.query, sorts=_SORTS, default="-created", filters=["state"]
    )
    rows, total = await webhook_store.endpoints(
        page.db,
        page.account_id,
        text=listing.q,
        state=listing.filters.get("state"),
        order_by=listing.order_by,
        limit=listing.size + 1,
        offset=listing.offset,
    )
    return await page.render(
        "webhook.html",
        listing=listing,
        result=Page.of(rows, listing, total),
        columns=_COLUMNS,
        all_events=SUBSCRIBABLE,
        named_max=_NAMED_MAX,
    )


# ------------------------------------------------------------------------------- create and change


async def _new(page: PageRequest) -> Response:
    form = Form([("events", event) for event in SUBSCRIBABLE if event.startswith("generation.")])
    return await _show_form(page, form, FieldErrors())


async def _show_form(
    page: PageRequest, form: Form, errors: FieldErrors, endpoint: Endpoint | None = None
) -> Response:
    return await page.render(
        "webhook/form.html",
        422 if errors else 200,
        endpoint=endpoint,
        form=form,
        errors=errors,
        events=_EVENT_TEXTS.items(),
        description_max=DESCRIPTION_MAX,
        allow_private=page.region.settings.webhooks_allow_private,
    )


def _errors(page: PageRequest) -> FieldErrors:
    """What is wrong with the fields of an endpoint."""
    form, errors = page.form, FieldErrors()
    try:
        check_endpoint_url(form.text("url"), allow_private=page.region.settings.webhooks_allow_private)
    except ValueError as error:
        errors["url"] = sentence(error) if form.text("url") else "Enter the URL that events are sent to."
    try:
        check_description(form.text("description"))
    except ValueError as error:
        errors["description"] = sentence(error)
    try:
        check_events(form.all("events"))
    except ValueError:
        errors["events"] = "Choose at least one event."
    return errors


async def _create(page: PageRequest) -> Response:
    errors = _errors(page)
    if not errors:
        try:
            async with page.db.transaction() as connection:
                made = await endpoints.create(
                    connection,
                    page.region.webhook_secrets,
                    page.account_id,
                    url=page.form.text("url"),
                    events=page.form.all("events"),
                    description=page.form.text("description"),
                    allow_private=page.region.settings.webhooks_allow_private,
                )
                await page.record(
                    "webhook.created", f"Endpoint {named(made.endpoint)} was created", connection
                )
        except EndpointLimitError:
            errors[""] = f"An account has at most {ENDPOINTS_MAX} endpoints. Delete one that is not needed."
    if errors:
        return await _show_form(page, page.form, errors)
    there = f"/webhook/{made.endpoint.id}/secret"
    return await page.redirect(there, reveal={str(made.endpoint.id): made.secret})


async def _ask_change(page: PageRequest) -> Response:
    endpoint = await find(page)
    fields = [("url", endpoint.url), ("description", endpoint.description)]
    form = Form([*fields, *(("events", event) for event in endpoint.events)])
    return await _show_form(page, form, FieldErrors(), endpoint)


async def _change(page: PageRequest) -> Response:
    before = await find(page)
    if errors := _errors(page):
        return await _show_form(page, page.form, errors, before)
    async with page.db.transaction() as connection:
        after = await endpoints.change(
            connection,
            page.account_id,
            before.id,
            url=page.form.text("url"),
            events=page.form.all("events"),
            description=page.form.text("description"),
            allow_private=page.region.settings.webhooks_allow_private,
        )
        changes = _changes(before, after)
        if changes:
            await page.record(
                "webhook.changed", f"Endpoint {named(before)} was changed: {', '.join(changes)}", connection
            )
    return await page.redirect(f"/webhook/{after.id}", "Saved." if changes else "", "success")


def _changes(before: Endpoint, after: Endpoint) -> list[str]:
    """What was changed, without the address itself: some hold a secret."""
    changes = []
    if before.url != after.url:
        changes.append(f"its URL, now at {host(after)}")
    if before.description != after.description:
        changes.append("its description")
    if before.events != after.events:
        changes.append(f"its events, now {', '.join(after.events)}")
    return changes


def host(endpoint: Endpoint) -> str:
    """The host of an endpoint's address, with its port where one is written."""
    return urlsplit(endpoint.url).netloc


# ------------------------------------------------------------------------------- the secret


async def _secret(page: PageRequest) -> Response:
    endpoint = await find(page)
    # Another endpoint may have been made in another tab: its secret is not this one's.
    secret = (await page.revealed()).get(str(endpoint.id))
    return await page.render("webhook/secret.html", endpoint=endpoint, secret=secret)


async def _ask_rotate(page: PageRequest) -> Response:
    endpoint = await find(page)
    return await page.render("webhook/rotate.html", endpoint=endpoint, errors=FieldErrors())


async def _rotate(page: PageRequest) -> Response:
    endpoint = await find(page)
    try:
        async with page.db.transaction() as connection:
            rotated = await endpoints.rotate_secret(
                connection, page.region.webhook_secrets, page.account_id, endpoint.id
            )
            await page.record(
                "webhook.secret_rotated", f"The secret of endpoint {named(endpoint)} was rotated", connection
            )
    except EndpointStateError:
        errors = FieldErrors({"": "Somebody else rotated it at this moment. Reload before you do it again."})
        return await page.render("webhook/rotate.html", 422, endpoint=endpoint, errors=errors)
    return await page.redirect(f"/webhook/{endpoint.id}/secret", reveal={str(endpoint.id): rotated.secret})


# ------------------------------------------------------------------------------- enable, disable, delete


async def _enable(page: PageRequest) -> Response:
    before = await find(page)
    async with page.db.transaction() as connection:
        endpoint = await endpoints.enable(connection, page.account_id, before.id)
        if before.state != "enabled":
            await page.record("webhook.enabled", f"Endpoint {named(endpoint)} was enabled", connection)
    waiting = await replay.count_waiting(page.db, page.account_id, endpoint.id)
    more = " What waited is sent when you ask for it: Deliver queued events." if waiting else ""
    return await page.redirect(f"/webhook/{endpoint.id}", f"New events are sent from now on.{more}")


async def _ask_disable(page: PageRequest) -> Response:
    endpoint = await find(page)
    return await page.render(
        "confirm.html",
        title="Disable this endpoint?",
        text="Nothing is sent any more. What happens from now on waits for "
        f"{WAIT_HOURS} hours, and is sent when you enable the endpoint and ask for it.",
        action=f"/webhook/{endpoint.id}/disable",
        label="Disable endpoint",
        back=f"/webhook/{endpoint.id}",
    )


async def _disable(page: PageRequest) -> Response:
    before = await find(page)
    async with page.db.transaction() as connection:
        endpoint = await endpoints.disable(connection, page.account_id, before.id)
        if before.state != "disabled":
            await page.record("webhook.disabled", f"Endpoint {named(endpoint)} was disabled", connection)
    return await page.redirect(f"/webhook/{endpoint.id}", "The endpoint is disabled.")


async def _ask_delete(page: PageRequest) -> Response:
    return await _show_delete(page, await find(page), FieldErrors())


async def _show_delete(page: PageRequest, endpoint: Endpoint, errors: FieldErrors) -> Response:
    return await page.render(
        "webhook/delete.html",
        422 if errors else 200,
        endpoint=endpoint,
        host=host(endpoint),
        form=page.form,
        errors=errors,
    )


async def _delete(page: PageRequest) -> Response:
    endpoint = await find(page)
    if page.form.text("confirm") != host(endpoint):
        return await _show_delete(page, endpoint, FieldErrors(confirm=f"Type {host(endpoint)} to delete it."))
    await endpoints.delete(page.db, page.account_id, endpoint.id)
    await page.record("webhook.deleted", f"Endpoint {named(endpoint)} was deleted with its deliveries")
    return await page.redirect("/webhook", "The endpoint was deleted.")
