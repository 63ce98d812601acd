"""Forgotten passwords: a link by mail, which sets another one."""

from collections.abc import Sequence

from starlette.responses import Response

from babysea_server.accounts import member_store, user_store
from babysea_server.accounts.sessions import token_hash
from babysea_server.accounts.users import check_email, new_reset_link, reset_password
from babysea_server.console.forms import FieldErrors
from babysea_server.console.navigation import ROOT
from babysea_server.console.region import ConsoleRegion
from babysea_server.console.request import OpenRequest
from babysea_server.console.routes import OpenRoute
from babysea_server.kit.faults import NotFoundError


def routes() -> Sequence[OpenRoute]:
    """The routes of this page."""
    return [
        OpenRoute("GET", "/forgot-password", _forgot),
        OpenRoute("POST", "/forgot-password", _send),
        OpenRoute("GET", "/reset/{region}/{token}", _reset),
        OpenRoute("POST", "/reset/{region}/{token}", _take),
    ]


async def _forgot(page: OpenRequest) -> Response:
    return await _show_forgot(page, FieldErrors())


async def _show_forgot(page: OpenRequest, errors: FieldErrors, *, sent: bool = False) -> Response:
    return await page.render(
        "outside/forgot.html",
        422 if errors else 200,
        form=page.form,
        errors=errors,
        sent=sent,
        mails=page.region.mailing.works,
    )


async def _send(page: OpenRequest) -> Response:
    region = page.region
    await region.attempts.take(page.client_ip, page.form.text("email"))
    try:
        email = check_email(page.form.text("email"))
    except ValueError as error:
        return await _show_forgot(page, FieldErrors(email=str(error)))
    if region.mailing.works:
        await _mail_link(region, email)
    # The same answer for an address that nobody has: whether somebody is a user is nobody's business.
    return await _show_forgot(page, FieldErrors(), sent=True)


async def _mail_link(region: ConsoleRegion, email: str) -> None:
    user = await user_store.by_email(region.db, email)
    if user is None:
        return
    memberships = await member_store.of_user(region.db, user.id)
    token = await new_reset_link(region.db, user.id)
    link = f"{region.origin}{ROOT}/reset/{region.name}/{token}"
    text = (
        f"Somebody, perhaps you, asked to set another password for {user.email}.\n\n{link}\n\n"
        "The link works once, for an hour. If it was not you, do nothing: your password stays as it is."
    )
    region.mailing.post(
        user.email,
        "auth.password_reset",
        text,
        account_id=memberships[0].account_id if memberships else user.id,
        account_name=memberships[0].name if memberships else user.name,
        now=region.clock.now(),
    )


async def _reset(page: OpenRequest) -> Response:
    return await _show_reset(page, FieldErrors())


async def _show_reset(page: OpenRequest, errors: FieldErrors) -> Response:
    await page.region.attempts.take(page.client_ip)
    user = await user_store.link_user(page.region.db, "password_resets", token_hash(page.params["token"]))
    if user is None:
        raise NotFoundError("This link is no longer valid. Links work once, for an hour.")
    return await page.render("outside/reset.html", 422 if errors else 200, email=user.email, errors=errors)


async def _take(page: OpenRequest) -> Response:
    region = page.region
    await region.attempts.take(page.client_ip)
    try:
        await reset_password(region.db, region.passwords, page.params["token"], page.form.raw("password"))
    except ValueError as error:
        return await _show_reset(page, FieldErrors(password=str(error)))
    return page.redirect(f"{ROOT}/sign-in?region={region.name}&told=password")
