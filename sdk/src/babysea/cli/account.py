"""Commands on logins, and on the account of the key."""

import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

from babysea import BabySea, PermissionDeniedError
from babysea.cli.faults import FAILED, CommandError
from babysea.cli.output import in_credits
from babysea.cli.profiles import DEFAULT_BASE_URL, Profile, chosen
from babysea.cli.session import Session, command

_KEY_MAX = 4096
_PREFIX = 9  # of a key, which the server shows, too


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(login)
    command(app)(logout)
    command(app)(profiles)
    command(app)(status)
    command(app)(usage)


def login(
    session: Session,
    key_stdin: Annotated[
        bool, typer.Option("--key-stdin", help="Read the key from standard input, and ask nothing.")
    ] = False,
) -> None:
    """Keep a key for later calls.

    Asks for the server's address, the region and the key, and tries them before it keeps them.
    """
    name = chosen(session.environment, session.profile)
    before = session.profiles.read(name) if session.profiles.path(name).exists() else None
    asked = _piped(session, before) if key_stdin else _asked(session, name, before)
    profile = _tried(asked)
    path = session.profiles.write(name, profile)
    if session.output.as_json:
        session.output.document({**_shown(name, profile, current=True), "path": str(path)})
    else:
        session.output.say(f"Logged in to {profile.base_url} with key {profile.apikey_prefix}... ({path})")


def _tried(profile: Profile) -> Profile:
    """The profile with what its server says of it.

    Raises:
        BabySeaError: the server does not take the key.
    """
    with BabySea(profile.api_key, base_url=profile.base_url, region=profile.region) as client:
        try:
            status = client.status()
        except PermissionDeniedError as error:
            if error.code != "BSE1003":
                raise
            # A key that may do other things only, and is a good one for those.
            return replace(profile, apikey_prefix=profile.api_key[:_PREFIX])
    return replace(profile, apikey_prefix=status.apikey_prefix, account_id=status.account_id)


def _piped(session: Session, before: Profile | None) -> Profile:
    if sys.stdin.isatty():
        session.output.say("Paste the key, then Enter and Ctrl-D.")
    key = sys.stdin.read(_KEY_MAX).strip()
    known = before.base_url if before is not None else session.environment.get("BABYSEA_BASE_URL")
    region = session.region or (before.region if before is not None else None)
    return Profile(_some(key), session.base_url or known or DEFAULT_BASE_URL, region)


def _asked(session: Session, name: str, before: Profile | None) -> Profile:
    if not session.output.can_ask:
        raise CommandError("nobody is there to be asked", "Pipe the key into `babysea login --key-stdin`.")
    known = before.base_url if before is not None else session.environment.get("BABYSEA_BASE_URL")
    session.output.say(f"Profile {name}")
    base_url = session.base_url or typer.prompt(
        "Address of the server", default=known or DEFAULT_BASE_URL, err=True
    )
    region = session.region or typer.prompt(
        "Region (us, eu, jp, or nothing)",
        default=(before.region if before is not None else None) or "",
        show_default=before is not None and before.region is not None,
        err=True,
    )
    key = typer.prompt("API key (not shown)", hide_input=True, err=True)
    return Profile(_some(key.strip()), base_url.strip(), region.strip() or None)


def _some(key: str) -> str:
    if not key:
        raise CommandError("there is no key")
    return key


def logout(session: Session) -> None:
    """Forget the key of a profile. The key itself goes on being valid."""
    name = chosen(session.environment, session.profile)
    removed = session.profiles.remove(name)
    if session.output.as_json:
        session.output.document({"profile": name, "removed": removed})
    elif removed:
        session.output.say(
            f"Profile {name} is forgotten. Revoke its key where it was made if it is needed no more."
        )
    else:
        raise CommandError(f"there is no profile {name}", "`babysea profiles` lists them.", code=FAILED)


def profiles(session: Session) -> None:
    """List the logins of this machine; never their keys."""
    name = chosen(session.environment, session.profile)
    rows = []
    for one in session.profiles.names():
        profile = session.profiles.read(one)
        if profile is not None:
            rows.append(_shown(one, profile, current=one == name))
    if session.output.as_json:
        session.output.document({"profiles": rows})
        return
    session.output.table(
        [
            {
                "profile": row["profile"] + ("*" if row["current"] else ""),
                "server": row["base_url"],
                "region": row["region"],
                "key": f"{row['apikey_prefix']}...",
            }
            for row in rows
        ],
        none="There are no logins; `babysea login` makes one.",
    )


def _shown(name: str, profile: Profile, *, current: bool) -> dict[str, Any]:
    return {
        "profile": name,
        "current": current,
        "base_url": profile.base_url,
        "region": profile.region,
        "apikey_prefix": profile.apikey_prefix,
        "account_id": profile.account_id,
    }


def status(session: Session) -> None:
    """Check the connection and the key."""
    with session.client() as client:
        found = client.status()
    if session.output.as_json:
        session.output.document(found.raw)
        return
    session.output.record(
        {
            "account": found.account_id,
            "key": f"{found.apikey_prefix}... ({found.apikey_name})",
            "made": found.apikey_created_at,
            "last used": found.apikey_last_used_at,
            "expires": found.apikey_expires_at or "never",
        }
    )
    session.output.say("Connected.", style="green")


def usage(
    session: Session,
    days: Annotated[int, typer.Option("--days", min=1, max=90, help="Days, today included.")] = 30,
) -> None:
    """Show requests, generations, costs and the balance."""
    with session.client() as client:
        found = client.usage(days=days)
    output = session.output
    if output.as_json:
        output.document(found.raw)
        return
    output.record(
        {
            "balance": in_credits(found.usage_credit_balance),
            "days": found.usage_period_days,
            "generations": found.usage_total_generations,
            "provider cost": in_credits(found.usage_total_estimated_cost),
            "requests": f"{found.usage_total_requests}, {found.usage_total_success} of them successful",
        }
    )
    if found.usage_providers:
        output.gap()
        output.table(
            [
                {
                    "provider": one.provider,
                    "submitted": one.total_submissions,
                    "used": one.used_count,
                    "failed": one.failed_count,
                    "cost": in_credits(one.total_estimated_cost),
                }
                for one in found.usage_providers
            ],
            none="",
        )
