"""Commands on custom domains: they work beside a running server."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from babysea_server.accounts import domain_store, domains
from babysea_server.accounts.activity import OPERATOR
from babysea_server.accounts.domain_store import Domain
from babysea_server.accounts.domains import DomainSite
from babysea_server.app.selling import domain_site
from babysea_server.cli.common import (
    AccountOption,
    AsJson,
    Config,
    DataDir,
    RegionOption,
    account_id_of,
    check_region,
    fail,
    in_region,
    moment,
    read_settings,
    show,
)
from babysea_server.db.pool import Database
from babysea_server.kit.clock import rfc3339
from babysea_server.settings import SettingsError

domains_app = typer.Typer(no_args_is_help=True, help="Custom domains of accounts.")


@domains_app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List custom domains, oldest first."""

    async def work(db: Database, _chosen: str) -> list[dict[str, Any]]:
        found = await domain_store.page(db, limit=limit, offset=offset)
        return [_shown(domain) for domain in found]

    show(in_region(data_dir, config, region, work), as_json=as_json, title="domains")


@domains_app.command()
def verify(
    account: AccountOption,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Look at the DNS records of an account's domain now; exit code 1 if they are not right."""
    account_id = account_id_of(account)
    settings = read_settings(data_dir, config)
    try:
        site = domain_site(settings, check_region(settings, region))
    except SettingsError as error:
        fail(str(error), 2)
    outcome = in_region(data_dir, config, region, _verifying(account_id, site))
    show(outcome, as_json=as_json)
    if outcome["found"] != domains.Verdict.VERIFIED:
        raise typer.Exit(1)


def _verifying(account_id: Any, site: DomainSite) -> Callable[[Database, str], Awaitable[dict[str, Any]]]:
    async def work(db: Database, _chosen: str) -> dict[str, Any]:
        domain = await domains.find(db, account_id)
        verdict = await domains.verify(db, domain, site, actor=OPERATOR)
        wanted = [" ".join(record) for record in domains.records(domain, site.target)]
        return {**_shown(await domains.find(db, account_id)), "found": str(verdict), "records": wanted}

    return work


@domains_app.command()
def remove(
    account: AccountOption,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Remove an account's custom domain; requests to it are refused within a second."""
    account_id = account_id_of(account)

    async def work(db: Database, _chosen: str) -> dict[str, Any]:
        return _shown(await domains.remove(db, account_id, actor=OPERATOR))

    show(in_region(data_dir, config, region, work), as_json=as_json)


def _shown(domain: Domain) -> dict[str, Any]:
    return {
        "hostname": domain.hostname,
        "account_id": str(domain.account_id),
        "state": domain.state,
        "created_at": rfc3339(domain.created_at),
        "checked_at": moment(domain.checked_at),
        "verified_at": moment(domain.verified_at),
    }
