"""Signing up, and invitations."""

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from babysea_server.accounts import invitations
from babysea_server.accounts.invitation_store import Invitation
from babysea_server.accounts.passwords import check_password
from babysea_server.accounts.users import (
    SignUpRefusedError,
    actor_of,
    check_email,
    check_user_name,
    sign_up,
)
from babysea_server.console.faults import PageFaultError
from babysea_server.console.forms import FieldErrors
from babysea_server.console.navigation import ROOT
from babysea_server.console.pages.entrance import enter
from babysea_server.console.plans import check_sign_up, may_sign_up
from babysea_server.console.request import OpenRequest
from babysea_server.console.routes import OpenRoute
from babysea_server.kit.faults import NotFoundError

_CLOSED = "Nobody can sign up here. Ask the operator for an account."
_INVITED_ONLY = "Only who is invited can sign up here. Ask an owner of an account to invite you."


def routes() -> Sequence[OpenRoute]:
    """The routes of this page."""
    return [
        OpenRoute("GET", "/sign-up", _sign_up),
        OpenRoute("POST", "/sign-up", _take),
        OpenRoute("GET", "/invitation/{region}/{token}", _invitation),
        OpenRoute("POST", "/invitation/{region}/{token}", _accept),
    ]


async def _invited(page: OpenRequest, token: str) -> Invitation | None:
    return await invitations.find(page.region.db, token) if token else None


async def _sign_up(page: OpenRequest) -> Response:
    token = page.query.get("invitation", "")
    invitation = await _invited(page, token)
    return await _show(page, invitation, token, FieldErrors())


async def _show(
    page: OpenRequest, invitation: Invitation | None, token: str, errors: FieldErrors
) -> Response:
    refused = ""
    if not await may_sign_up(page.region, invited=invitation is not None):
        refused = _CLOSED if page.region.settings.sign_up == "closed" else _INVITED_ONLY
    values: dict[str, Any] = {name: page.form.text(name) for name in ("name", "email")}
    if invitation is not None and not values["email"]:
        values["email"] = invitation.email
    return await page.render(
        "outside/sign_up.html",
        422 if errors else (403 if refused and page.request.method == "POST" else 200),
        invitation=invitation,
        token=token,
        values=values,
        errors=errors,
        refused=refused,
        next=f"{ROOT}/invitation/{page.region.name}/{token}" if invitation else "",
    )


async def _take(page: OpenRequest) -> Response:
    region, form = page.region, page.form
    await region.attempts.take(page.client_ip)
    token = form.text("invitation")
    invitation = await _invited(page, token)
    if not await may_sign_up(region, invited=invitation is not None):
        return await _show(page, invitation, token, FieldErrors())
    errors = FieldErrors()
    for name, check, value in (
        ("name", check_user_name, form.text("name")),
        ("email", check_email, form.text("email")),
        ("password", check_password, form.raw("password")),
    ):
        try:
            check(value)
        except ValueError as error:
            errors[name] = str(error)
    if errors:
        return await _show(page, invitation, token, errors)
    hash = await region.passwords.hash(form.raw("password"))
    try:
        async with region.db.transaction() as connection:
            plan = await check_sign_up(region, connection, invited=invitation is not None)
            made = await sign_up(
                connection, email=form.text("email"), name=form.text("name"), password=hash, plan=plan
            )
            if invitation is not None:
                await invitations.accept(connection, token, made.user.id, actor_of(made.user))
    except SignUpRefusedError as error:
        return await _show(page, invitation, token, FieldErrors({"": str(error)}))
    next = ""
    if invitation is not None:
        next = f"{ROOT}/{region.name}/{invitation.account_slug}/metrics"
    return await enter(page, region, made.user, next, "after signing up")


async def _invitation(page: OpenRequest) -> Response:
    await page.region.attempts.take(page.client_ip)
    token = page.params["token"]
    invitation = await invitations.find(page.region.db, token)
    signed_in = await page.signed_in(page.region)
    who = None if signed_in is None or signed_in.session.awaits_totp else signed_in.user
    return await page.render(
        "outside/invitation.html",
        invitation=invitation,
        who=who,
        token=token,
        can_sign_up=await may_sign_up(page.region, invited=True),
    )


async def _accept(page: OpenRequest) -> Response:
    region, token = page.region, page.params["token"]
    await region.attempts.take(page.client_ip)
    signed_in = await page.signed_in(region)
    if signed_in is None or signed_in.session.awaits_totp:
        raise PageFaultError(403, "Sign in first", "An invitation is accepted by somebody who is signed in.")
    async with region.db.transaction() as connection:
        try:
            invitation = await invitations.accept(
                connection, token, signed_in.user.id, actor_of(signed_in.user)
            )
        except NotFoundError as error:
            raise PageFaultError(404, "No longer valid", str(error)) from None
    # What this browser may do has changed: it goes on under another token.
    token = await region.sessions.renew(signed_in, page.visitor(region))
    response = page.redirect(f"{ROOT}/{region.name}/{invitation.account_slug}/metrics")
    page.cookies.keep_session(page.request, response, region.name, token)
    return response
