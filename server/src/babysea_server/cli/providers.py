"""Commands on providers: which are configured, and whether they take the credentials."""

import asyncio
from typing import Annotated, Any

import typer

from babysea_server.cli.common import AsJson, Config, DataDir, fail, read_settings, show
from babysea_server.settings import Settings, SettingsError

providers_app = typer.Typer(no_args_is_help=True, help="The inference providers.")


@providers_app.command("list")
def list_providers(data_dir: DataDir = None, config: Config = None, as_json: AsJson = False) -> None:
    """List every provider: whether it is live, what it still needs, how many models it serves."""
    settings = read_settings(data_dir, config, log_level="warning")
    show(_rows(settings), as_json=as_json, title="providers")


@providers_app.command("check")
def check(
    provider: Annotated[
        list[str] | None, typer.Argument(help="Provider ids; by default all that are configured.")
    ] = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Ask providers whether they take the credentials, by a call that makes and costs nothing."""
    settings = read_settings(data_dir, config, log_level="error")
    rows = asyncio.run(_check(settings, provider or []))
    if not rows:
        fail("no provider is configured; docs/providers.md says how")
    show(rows, as_json=as_json, title="providers")
    if any(row["result"] != "works" for row in rows):
        raise typer.Exit(1)


def _rows(settings: Settings) -> list[dict[str, Any]]:
    from babysea_server.app.registries import live_providers
    from babysea_server.app.shared import catalog_of
    from babysea_server.catalog.catalog import CatalogError
    from babysea_server.providers.adapters import adapters, missing

    try:
        live, catalog = live_providers(settings), catalog_of(settings)
    except (SettingsError, CatalogError) as error:
        fail(str(error), 2)
    rows = []
    for id, adapter in adapters().items():
        given = settings.providers.get(id)
        needs = missing(adapter, given)
        if id in live:
            state = "live"
        elif given is not None and not given.enabled:
            state = "switched off"
        elif needs:
            state = f"needs {', '.join(needs)}"
        else:
            state = "configured, not called: provider_mode is sandbox"
        rows.append(
            {
                "provider": id,
                "state": state,
                "models": sum(id in model.providers for model in catalog.models.values()),
                "delivery": adapter.traits.delivery,
                "cancel": adapter.traits.cancel,
                "callbacks": adapter.traits.verification,
            }
        )
    return rows


async def _check(settings: Settings, asked: list[str]) -> list[dict[str, Any]]:
    from babysea_server.app.registries import provider_routes
    from babysea_server.kit.clock import SystemClock
    from babysea_server.providers.adapters import configured
    from babysea_server.providers.registry import Registry
    from babysea_server.providers.runner import Runner

    try:
        found = configured(settings.providers)
        unknown = [id for id in asked if id not in found]
        if unknown:
            raise SettingsError(f"{unknown[0]} is not configured; `providers list` says what it needs")
        chosen = {id: provider for id, provider in found.items() if id in asked or not asked}
        runner = Runner(Registry(provider_routes(chosen)), SystemClock())
    except SettingsError as error:
        fail(str(error), 2)
    try:
        checks = await asyncio.gather(*(runner.check(id) for id in chosen))
    finally:
        await runner.close()
    return [
        {"provider": id, "result": "works" if found.ok else "fails", "message": found.message}
        for id, found in zip(chosen, checks, strict=True)
    ]
