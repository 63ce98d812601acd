"""Coming in: the first page, signing in, the second step, one-time links; and light or dark."""

from collections.abc import Sequence

import structlog
from starlette.responses import Response

from babysea_server.accounts import activity, member_store, user_store
from babysea_server.accounts.sessions import SignedIn, token_hash
from babysea_server.accounts.user_store import User
from babysea_server.accounts.users import (
    actor_of,
    check_credentials,
    check_second_step,
    use_sign_in_link,
)
from babysea_server.console.faults import PageFaultError
from babysea_server.console.forms import FieldErrors
from babysea_server.console.navigation import ROOT
from babysea_server.console.plans import may_sign_up
from babysea_server.console.region import ConsoleRegion
from babysea_server.console.request import OpenRequest
from babysea_server.console.routes import OpenRoute
from babysea_server.console.security import local_path
from babysea_server.kit.faults import NotFoundError
from babysea_server.webhooks.secrets import SealedSecretError

_log = structlog.get_logger(__name__)

_THEMES = ("light", "dark", "auto")
_TOLD = {"password": "Your password is set. Sign in with it."}


def routes() -> Sequence[OpenRoute]:
    """The routes of this page."""
    return [
        OpenRoute("GET", "", _home),
        OpenRoute("GET", "/region/{region}", _home),
        OpenRoute("GET", "/sign-in", _sign_in),
        OpenRoute("POST", "/sign-in", _take_password),
        OpenRoute("GET", "/second-step", _second_step),
        OpenRoute("POST", "/second-step", _take_code),
        OpenRoute("GET", "/link/{region}/{token}", _link),
        OpenRoute("POST", "/link/{region}/{token}", _take_link),
        OpenRoute("POST", "/leave", _leave),
        OpenRoute("POST", "/theme", _theme, harmless=True),
    ]


async def _home(page: OpenRequest) -> Response:
    """To where the user was last, or to signing in."""
    named = "region" in page.params
    for region in [page.region] if named else page.regions.values():
        signed_in = await page.signed_in(region)
        if signed_in is not None and not signed_in.session.awaits_totp:
            return await _into(page, region, signed_in)
    return page.redirect(f"{ROOT}/sign-in" + (f"?region={page.region.name}" if named else ""))


async def _into(page: OpenRequest, region: ConsoleRegion, signed_in: SignedIn) -> Response:
    memberships = await member_store.of_user(region.db, signed_in.user.id)
    if not memberships:
        return await page.render("outside/no_account.html", who=signed_in.user)
    return page.redirect(f"{ROOT}/{region.name}/{memberships[0].slug}/metrics")


# ------------------------------------------------------------------------------- e-mail and password


async def _sign_in(page: OpenRequest) -> Response:
    return await _show_sign_in(page, FieldErrors())


async def _show_sign_in(page: OpenRequest, errors: FieldErrors) -> Response:
    return await page.render(
        "outside/sign_in.html",
        422 if errors else 200,
        form=page.form,
        errors=errors,
        next=_next(page),
        told=_TOLD.get(page.query.get("told", ""), ""),
        can_sign_up=await may_sign_up(page.region, invited=False),
    )


async def _take_password(page: OpenRequest) -> Response:
    region, email = page.region, page.form.text("email")
    await region.attempts.take(page.client_ip, email)
    user = await check_credentials(region.db, region.passwords, email, page.form.raw("password"))
    if user is None:
        _log.info("sign_in_refused", region=region.name)
        return await _show_sign_in(page, FieldErrors({"": "E-mail address or password is not right."}))
    if user.totp_secret is None:
        return await enter(page, region, user, _next(page), "with a password")
    token = await region.sessions.begin(user.id, page.visitor(region), awaits_totp=True)
    response = page.redirect(
        f"{ROOT}/second-step?" + page.templates.query({"region": region.name, "next": _next(page)})[1:]
    )
    page.cookies.keep_session(page.request, response, region.name, token)
    return response


async def enter(page: OpenRequest, region: ConsoleRegion, user: User, next: str, how: str) -> Response:
    """Sign a user in with a fresh session, and lead to `next`, or to the first account."""
    before = await page.signed_in(region)
    token = await region.sessions.begin(user.id, page.visitor(region))
    if before is not None:
        await region.sessions.end(before)
    for membership in await member_store.of_user(region.db, user.id):
        if membership.role == "primary-owner":
            description = f"{user.email} signed in {how}"
            await activity.record(
                region.db, membership.account_id, actor_of(user), "auth.signed_in", description
            )
            break
    response = page.redirect(next or f"{ROOT}/region/{region.name}")
    page.cookies.keep_session(page.request, response, region.name, token)
    return response


# ------------------------------------------------------------------------------- the second step


async def _second_step(page: OpenRequest) -> Response:
    if await _waiting(page) is None:
        return page.redirect(f"{ROOT}/sign-in?region={page.region.name}")
    return await _show_second_step(page, FieldErrors())


async def _show_second_step(page: OpenRequest, errors: FieldErrors) -> Response:
    return await page.render(
        "outside/second_step.html", 422 if errors else 200, errors=errors, next=_next(page)
    )


async def _take_code(page: OpenRequest) -> Response:
    region = page.region
    waiting = await _waiting(page)
    if waiting is None:
        return page.redirect(f"{ROOT}/sign-in?region={region.name}")
    await region.attempts.take(page.client_ip, f"totp:{waiting.user.id}")
    try:
        right = await check_second_step(
            region.db, region.secrets, waiting.user, page.form.text("code"), region.clock.now()
        )
    except SealedSecretError:
        raise PageFaultError(
            503,
            "The second step cannot be checked",
            "It was set up under another master key. Use a recovery code, or ask the operator.",
        ) from None
    if not right:
        return await _show_second_step(page, FieldErrors(code="This code is not right, or it has been used."))
    return await enter(page, region, waiting.user, _next(page), "with a second step")


async def _waiting(page: OpenRequest) -> SignedIn | None:
    """Whose second step is to come, in this browser."""
    signed_in = await page.signed_in(page.region)
    return signed_in if signed_in is not None and signed_in.session.awaits_totp else None


# ------------------------------------------------------------------------------- one-time links


async def _link(page: OpenRequest) -> Response:
    """Only a form uses the link up: whoever looks at addresses in mail or chat does not."""
    await page.region.attempts.take(page.client_ip)
    hash = token_hash(page.params["token"])
    user = await user_store.link_user(page.region.db, "sign_in_links", hash)
    if user is None:
        raise NotFoundError("This link is no longer valid. Links work once, for an hour.")
    return await page.render("outside/link.html", email=user.email)


async def _take_link(page: OpenRequest) -> Response:
    await page.region.attempts.take(page.client_ip)
    user = await use_sign_in_link(page.region.db, page.params["token"])
    if user.totp_secret is not None:
        raise PageFaultError(403, "Not possible", "This user signs in with a password and a second step.")
    return await enter(page, page.region, user, _next(page), "with a one-time link")


# ------------------------------------------------------------------------------- the rest


async def _leave(page: OpenRequest) -> Response:
    signed_in = await page.signed_in(page.region)
    if signed_in is not None:
        await page.region.sessions.end(signed_in)
    response = page.redirect(f"{ROOT}/sign-in?region={page.region.name}")
    page.cookies.forget(page.request, response, page.region.name)
    return response


async def _theme(page: OpenRequest) -> Response:
    response = page.redirect(local_path(page.form.text("next"), ROOT))
    theme = page.form.text("theme")
    if theme in _THEMES:
        page.cookies.keep_theme(page.request, response, theme)
    return response


def _next(page: OpenRequest) -> str:
    """Where to go on; nothing where that is not a page of the console."""
    return local_path(page.form.text("next") or page.query.get("next", ""), "")
