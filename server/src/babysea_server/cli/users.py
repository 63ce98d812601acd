"""Commands on users: links for people whom mail does not reach, and invitations by the operator."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from babysea_server.accounts import invitations, member_store, user_store
from babysea_server.accounts.activity import OPERATOR, record
from babysea_server.accounts.members import RoleRefusedError, check_role
from babysea_server.accounts.user_store import User
from babysea_server.accounts.users import new_reset_link, new_sign_in_link
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
from babysea_server.kit.clock import rfc3339
from babysea_server.kit.faults import NotFoundError

users_app = typer.Typer(no_args_is_help=True, help="Users of the console in a region.")

EmailArgument = Annotated[str, typer.Argument(metavar="EMAIL", help="E-mail address of the user.")]


@users_app.command("list")
def list_(
    region: RegionOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List users, oldest first."""

    async def work(db: Database, chosen: str) -> list[dict[str, Any]]:
        return [_shown(user, chosen) for user in await user_store.page(db, limit=limit, offset=offset)]

    show(in_region(data_dir, config, region, work), as_json=as_json, title="users")


@users_app.command("reset-password")
def reset_password(
    email: EmailArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print a link that sets another password: once, within an hour."""
    _print_link(email, new_reset_link, "reset", region, data_dir, config, as_json=as_json)


@users_app.command("sign-in-link")
def sign_in_link(
    email: EmailArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print a link that signs a user in: once, within an hour."""
    _print_link(email, new_sign_in_link, "link", region, data_dir, config, as_json=as_json)


def _print_link(
    email: str,
    make: Callable[[Database, UUID], Awaitable[str]],
    place: str,
    region: str | None,
    data_dir: Path | None,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    origin = read_settings(data_dir, config, log_level="warning").console_origin

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        user = await _find(db, email)
        return {"email": user.email, "link": f"{origin}/console/{place}/{chosen}/{await make(db, user.id)}"}

    show(in_region(data_dir, config, region, work), as_json=as_json)


@users_app.command("remove-second-step")
def remove_second_step(
    email: EmailArgument,
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let a user sign in without an authenticator that is lost, and its codes."""

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        user = await _find(db, email)
        async with db.transaction() as connection:
            await user_store.remove_totp(connection, user.id)
            for membership in await member_store.of_user(connection, user.id):
                if membership.role == "primary-owner":
                    await record(
                        connection,
                        membership.account_id,
                        OPERATOR,
                        "auth.totp_removed",
                        f"The second step of {user.email} was removed",
                    )
        return _shown(await _find(db, email), chosen)

    show(in_region(data_dir, config, region, work), as_json=as_json)


@users_app.command("invite")
def invite(
    email: EmailArgument,
    account: Annotated[str, typer.Option("--account", help="Account id.")],
    role: Annotated[str, typer.Option(help="owner or member.")] = "member",
    region: RegionOption = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Print a link that lets somebody join an account: once, within seven days."""
    account_id = account_id_of(account)
    origin = read_settings(data_dir, config, log_level="warning").console_origin
    with refusing_input():
        chosen_role = check_role(role)

    async def work(db: Database, chosen: str) -> dict[str, Any]:
        try:
            _, token = await invitations.invite(
                db, account_id, email=email, role=chosen_role, by_role="primary-owner", actor=OPERATOR
            )
        except RoleRefusedError as error:
            raise ValueError(str(error)) from None
        return {
            "email": email,
            "role": chosen_role,
            "link": f"{origin}/console/invitation/{chosen}/{token}",
        }

    show(in_region(data_dir, config, region, work), as_json=as_json)


async def _find(db: Database, email: str) -> User:
    user = await user_store.by_email(db, email.strip())
    if user is None:
        raise NotFoundError(f"no user {email} in this region")
    return user


def _shown(user: User, region: str) -> dict[str, Any]:
    return {
        "user_id": str(user.id),
        "region": region,
        "email": user.email,
        "name": user.name,
        "password": user.password is not None,
        "second_step": user.totp_secret is not None,
        "created_at": rfc3339(user.created_at),
        "signed_in_at": moment(user.signed_in_at),
    }
