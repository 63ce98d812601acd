"""Commands on credits and the books: they work beside a running server."""

from typing import Annotated, Any

import typer

from babysea_server.cli.common import (
    AccountOption,
    AsJson,
    Config,
    DataDir,
    RegionOption,
    account_id_of,
    in_region,
    refusing_input,
    show,
)
from babysea_server.db.pool import Database
from babysea_server.kit import money
from babysea_server.ledger import store
from babysea_server.ledger.verify import verify

credits_app = typer.Typer(no_args_is_help=True, help="Credits of an account.")
ledger_app = typer.Typer(no_args_is_help=True, help="The books.")


@credits_app.command("add")
def add(
    account: AccountOption,
    amount: Annotated[str, typer.Option(help="Credits, with at most six decimals.")],
    description: Annotated[str, typer.Option(help="Why; shown in the ledger.")] = "Added by the operator",
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Add credits to an account."""
    account_id = account_id_of(account)
    with refusing_input():
        amount_micro = money.micros(amount)
        store.check_addition(amount_micro)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        balance = await store.add(db, account_id, amount_micro, description)
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
