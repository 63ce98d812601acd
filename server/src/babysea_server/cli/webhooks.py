"""Commands on webhook endpoints and their deliveries: they work beside a running server."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer

from babysea_server.cli.common import (
    AccountOption,
    AsJson,
    Config,
    DataDir,
    RegionOption,
    account_id_of,
    fail,
    in_region,
    moment,
    read_settings,
    refusing_input,
    show,
)
from babysea_server.cli.listen import listen
from babysea_server.db.pool import Database
from babysea_server.kit.clock import parse_rfc3339, rfc3339
from babysea_server.master_key import load_master_key
from babysea_server.settings import SettingsError
from babysea_server.webhooks import endpoints, replay
from babysea_server.webhooks.endpoint_store import Delivery, Endpoint
from babysea_server.webhooks.endpoints import SUBSCRIBABLE, EndpointLimitError, EndpointStateError
from babysea_server.webhooks.secrets import SecretBox
from babysea_server.webhooks.urls import check_endpoint_url

webhooks_app = typer.Typer(no_args_is_help=True, help="Webhook endpoints and what was sent to them.")
webhooks_app.command("listen")(listen)

EndpointArgument = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Id of the endpoint.")]
EventsOption = Annotated[
    str | None, typer.Option("--events", help="Events, joined by commas; by default all.")
]

Value = TypeVar("Value")


@webhooks_app.command("create")
def create(
    account: AccountOption,
    url: Annotated[str, typer.Option(help="Where to send: public, https, port 443.")],
    events: EventsOption = None,
    description: Annotated[str, typer.Option(help="A note, at most 200 characters.")] = "",
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Create an endpoint; its signing secret is shown once."""
    account_id = account_id_of(account)
    private = _allow_private(data_dir, config)
    with refusing_input():
        check_endpoint_url(url, allow_private=private)
        chosen_events = SUBSCRIBABLE if events is None else _events(events)
        endpoints.check_description(description)
    box = _box(data_dir, config)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        made = await endpoints.create(
            db,
            box,
            account_id,
            url=url,
            events=chosen_events,
            description=description,
            allow_private=private,
        )
        return {"webhook_secret": made.secret, **_shown(made.endpoint, chosen)}

    show(_in_region(data_dir, config, region, work), as_json=as_json)


@webhooks_app.command("list")
def list_(
    account: Annotated[str | None, typer.Option("--account", help="Account id; by default all.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List endpoints, oldest first; never their secrets."""
    account_id = None if account is None else account_id_of(account)

    async def work(db: Database, chosen: str) -> list[dict[str, Any]]:
        page = await endpoints.page(db, account_id, limit=limit, offset=offset)
        return [_shown(endpoint, chosen) for endpoint in page]

    show(_in_region(data_dir, config, region, work), as_json=as_json, title="webhook endpoints")


@webhooks_app.command("show")
def show_(
    endpoint: EndpointArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show an endpoint, and how many deliveries wait for it; never its secret."""
    endpoint_id = _id(endpoint, "an endpoint")

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        shown = _shown(await endpoints.find(db, None, endpoint_id), chosen)
        return {**shown, "deliveries_waiting": await replay.count_waiting(db, None, endpoint_id)}

    show(_in_region(data_dir, config, region, work), as_json=as_json)


@webhooks_app.command("enable")
def enable(
    endpoint: EndpointArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Send to an endpoint again; what waited is sent by deliver-queued."""
    endpoint_id = _id(endpoint, "an endpoint")

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        shown = _shown(await endpoints.enable(db, None, endpoint_id), chosen)
        return {**shown, "deliveries_waiting": await replay.count_waiting(db, None, endpoint_id)}

    show(_in_region(data_dir, config, region, work), as_json=as_json)


@webhooks_app.command("disable")
def disable(
    endpoint: EndpointArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Send no more to an endpoint; what happens meanwhile waits for 72 hours."""
    endpoint_id = _id(endpoint, "an endpoint")

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        return _shown(await endpoints.disable(db, None, endpoint_id), chosen)

    show(_in_region(data_dir, config, region, work), as_json=as_json)


@webhooks_app.command("change")
def change(
    endpoint: EndpointArgument,
    url: Annotated[str | None, typer.Option(help="Where to send from now on.")] = None,
    events: Annotated[str | None, typer.Option(help="All events from now on, joined by commas.")] = None,
    description: Annotated[str | None, typer.Option(help="A note, at most 200 characters.")] = None,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Change an endpoint's address, events or note."""
    endpoint_id = _id(endpoint, "an endpoint")
    private = _allow_private(data_dir, config)
    with refusing_input():
        if url is not None:
            check_endpoint_url(url, allow_private=private)
        chosen_events = None if events is None else _events(events)
        endpoints.check_description(description or "")

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        changed = await endpoints.change(
            db,
            None,
            endpoint_id,
            url=url,
            events=chosen_events,
            description=description,
            allow_private=private,
        )
        return _shown(changed, chosen)

    show(_in_region(data_dir, config, region, work), as_json=as_json)


@webhooks_app.command("rotate-secret")
def rotate_secret(
    endpoint: EndpointArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Give an endpoint a new signing secret, used at once and shown once."""
    endpoint_id = _id(endpoint, "an endpoint")
    box = _box(data_dir, config)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        made = await endpoints.rotate_secret(db, box, None, endpoint_id)
        return {"webhook_secret": made.secret, **_shown(made.endpoint, chosen)}

    show(_in_region(data_dir, config, region, work), as_json=as_json)


@webhooks_app.command("delete")
def delete(
    endpoint: EndpointArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Delete an endpoint with its deliveries, also those that wait."""
    endpoint_id = _id(endpoint, "an endpoint")

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        deleted = await endpoints.delete(db, None, endpoint_id)
        return {"deleted": True, **_shown(deleted, chosen)}

    show(_in_region(data_dir, config, region, work), as_json=as_json)


@webhooks_app.command("test")
def send_test(
    endpoint: EndpointArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Send webhook.test to an endpoint; a running worker delivers it."""
    endpoint_id = _id(endpoint, "an endpoint")

    async def work(db: Database, _chosen: str) -> dict[str, Any]:
        return _delivery(await replay.send_test(db, None, endpoint_id))

    show(_in_region(data_dir, config, region, work), as_json=as_json)


@webhooks_app.command("deliveries")
def deliveries(
    endpoint: EndpointArgument,
    state: Annotated[
        str | None, typer.Option(help=f"Only these: {', '.join(replay.STATES)}; by default all.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    before: Annotated[str | None, typer.Option(help="Id of the last delivery of the page before.")] = None,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List deliveries of an endpoint, newest first; with --json each attempt and what was told."""
    endpoint_id = _id(endpoint, "an endpoint")
    before_id = None if before is None else _id(before, "a delivery")
    with refusing_input():
        chosen_state = None if state is None else replay.state_named(state)

    async def work(db: Database, _chosen: str) -> list[dict[str, Any]]:
        page = await replay.list_deliveries(
            db, None, endpoint_id, before=before_id, state=chosen_state, limit=limit
        )
        return [_delivery(delivery) if as_json else _line(delivery) for delivery in page]

    show(_in_region(data_dir, config, region, work), as_json=as_json, title="deliveries")


@webhooks_app.command("replay")
def replay_(
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="Id of the delivery.")],
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Send a delivery that has ended again, under a fresh id."""
    delivery_id = _id(delivery, "a delivery")

    async def work(db: Database, _chosen: str) -> dict[str, Any]:
        return _delivery(await replay.replay(db, None, delivery_id))

    show(_in_region(data_dir, config, region, work), as_json=as_json)


@webhooks_app.command("replay-failed")
def replay_failed(
    endpoint: EndpointArgument,
    since: Annotated[str, typer.Option(help="Made since then, e.g. 2027-01-31T00:00:00Z.")],
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Send everything again that failed or expired and was not sent again yet."""
    endpoint_id = _id(endpoint, "an endpoint")
    with refusing_input():
        moment_since = parse_rfc3339(since)

    async def work(db: Database, _chosen: str) -> dict[str, Any]:
        return _replayed(await replay.replay_failed_since(db, None, endpoint_id, moment_since))

    show(_in_region(data_dir, config, region, work), as_json=as_json)


@webhooks_app.command("deliver-queued")
def deliver_queued(
    endpoint: EndpointArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Send what waited while an endpoint was disabled, in order and under fresh ids."""
    endpoint_id = _id(endpoint, "an endpoint")

    async def work(db: Database, _chosen: str) -> dict[str, Any]:
        return _replayed(await replay.deliver_queued(db, None, endpoint_id))

    show(_in_region(data_dir, config, region, work), as_json=as_json)


def _in_region(
    data_dir: Path | None,
    config: Path | None,
    region: str | None,
    work: Callable[[Database, str], Awaitable[Value]],
) -> Value:
    try:
        return in_region(data_dir, config, region, work)
    except (EndpointStateError, EndpointLimitError) as error:
        fail(str(error))


def _id(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        fail(f"{text!r} is not the id of {what}", 2)


def _events(text: str) -> tuple[str, ...]:
    return endpoints.check_events(event.strip() for event in text.split(",") if event.strip())


def _allow_private(data_dir: Path | None, config: Path | None) -> bool:
    return read_settings(data_dir, config, log_level="warning").webhooks_allow_private


def _box(data_dir: Path | None, config: Path | None) -> SecretBox:
    try:
        return SecretBox(load_master_key(read_settings(data_dir, config, log_level="warning")))
    except SettingsError as error:
        fail(str(error))


def _shown(endpoint: Endpoint, region: str) -> dict[str, Any]:
    return {
        "endpoint_id": str(endpoint.id),
        "account_id": str(endpoint.account_id),
        "url": endpoint.url,
        "description": endpoint.description,
        "events": list(endpoint.events),
        "state": endpoint.state,
        "state_changed_at": rfc3339(endpoint.state_changed_at),
        "failed_in_a_row": endpoint.failed_in_a_row,
        "created_at": rfc3339(endpoint.created_at),
        "secret_rotated_at": moment(endpoint.secret_rotated_at),
        "region": region,
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "delivery_id": str(delivery.id),
        "endpoint_id": str(delivery.endpoint_id),
        "account_id": str(delivery.account_id),
        "event": delivery.event,
        "generation_id": None if delivery.generation_id is None else str(delivery.generation_id),
        "state": delivery.state,
        "replay_of": None if delivery.replay_of is None else str(delivery.replay_of),
        "created_at": rfc3339(delivery.created_at),
        "ended_at": moment(delivery.ended_at),
        "due_at": moment(delivery.due_at),
        "data": delivery.data,
        "attempts": [
            {
                "number": attempt.number,
                "at": rfc3339(attempt.at),
                "status": attempt.status,
                "duration_ms": attempt.duration_ms,
                "error": attempt.error,
                "response": attempt.response,
            }
            for attempt in delivery.attempts
        ],
    }


def _line(delivery: Delivery) -> dict[str, Any]:
    last = delivery.attempts[-1] if delivery.attempts else None
    return {
        "delivery_id": str(delivery.id),
        "event": delivery.event,
        "generation_id": delivery.generation_id,
        "state": delivery.state,
        "attempts": len(delivery.attempts),
        "status": last and last.status,
        "error": last and last.error,
        "created_at": rfc3339(delivery.created_at),
        "due_at": moment(delivery.due_at),
    }


def _replayed(replayed: replay.Replayed) -> dict[str, Any]:
    return {"sent_again": replayed.count, "more": replayed.more}
