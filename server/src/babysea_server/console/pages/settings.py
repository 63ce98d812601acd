"""Settings: what the account is called, its picture, and its end: handed over, or deleted."""

from collections.abc import Sequence

import msgspec
from starlette.responses import Response

from babysea_server.accounts import member_store, members
from babysea_server.accounts.members import RoleRefusedError
from babysea_server.accounts.naming import SlugTakenError, check_slug, rename
from babysea_server.accounts.pictures import PictureRefusedError, remove_picture, set_picture
from babysea_server.accounts.removal import RemovalRefusedError, check_removable, remove_account
from babysea_server.accounts.roles import Action
from babysea_server.accounts.users import check_user_name
from babysea_server.console.forms import FieldErrors
from babysea_server.console.navigation import ROOT
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route

_UNFINISHED = "There is a lot to delete, and some of it is left. Confirm once more to go on."


def routes() -> Sequence[Route]:
    """The routes of this page."""
    edit, transfer, delete = Action.SETTINGS_EDIT, Action.ACCOUNT_TRANSFER, Action.ACCOUNT_DELETE
    return [
        Route("GET", "/settings", Action.SETTINGS_VIEW, _show),
        Route("POST", "/settings", edit, _rename),
        Route("POST", "/settings/picture", edit, _set_picture, upload=True),
        Route("POST", "/settings/picture/remove", edit, _remove_picture),
        Route("GET", "/settings/transfer", transfer, _ask_transfer),
        Route("POST", "/settings/transfer", transfer, _transfer),
        Route("GET", "/settings/delete", delete, _ask_delete),
        Route("POST", "/settings/delete", delete, _delete),
    ]


async def _show(page: PageRequest) -> Response:
    return await _render(page, FieldErrors(), name=page.account.name, slug=page.account.slug)


async def _render(page: PageRequest, errors: FieldErrors, *, name: str, slug: str) -> Response:
    return await page.render(
        "settings.html", 422 if errors else 200, errors=errors, name=name, slug=slug, base=_base(page)
    )


def _base(page: PageRequest) -> str:
    """What comes before the slug in addresses."""
    return f"{page.request.url.netloc}{ROOT}/{page.region.name}/"


async def _rename(page: PageRequest) -> Response:
    errors = FieldErrors()
    name, slug = page.form.text("name"), page.form.text("slug")
    for field, check, value in (("name", check_user_name, name), ("slug", check_slug, slug)):
        try:
            check(value)
        except ValueError as error:
            errors[field] = str(error)
    if not errors:
        try:
            named = await rename(page.db, page.account_id, name=name, slug=slug, actor=page.actor)
        except SlugTakenError:
            errors["slug"] = "Another account of this region has this name in its addresses."
    if errors:
        return await _render(page, errors, name=name, slug=slug)
    page.account = msgspec.structs.replace(page.account, name=named.name, slug=named.slug)
    return await page.redirect("/settings", "The account was saved.")


# ------------------------------------------------------------------------------- picture


async def _set_picture(page: PageRequest) -> Response:
    upload = page.form.uploads.get("picture")
    try:
        if upload is None:
            raise PictureRefusedError("Choose a picture first.")
        await set_picture(page.db, page.account_id, upload.content, actor=page.actor)
    except PictureRefusedError as error:
        errors = FieldErrors(picture=str(error))
        return await _render(page, errors, name=page.account.name, slug=page.account.slug)
    return await page.redirect("/settings", "The picture was changed.")


async def _remove_picture(page: PageRequest) -> Response:
    await remove_picture(page.db, page.account_id, actor=page.actor)
    return await page.redirect("/settings", "The picture was removed.")


# ------------------------------------------------------------------------------- transfer


async def _ask_transfer(page: PageRequest) -> Response:
    return await _show_transfer(page, FieldErrors())


async def _show_transfer(page: PageRequest, errors: FieldErrors) -> Response:
    others = [
        member
        for member in await members.members_of(page.db, page.account_id)
        if member.user_id != page.user.id
    ]
    return await page.render(
        "settings/transfer.html",
        422 if errors else 200,
        others=[(str(member.user_id), f"{member.name} ({member.email})") for member in others],
        chosen=page.form.text("to") or page.query.get("to", ""),
        form=page.form,
        errors=errors,
    )


async def _transfer(page: PageRequest) -> Response:
    errors = FieldErrors()
    everybody = await members.members_of(page.db, page.account_id)
    heir = next((member for member in everybody if str(member.user_id) == page.form.text("to")), None)
    if heir is None or heir.user_id == page.user.id:
        errors["to"] = "Choose another member."
    if not _confirmed(page):
        errors["confirm"] = "Type the account's name exactly as it stands above."
    if errors or heir is None:
        return await _show_transfer(page, errors)
    try:
        await members.transfer(page.db, page.account_id, heir.user_id, by=page.user.id, actor=page.actor)
    except RoleRefusedError as error:
        return await _show_transfer(page, FieldErrors({"": str(error)}))
    return await page.redirect("/settings", f"{heir.name} is the primary owner now. You are an owner.")


def _confirmed(page: PageRequest) -> bool:
    """Whether the account's name was typed; white space is not to be seen in it."""
    return page.form.text("confirm").split() == page.account.name.split()


# ------------------------------------------------------------------------------- delete


async def _ask_delete(page: PageRequest) -> Response:
    return await _show_delete(page, FieldErrors())


async def _show_delete(page: PageRequest, errors: FieldErrors) -> Response:
    stands_in_the_way = ""
    try:
        await check_removable(page.db, page.account_id)
    except RemovalRefusedError as error:
        stands_in_the_way = str(error)
    return await page.render(
        "settings/delete.html",
        422 if errors else 200,
        form=page.form,
        errors=errors,
        stands_in_the_way=stands_in_the_way,
        days=page.region.settings.request_log_days,
    )


async def _delete(page: PageRequest) -> Response:
    if page.account.is_personal:
        # It goes with its user, who else would be in no account at all.
        return await _show_delete(page, FieldErrors({"": "Delete your user under My profile instead."}))
    if not _confirmed(page):
        return await _show_delete(
            page, FieldErrors(confirm="Type the account's name exactly as it stands above.")
        )
    try:
        done = await remove_account(page.db, page.clock, page.account_id, actor=page.actor)
    except RemovalRefusedError as error:
        return await _show_delete(page, FieldErrors({"": str(error)}))
    if not done:
        return await _show_delete(page, FieldErrors({"": _UNFINISHED}))
    left = await member_store.of_user(page.db, page.user.id)
    if not left:
        return page.leave(f"{ROOT}/region/{page.region.name}")
    page.account = left[0]
    return await page.redirect("/metrics", "The account was deleted.")
