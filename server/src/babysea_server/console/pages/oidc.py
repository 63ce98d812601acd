"""Signing in through the operator's identity provider."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
import structlog
from starlette.responses import Response

from babysea_server.accounts import identities, invitations, user_store
from babysea_server.accounts.user_store import User
from babysea_server.accounts.users import SignUpRefusedError, check_credentials, check_user_name, sign_up
from babysea_server.console.faults import PageFaultError, not_found
from babysea_server.console.forms import FieldErrors
from babysea_server.console.navigation import ROOT
from babysea_server.console.oidc import (
    WAY_S,
    AddressRefusedError,
    Identity,
    OidcError,
    begin_way,
    find_way,
)
from babysea_server.console.pages.entrance import enter
from babysea_server.console.plans import check_sign_up
from babysea_server.console.region import ConsoleRegion
from babysea_server.console.request import OpenRequest
from babysea_server.console.routes import OpenRoute
from babysea_server.console.security import local_path
from babysea_server.kit.faults import NotFoundError
from babysea_server.webhooks.secrets import SealedSecretError

if TYPE_CHECKING:
    from babysea_server.console.oidc_client import OidcClient

_log = structlog.get_logger(__name__)

_BACK = f"{ROOT}/oidc/callback"


class _Waiting(msgspec.Struct, frozen=True):
    """Somebody whom the provider knows, and who has not yet shown that the user here is theirs."""

    issuer: str
    subject: str
    email: str
    next: str
    visit: str
    until: int


def routes() -> Sequence[OpenRoute]:
    """The routes of this page."""
    return [
        OpenRoute("GET", "/oidc/start/{region}", _start),
        OpenRoute("GET", "/oidc/callback", _come_back),
        OpenRoute("POST", "/oidc/link", _link),
    ]


async def _start(page: OpenRequest) -> Response:
    region, client = page.region, _client(page.region)
    await region.attempts.take(page.client_ip)
    # The provider leads back to the one address it knows, and the cookie must be there.
    if page.request.url.netloc.lower() != urlsplit(region.origin).netloc.lower():
        query = f"?{page.request.url.query}" if page.request.url.query else ""
        return page.redirect(f"{region.origin}{page.request.url.path}{query}")
    next = local_path(page.query.get("next", ""), "")
    way = begin_way(region.keys.forms, page.visit, region.name, next, region.clock.now())
    try:
        url = await client.authorization_url(way, region.origin + _BACK)
    except OidcError as error:
        raise _failed(client, region, error) from None
    response = page.redirect(url)
    page.cookies.keep_visit(page.request, response, page.visit)
    return response


async def _come_back(page: OpenRequest) -> Response:
    first = page.region
    await first.attempts.take(page.client_ip)
    keys, state = first.keys, page.query.get("state", "")
    way = find_way(keys.forms, page.visit, state, first.clock.now())
    if (
        way is None and keys.other_forms is not None
    ):  # begun at a process that signs under the other master key
        way = find_way(keys.other_forms, page.visit, state, first.clock.now())
    region = None if way is None else page.regions.get(way.region)
    if way is None or region is None:
        raise PageFaultError(403, "This way back has expired", "Begin again at the sign-in page.")
    client = _client(region)
    code = page.query.get("code", "")
    # RFC 9207: a provider that tells who it is must be the one that was asked.
    if not code or page.query.get("iss", client.settings.issuer).rstrip("/") != client.settings.issuer.rstrip(
        "/"
    ):
        raise _failed(client, region, OidcError("it came back without a code of this issuer"))
    try:
        identity = await client.identity(way, code, region.origin + _BACK)
    except OidcError as error:
        raise _failed(client, region, error) from None
    except AddressRefusedError as error:
        raise PageFaultError(403, "Not let in", str(error)) from None
    return await _let_in(page, region, identity, way.next)


async def _let_in(page: OpenRequest, region: ConsoleRegion, identity: Identity, next: str) -> Response:
    """Sign in who is linked; link who can be linked; make a user of who may sign up."""
    user = await identities.user_of(region.db, identity.issuer, identity.subject)
    if user is None:
        known = await user_store.by_email(region.db, identity.email)
        if known is None:
            user = await _sign_up(region, identity, next)
        elif known.password is not None:
            # Anybody may have signed up here with an address that is not theirs, and would share the user.
            return await _ask_password(page, region, identity, next, FieldErrors())
        else:
            await _note_link(region, identity.issuer, identity.subject, known)
            user = known
    return await _enter(page, region, user, next)


async def _enter(page: OpenRequest, region: ConsoleRegion, user: User, next: str) -> Response:
    if user.totp_secret is None:
        return await enter(page, region, user, next, f"through {_client(region).settings.name}")
    token = await region.sessions.begin(user.id, page.visitor(region), awaits_totp=True)
    query = page.templates.query({"region": region.name, "next": next or None})
    response = page.redirect(f"{ROOT}/second-step{query}")
    page.cookies.keep_session(page.request, response, region.name, token)
    return response


async def _sign_up(region: ConsoleRegion, identity: Identity, next: str) -> User:
    invited = bool(_client(region).settings.allowed_domains) or await _has_invitation(region, next)
    try:
        name = check_user_name(identity.name)
    except ValueError:
        name = identity.email.partition("@")[0][:100]
    try:
        async with region.db.transaction() as connection:
            plan = await check_sign_up(region, connection, invited=invited)
            made = await sign_up(connection, email=identity.email, name=name, password=None, plan=plan)
            await identities.link(connection, identity.issuer, identity.subject, made.user)
    except SignUpRefusedError as error:
        raise PageFaultError(403, "Not let in", str(error)) from None
    return made.user


async def _has_invitation(region: ConsoleRegion, next: str) -> bool:
    """Whether the user came from an invitation, and goes on to it."""
    prefix = f"{ROOT}/invitation/{region.name}/"
    try:
        return next.startswith(prefix) and bool(await invitations.find(region.db, next.removeprefix(prefix)))
    except NotFoundError:
        return False


# ------------------------------------------------------------------------------- linking


async def _ask_password(
    page: OpenRequest, region: ConsoleRegion, identity: Identity, next: str, errors: FieldErrors
) -> Response:
    until = int(region.clock.now().timestamp()) + WAY_S
    waiting = _Waiting(identity.issuer, identity.subject, identity.email, next, page.visit, until)
    return await _show_link(page, region, waiting, errors)


async def _show_link(
    page: OpenRequest, region: ConsoleRegion, waiting: _Waiting, errors: FieldErrors
) -> Response:
    page.params = {**page.params, "region": region.name}
    return await page.render(
        "outside/identity.html",
        422 if errors else 200,
        email=waiting.email,
        provider=_client(region).settings.name,
        sealed=region.secrets.seal(msgspec.json.encode(waiting).decode()).hex(),
        errors=errors,
    )


async def _link(page: OpenRequest) -> Response:
    region = page.region
    _client(region)
    expired = PageFaultError(403, "This form has expired", "Begin again at the sign-in page.")
    try:
        sealed = bytes.fromhex(page.form.text("identity"))
        waiting = msgspec.json.decode(region.secrets.open(sealed), type=_Waiting)
    except (ValueError, SealedSecretError, msgspec.MsgspecError):
        raise expired from None
    if waiting.visit != page.visit or waiting.until <= region.clock.now().timestamp():
        raise expired
    await region.attempts.take(page.client_ip, waiting.email)
    user = await check_credentials(region.db, region.passwords, waiting.email, page.form.raw("password"))
    if user is None:
        return await _show_link(
            page, region, waiting, FieldErrors({"password": "The password is not right."})
        )
    await _note_link(region, waiting.issuer, waiting.subject, user)
    return await _enter(page, region, user, waiting.next)


async def _note_link(region: ConsoleRegion, issuer: str, subject: str, user: User) -> None:
    async with region.db.transaction() as connection:
        linked = await identities.link(connection, issuer, subject, user)
    if not linked:
        raise PageFaultError(
            403, "Not let in", "This user is somebody else's at the provider. Sign in with your password."
        )


def _client(region: ConsoleRegion) -> "OidcClient":
    if region.oidc is None:
        raise not_found()
    return region.oidc


def _failed(client: "OidcClient", region: ConsoleRegion, error: OidcError) -> PageFaultError:
    _log.warning("oidc_failed", region=region.name, issuer=client.settings.issuer, error=str(error))
    return PageFaultError(
        502,
        "Signing in has not worked",
        f"{client.settings.name} could not say who you are. Try again; if it goes on, tell the operator.",
    )
