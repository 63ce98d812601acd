"""My profile: name and address, one's data, and one's end. What opens the door is under `security`."""

from collections.abc import Sequence

from starlette.responses import Response, StreamingResponse

from babysea_server.accounts import member_store
from babysea_server.accounts.profiles import email_change_token, set_name
from babysea_server.accounts.removal import RemovalRefusedError, blocking_teams, remove_user
from babysea_server.accounts.roles import Action
from babysea_server.accounts.users import check_email, note_everywhere
from babysea_server.console import export
from babysea_server.console.forms import FieldErrors
from babysea_server.console.navigation import ROOT
from babysea_server.console.reauthentication import prove
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route

_UNFINISHED = "There is a lot to delete, and some of it is left. Confirm once more to go on."


def routes() -> Sequence[Route]:
    """The routes of this page."""
    view, edit = Action.PROFILE_VIEW, Action.PROFILE_EDIT
    return [
        Route("GET", "/profile", view, _show),
        Route("POST", "/profile", edit, _set_name),
        Route("GET", "/profile/email", edit, _ask_email),
        Route("POST", "/profile/email", edit, _send_email),
        Route("POST", "/profile/data", edit, _download),
        Route("GET", "/profile/delete", edit, _ask_delete),
        Route("POST", "/profile/delete", edit, _delete),
    ]


async def _show(page: PageRequest) -> Response:
    return await _render(page, FieldErrors(), page.user.name)


async def _render(page: PageRequest, errors: FieldErrors, name: str) -> Response:
    return await page.render("profile.html", 422 if errors else 200, errors=errors, name=name)


async def _set_name(page: PageRequest) -> Response:
    try:
        await set_name(page.db, page.user, page.form.text("name"))
    except ValueError as error:
        return await _render(page, FieldErrors(name=str(error)), page.form.text("name"))
    return await page.redirect("/profile", "Your name was saved.")


# ------------------------------------------------------------------------------- e-mail


async def _ask_email(page: PageRequest) -> Response:
    return await _show_email(page, FieldErrors())


async def _show_email(page: PageRequest, errors: FieldErrors, sent_to: str = "") -> Response:
    return await page.render(
        "profile/email.html",
        422 if errors else 200,
        form=page.form,
        errors=errors,
        sent_to=sent_to,
        mails=page.region.mailing.works,
    )


async def _send_email(page: PageRequest) -> Response:
    errors = FieldErrors()
    email = ""
    try:
        email = check_email(page.form.text("email"))
        if email == page.user.email:
            raise ValueError("This is your address already.")
    except ValueError as error:
        errors["email"] = str(error)
    if not page.region.mailing.works:
        errors[""] = "This installation sends no mail, so a new address cannot be confirmed."
    await prove(page, errors)
    if errors:
        return await _show_email(page, errors)
    token = email_change_token(page.region.keys.forms, page.user, email, page.now)
    link = f"{page.region.origin}{ROOT}/email/{page.region.name}" + page.templates.query({"token": token})
    text = (
        f"Somebody, perhaps you, asked that {page.user.email} sign in with this address from now on.\n\n{link}\n\n"
        "The link works once, for an hour. If it was not you, do nothing."
    )
    page.region.mailing.post(
        email,
        "auth.email_change",
        text,
        account_id=page.account_id,
        account_name=page.account.name,
        now=page.now,
    )
    # The same answer for an address that somebody else has: whose it is, is told to whoever opens the link.
    return await _show_email(page, errors, sent_to=email)


# ------------------------------------------------------------------------------- data


async def _download(page: PageRequest) -> Response:
    await note_everywhere(
        page.db, page.user, "auth.data_exported", f"{page.user.email} downloaded their data"
    )
    return StreamingResponse(
        export.user_data(page.db, page.region.name, page.user, page.now),
        media_type="application/json",
        headers={"content-disposition": f'attachment; filename="babysea-{page.region.name}-my-data.json"'},
    )


# ------------------------------------------------------------------------------- the end


async def _ask_delete(page: PageRequest) -> Response:
    return await _show_delete(page, FieldErrors())


async def _show_delete(page: PageRequest, errors: FieldErrors) -> Response:
    memberships = await member_store.of_user(page.db, page.user.id)
    return await page.render(
        "profile/delete.html",
        422 if errors else 200,
        form=page.form,
        errors=errors,
        teams=await blocking_teams(page.db, page.user.id),
        personal=[each for each in memberships if each.role == "primary-owner" and each.is_personal],
        others=[each for each in memberships if each.role != "primary-owner"],
        days=page.region.settings.request_log_days,
    )


async def _delete(page: PageRequest) -> Response:
    errors = FieldErrors()
    if page.form.text("confirm").lower() != page.user.email.lower():
        errors["confirm"] = "Type your e-mail address exactly as it stands above."
    await prove(page, errors)
    if not errors:
        try:
            if not await remove_user(page.db, page.clock, page.user):
                errors[""] = _UNFINISHED
        except RemovalRefusedError as error:
            errors[""] = str(error)
    if errors:
        return await _show_delete(page, errors)
    response = page.leave(f"{ROOT}/sign-in?region={page.region.name}")
    page.cookies.forget(page.request, response, page.region.name)
    return response
