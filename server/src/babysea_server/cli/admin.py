"""Commands on accounts, keys, credits and the ledger: they work beside a running server."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from babysea_server.accounts import store as accounts
from babysea_server.accounts.plans import PlanError, load_plans
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
from babysea_server.keys import store as keys
from babysea_server.keys.scopes import PRESETS, resolve_scopes
from babysea_server.keys.service import issue
from babysea_server.kit import money
from babysea_server.kit.clock import parse_rfc3339, rfc3339
from babysea_server.ledger import store as ledger
from babysea_server.ledger.verify import verify

accounts_app = typer.Typer(no_args_is_help=True, help="Accounts of a region.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys of an account.")
credits_app = typer.Typer(no_args_is_help=True, help="Credits of an account.")
ledger_app = typer.Typer(no_args_is_help=True, help="The books.")

AccountOption = Annotated[str, typer.Option("--account", help="Account id.")]


@accounts_app.command("create")
def create_account(
    name: Annotated[str, typer.Option(help="Name of the account, 1 to 100 characters.")],
    plan: Annotated[str, typer.Option(help="Plan, see `accounts/plans.toml`.")] = "free",
    email: Annotated[str | None, typer.Option(help="Where to reach its owner.")] = None,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Create an account with an empty balance."""
    plans_file = read_settings(data_dir, config).plans_file
    try:
        plans = load_plans(None if plans_file is None else Path(plans_file))
    except PlanError as error:
        fail(str(error), 2)
    if plan not in plans:
        fail(f"unknown plan {plan!r}; plans are {', '.join(plans)}", 2)
    if not 1 <= len(name) <= 100:
        fail("an account's name has 1 to 100 characters", 2)
    if email is not None and not (3 <= len(email) <= 320 and "@" in email):
        fail(f"{email!r} is not an e-mail address", 2)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        return _account(await accounts.create(db, name=name, plan=plan, email=email), chosen)

    show(in_region(data_dir, config, region, work), as_json=as_json)


@accounts_app.command("list")
def list_accounts(
    region: RegionOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List accounts, oldest first."""

    async def work(db: Database, chosen: str) -> list[dict[str, Any]]:
        page = await accounts.page(db, limit=limit, offset=offset)
        return [_account(account, chosen) for account in page]

    show(in_region(data_dir, config, region, work), as_json=as_json, title="accounts")


@keys_app.command("create")
def create_key(
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
    account_id = _uuid(account)
    try:
        granted = resolve_scopes(
            preset, [scope.strip() for scope in (scopes or "").split(",") if scope.strip()]
        )
        expires_at = None if expires is None else parse_rfc3339(expires)
    except ValueError as error:
        fail(str(error), 2)
    if expires_at is not None and expires_at <= datetime.now(UTC):
        fail(f"the key would have expired at {rfc3339(expires_at)} already", 2)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        issued = await issue(
            db,
            account_id=account_id,
            name=name,
            scopes=granted,
            allowlist=allow_ip or [],
            expires_at=expires_at,
        )
        return {"api_key": issued.secret, **_key(issued.key), "region": chosen}

    show(in_region(data_dir, config, region, work), as_json=as_json)


@keys_app.command("list")
def list_keys(
    account: Annotated[str | None, typer.Option("--account", help="Account id; by default all.")] = None,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List keys, oldest first; never the keys themselves."""
    account_id = None if account is None else _uuid(account)

    async def work(db: Database, _chosen: str) -> list[dict[str, Any]]:
        return [_key(key) for key in await keys.of_account(db, account_id)]

    show(in_region(data_dir, config, region, work), as_json=as_json, title="keys")


@credits_app.command("add")
def add_credits(
    account: AccountOption,
    amount: Annotated[str, typer.Option(help="Credits, with at most six decimals.")],
    description: Annotated[str, typer.Option(help="Why; shown in the ledger.")] = "Added by the operator",
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Add credits to an account."""
    account_id = _uuid(account)
    try:
        amount_micro = money.micros(amount)
    except money.InvalidAmountError as error:
        fail(str(error), 2)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        balance = await ledger.add(db, account_id, amount_micro, description)
        return {
            "account_id": str(account_id),
            "region": chosen,
            "credits_added": money.credits(amount_micro),
            "credit_balance": money.credits(balance),
        }

    show(in_region(data_dir, config, region, work), as_json=as_json)


@ledger_app.command("verify")
def verify_ledger(
    region: RegionOption = None, data_dir: DataDir = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Recompute everything about money and print each difference; exit code 1 if there is any."""

    async def work(db: Database, _chosen: str) -> list[dict[str, Any]]:
        return [
            {
                "promise": found.promise,
                "account": found.account,
                "generation": found.generation,
                "difference": found.difference,
            }
            for found in await verify(db)
        ]

    differences = in_region(data_dir, config, region, work)
    if as_json:
        show({"clean": not differences, "differences": differences}, as_json=True)
    elif differences:
        show(differences, as_json=False, title="differences")
    else:
        show({"ledger": "clean: every balance and every generation adds up"}, as_json=False)
    if differences:
        raise typer.Exit(1)


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        fail(f"{text!r} is not an account id", 2)


def _account(account: accounts.Account, region: str) -> dict[str, Any]:
    return {
        "account_id": str(account.id),
        "region": region,
        "name": account.name,
        "email": account.email,
        "plan": account.plan,
        "credit_balance": money.credits(account.credit_balance),
        "created_at": rfc3339(account.created_at),
    }


def _key(key: keys.ApiKey) -> dict[str, Any]:
    return {
        "apikey_id": str(key.id),
        "account_id": str(key.account_id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "allowlist": list(key.allowlist),
        "state": key.state,
        "created_at": rfc3339(key.created_at),
        "last_used_at": None if key.last_used_at is None else rfc3339(key.last_used_at),
        "expires_at": None if key.expires_at is None else rfc3339(key.expires_at),
    }
