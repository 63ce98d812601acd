"""Commands on what an account is warned of and told: they work beside a running server."""

from typing import Annotated, Any
from uuid import UUID

import typer

from babysea_server.accounts import alerts, notices
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
from babysea_server.kit import money
from babysea_server.kit.clock import rfc3339

alerts_app = typer.Typer(no_args_is_help=True, help="Low-balance alerts of an account.")
notices_app = typer.Typer(no_args_is_help=True, help="What an account's people were told.")


@alerts_app.command("show")
def show_(
    account: AccountOption,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show at which balances an account is warned."""
    account_id = account_id_of(account)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        return _shown(account_id, await alerts.get_alerts(db, account_id), chosen)

    show(in_region(data_dir, config, region, work), as_json=as_json)


@alerts_app.command("set")
def set_(
    account: AccountOption,
    threshold: Annotated[
        list[str] | None,
        typer.Option(help="Warn below these credits; repeatable, at most 10. None: the default again."),
    ] = None,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say at which balances an account is warned, instead of what was said before."""
    account_id = account_id_of(account)
    with refusing_input():
        thresholds = alerts.check_thresholds([money.micros(credits) for credits in threshold or []])

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        return _shown(account_id, await alerts.set_thresholds(db, account_id, thresholds), chosen)

    show(in_region(data_dir, config, region, work), as_json=as_json)


@notices_app.command("list")
def list_(
    account: AccountOption,
    unread: Annotated[bool, typer.Option("--unread", help="Only what nobody has read.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List notices of an account, newest first."""
    account_id = account_id_of(account)

    async def work(db: Database, _chosen: str) -> list[dict[str, Any]]:
        found = await notices.page(db, account_id, limit=limit, unread=unread)
        return [_notice(notice) for notice in found]

    show(in_region(data_dir, config, region, work), as_json=as_json, title="notices")


def _shown(account_id: UUID, found: alerts.Alerts, region: str) -> dict[str, Any]:
    fired = {money.text(alert.threshold): moment(alert.fired_at) for alert in found.alerts if alert.fired_at}
    return {
        "account_id": str(account_id),
        "region": region,
        "credit_balance": money.credits(found.balance),
        "thresholds": [money.credits(alert.threshold) for alert in found.alerts],
        "is_default": found.is_default,
        "armed": [money.credits(alert.threshold) for alert in found.alerts if alert.armed],
        "last_fired_at": fired,
    }


def _notice(notice: notices.Notice) -> dict[str, Any]:
    return {
        "notice_id": str(notice.id),
        "created_at": rfc3339(notice.created_at),
        "kind": notice.kind,
        "text": notice.text,
        "read_at": moment(notice.read_at),
        "mail": notice.mail_state,
    }
