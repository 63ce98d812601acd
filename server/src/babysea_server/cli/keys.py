"""Commands on API keys: they work beside a running server."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from babysea_server.cli.common import (
    AccountOption,
    AsJson,
    Config,
    DataDir,
    RegionOption,
    account_id_of,
    in_region,
    moment,
    refusing_input,
    show,
)
from babysea_server.db.pool import Database
from babysea_server.keys import service, store
from babysea_server.keys.allowlist import check_allowlist
from babysea_server.keys.scopes import PRESETS, resolve_scopes
from babysea_server.kit.clock import parse_rfc3339, rfc3339

keys_app = typer.Typer(no_args_is_help=True, help="API keys of accounts.")

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, or its first 9 characters.")]


@keys_app.command("create")
def create(
    account: AccountOption,
    name: Annotated[str, typer.Option(help="Name of the key, 1 to 100 characters.")],
    preset: Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = None,
    scopes: Annotated[str | None, typer.Option(help="Custom scopes, joined by commas.")] = None,
    expires: Annotated[str | None, typer.Option(help="Expiry, e.g. 2027-01-31T00:00:00Z.")] = None,
    allow_ip: Annotated[
        list[str] | None, typer.Option(help="Address or network that may use the key; repeatable.")
    ] = None,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Create a key; it is shown once."""
    account_id = account_id_of(account)
    with refusing_input():
        service.check_name(name)
        granted = resolve_scopes(
            preset, [scope.strip() for scope in (scopes or "").split(",") if scope.strip()]
        )
        allowlist = check_allowlist(allow_ip or [])
        expires_at = None if expires is None else parse_rfc3339(expires)
        service.check_expiry(expires_at, datetime.now(UTC))

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        issued = await service.issue(
            db, account_id=account_id, name=name, scopes=granted, allowlist=allowlist, expires_at=expires_at
        )
        return {"api_key": issued.secret, **_shown(issued.key, chosen)}

    show(in_region(data_dir, config, region, work), as_json=as_json)


@keys_app.command("list")
def list_(
    account: Annotated[str | None, typer.Option("--account", help="Account id; by default all.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List keys, oldest first; never the keys themselves."""
    account_id = None if account is None else account_id_of(account)

    async def work(db: Database, chosen: str) -> list[dict[str, Any]]:
        keys = await store.of_account(db, account_id, limit=limit, offset=offset)
        return [_shown(key, chosen) for key in keys]

    show(in_region(data_dir, config, region, work), as_json=as_json, title="keys")


@keys_app.command("show")
def show_(
    key: KeyArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show a key: never the key itself."""
    named = _named(key)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        return _shown(await named(db), chosen)

    show(in_region(data_dir, config, region, work), as_json=as_json)


@keys_app.command("rotate")
def rotate(
    key: KeyArgument,
    grace_hours: Annotated[
        int,
        typer.Option(
            help=f"How long the old one goes on working: {', '.join(map(str, service.GRACE_HOURS))}."
        ),
    ] = service.DEFAULT_GRACE_HOURS,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Replace a key by one like it; the new one is shown once, the old one goes on working for a while."""
    named = _named(key)
    with refusing_input():
        service.check_grace(grace_hours)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        rotation = await service.rotate(db, None, (await named(db)).id, grace_hours=grace_hours)
        return {
            "api_key": rotation.new.secret,
            **_shown(rotation.new.key, chosen),
            "replaces": str(rotation.old.id),
            "replaced_works_until": moment(rotation.old.ends_at),
        }

    show(in_region(data_dir, config, region, work), as_json=as_json)


@keys_app.command("revoke")
def revoke(
    key: KeyArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """End a key for ever; every API process refuses it within a second."""
    named = _named(key)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        return _shown(await service.revoke(db, None, (await named(db)).id), chosen)

    show(in_region(data_dir, config, region, work), as_json=as_json)


@keys_app.command("delete")
def delete(
    key: KeyArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Delete a key, and so end it; what was made or logged with it keeps its id."""
    named = _named(key)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        deleted = await service.delete(db, None, (await named(db)).id)
        return {"deleted": True, "apikey_id": str(deleted.id), "prefix": deleted.prefix, "region": chosen}

    show(in_region(data_dir, config, region, work), as_json=as_json)


def _named(text: str) -> Callable[[Database], Awaitable[store.ApiKey]]:
    """How to find the key that was named; a key itself is not taken, nor ever printed."""
    with refusing_input():
        if len(text) == service.PREFIX_LENGTH and text.startswith("bye_"):
            return lambda db: service.find_by_prefix(db, text)
        if text.startswith("bye_"):
            raise ValueError(
                f"name a key by its id or its first {service.PREFIX_LENGTH} characters, not by more or less"
            )
        try:
            key_id = UUID(text)
        except ValueError:
            raise ValueError(f"{text!r} is not the id of a key, nor its first 9 characters") from None
    return lambda db: service.find(db, None, key_id)


def _shown(key: store.ApiKey, region: str) -> dict[str, Any]:
    return {
        "apikey_id": str(key.id),
        "account_id": str(key.account_id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "allowlist": list(key.allowlist),
        "state": key.state,
        "created_at": rfc3339(key.created_at),
        "last_used_at": moment(key.last_used_at),
        "expires_at": moment(key.expires_at),
        "grace_until": moment(key.grace_until),
        "replaced_by": None if key.replaced_by is None else str(key.replaced_by),
        "region": region,
    }
