"""Commands on routing: they work beside a running server."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from babysea_server.cli.common import (
    AsJson,
    Config,
    DataDir,
    RegionOption,
    fail,
    in_region,
    read_settings,
    show,
)
from babysea_server.db.pool import Database
from babysea_server.errors import ApiError
from babysea_server.execution.verdict import RULES
from babysea_server.kit.clock import SystemClock
from babysea_server.routing.explain import Evidence, Explanation, ProviderExplained, explain
from babysea_server.routing.health import ProviderHealth
from babysea_server.routing.job import read_records
from babysea_server.routing.ranking import DECAYED, Ranking, figures, read_ranking
from babysea_server.routing.rankings import RankingsUnavailableError, ranking_store
from babysea_server.settings import Settings

routing_app = typer.Typer(no_args_is_help=True, help="Which provider is tried first, and why.")


@routing_app.callback()
def routing() -> None:
    """Which provider is tried first, and why."""


@routing_app.command("explain")
def explain_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Identifier, e.g. bfl/flux-schnell.")],
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Tell in which order a model's providers would be tried now, and why."""
    settings = read_settings(data_dir, config, log_level="warning")

    async def work(db: Database, chosen: str) -> Explanation:
        return await _explanation(db, chosen, settings, model)

    try:
        explanation = in_region(data_dir, config, region, work)
    except ApiError as error:
        fail(error.message, 2)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(explanation)).decode() + "\n")
    else:
        _write(explanation)


async def _explanation(db: Database, region: str, settings: Settings, identifier: str) -> Explanation:
    # Imported here: with all adapters every other command would take twice as long.
    from babysea_server.app.registries import provider_registry
    from babysea_server.app.shared import catalog_of

    catalog = catalog_of(settings)
    model = catalog.model(identifier)
    failures = [failure for failure, rule in RULES.items() if rule.trips_breaker]
    health = ProviderHealth(db, SystemClock(), providers=catalog.providers, failures=failures)
    records = await read_records(db, DECAYED, model.identifier)
    ranking, fault = await _published(db, region, settings, model.identifier)
    evidence = Evidence(
        model=model.identifier,
        region=region,
        static_order=model.provider_ids,
        ranking=ranking,
        figures=figures(records.get(model.identifier, {}), DECAYED),
        window=await health.window(),
        exploration=settings.exploration_share,
        rule=DECAYED.name,
        fault=fault,
    )
    registry = provider_registry(settings, catalog, db)
    try:
        return explain(evidence, registry.available)
    finally:
        await registry.close()


async def _published(
    db: Database, region: str, settings: Settings, model: str
) -> tuple[Ranking | None, str | None]:
    """The ranking that API processes read, stale or not; else why it cannot be read."""
    rankings = ranking_store(db, region, settings.redis_url)
    try:
        document = (await rankings.read()).get(model)
    except RankingsUnavailableError as error:
        return None, str(error)
    finally:
        await rankings.close()
    if document is None:
        return None, None
    ranking = read_ranking(document)
    return ranking, "it is malformed." if ranking is None else None


def _write(explanation: Explanation) -> None:
    order = ", ".join(explanation.order) or "nobody"
    sys.stdout.write(f"{explanation.model} in {explanation.region} would be tried at: {order}\n\n")
    for reason in explanation.reasons:
        sys.stdout.write(f"- {reason}\n")
    sys.stdout.write("\n")
    show(_rows(explanation.providers, explanation.static_order), as_json=False, title="providers")


def _rows(providers: Sequence[ProviderExplained], static_order: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "place": each.place,
            "provider": each.provider,
            "own order": static_order.index(each.provider) + 1,
            "configured": "yes" if each.available else "no",
            "breaker": each.breaker,
            "attempts 24 h": each.attempts,
            "success": _percent(each.success_rate),
            "wasted": _percent(each.wasted_rate),
            "p95 s": None if each.p95_s is None else f"{each.p95_s:.2f}",
            "score": None if each.score is None else f"{each.score:.4f}",
        }
        for each in providers
    ]


def _percent(rate: float | None) -> str | None:
    return None if rate is None else f"{rate:.1%}"
