"""Commands on accounts and their plans: they work beside a running server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from babysea_server.accounts import store
from babysea_server.accounts.plans import load_plans, plan_named
from babysea_server.accounts.service import change_plan, check_account, create_account
from babysea_server.cli.common import (
    AsJson,
    Config,
    DataDir,
    RegionOption,
    account_id_of,
    in_region,
    moment,
    read_settings,
    refusing_input,
    show,
)
from babysea_server.db.pool import Database
from babysea_server.kit import money
from babysea_server.kit.calls import Plan
from babysea_server.kit.clock import rfc3339
from babysea_server.kit.faults import NotFoundError

accounts_app = typer.Typer(no_args_is_help=True, help="Accounts of a region and their plans.")

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Account id.")]


@accounts_app.command("create")
def create(
    name: Annotated[str, typer.Option(help="Name of the account, 1 to 100 characters.")],
    plan: Annotated[str, typer.Option(help="One of the plans in the plans file.")] = "free",
    email: Annotated[str | None, typer.Option(help="Where to reach its owner.")] = None,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Create an account, with the credits that its plan gives at once."""
    with refusing_input():
        chosen_plan = plan_named(_plans(data_dir, config), plan)
        check_account(name, email)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        return _shown(await create_account(db, chosen_plan, name=name, email=email), chosen)

    show(in_region(data_dir, config, region, work), as_json=as_json)


@accounts_app.command("list")
def list_(
    region: RegionOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List accounts, oldest first."""

    async def work(db: Database, chosen: str) -> list[dict[str, Any]]:
        return [_shown(account, chosen) for account in await store.page(db, limit=limit, offset=offset)]

    show(in_region(data_dir, config, region, work), as_json=as_json, title="accounts")


@accounts_app.command("show")
def show_(
    account: AccountArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show an account: its plan, balance and period."""
    account_id = account_id_of(account)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        found = await store.get(db, account_id)
        if found is None:
            raise NotFoundError(f"no account {account_id} in this region")
        return _shown(found, chosen)

    show(in_region(data_dir, config, region, work), as_json=as_json)


@accounts_app.command("set-plan")
def set_plan(
    account: AccountArgument,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="One of the plans in the plans file.")],
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Put an account on a plan, with the credits that the plan gives at once."""
    account_id = account_id_of(account)
    with refusing_input():
        plans = _plans(data_dir, config)
        chosen_plan = plan_named(plans, plan)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        return _shown(await change_plan(db, plans, account_id, chosen_plan), chosen)

    show(in_region(data_dir, config, region, work), as_json=as_json)


def _plans(data_dir: Path | None, config: Path | None) -> Mapping[str, Plan]:
    plans_file = read_settings(data_dir, config, log_level="warning").plans_file
    return load_plans(None if plans_file is None else Path(plans_file))


def _shown(account: store.Account, region: str) -> dict[str, Any]:
    period = account.period
    return {
        "account_id": str(account.id),
        "region": region,
        "name": account.name,
        "email": account.email,
        "plan": account.plan,
        "credit_balance": money.credits(account.credit_balance),
        "period_starts_at": moment(period and period.starts_at),
        "period_ends_at": moment(period and period.ends_at),
        "created_at": rfc3339(account.created_at),
    }
