"""The link that a new e-mail address is confirmed by."""

from collections.abc import Sequence

from starlette.responses import Response

from babysea_server.accounts import member_store
from babysea_server.accounts.profiles import EmailTakenError, change_email, pending_email
from babysea_server.accounts.user_store import User
from babysea_server.console.forms import FieldErrors
from babysea_server.console.request import OpenRequest
from babysea_server.console.routes import OpenRoute


def routes() -> Sequence[OpenRoute]:
    """The routes of this page."""
    return [
        OpenRoute("GET", "/email/{region}", _show),
        OpenRoute("POST", "/email/{region}", _change),
    ]


async def _show(page: OpenRequest) -> Response:
    """Only a form changes the address: whoever looks at links in mail does not."""
    return await _render(page, page.query.get("token", ""), FieldErrors())


async def _render(page: OpenRequest, token: str, errors: FieldErrors) -> Response:
    region = page.region
    await region.attempts.take(page.client_ip)
    user, email = await pending_email(
        region.db, region.keys.forms, token, region.clock.now(), region.keys.other_forms
    )
    return await page.render(
        "outside/email.html",
        422 if errors else 200,
        done=False,
        old=user.email,
        email=email,
        token=token,
        errors=errors,
    )


async def _change(page: OpenRequest) -> Response:
    region, token = page.region, page.form.text("token")
    await region.attempts.take(page.client_ip)
    try:
        user, email = await change_email(
            region.db, region.keys.forms, token, region.clock.now(), region.keys.other_forms
        )
    except EmailTakenError:
        return await _render(page, token, FieldErrors({"": "Another user has this address."}))
    await _tell_old_address(page, user, email)
    return await page.render("outside/email.html", done=True, email=email)


async def _tell_old_address(page: OpenRequest, user: User, email: str) -> None:
    """Whoever did not do it hears of it where they can still read."""
    region = page.region
    memberships = await member_store.of_user(region.db, user.id)
    text = f"You sign in with {email} from now on. If it was not you, tell the operator of this installation."
    region.mailing.post(
        user.email,
        "auth.email_changed",
        text,
        account_id=memberships[0].account_id if memberships else user.id,
        account_name=memberships[0].name if memberships else user.name,
        now=region.clock.now(),
    )
