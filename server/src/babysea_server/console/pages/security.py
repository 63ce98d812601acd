"""My profile, security: password, second step, recovery codes, and where one is signed in."""

import io
from collections.abc import Sequence

import segno
from starlette.responses import Response

from babysea_server.accounts import identities, profiles, session_store, user_store
from babysea_server.accounts.passwords import LENGTH_MIN, check_password
from babysea_server.accounts.roles import Action
from babysea_server.accounts.sessions import IDLE_S
from babysea_server.accounts.totp import provisioning_uri
from babysea_server.accounts.users import confirm_totp, note_everywhere
from babysea_server.console import people_store
from babysea_server.console.browsers import browser_name
from babysea_server.console.faults import PageFaultError
from babysea_server.console.forms import FieldErrors
from babysea_server.console.listing import Column, Listing, Page
from babysea_server.console.reauthentication import prove
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route
from babysea_server.kit.faults import NotFoundError
from babysea_server.webhooks.secrets import SealedSecretError

_SESSION_COLUMNS = (
    Column("browser", "Browser"),
    Column("address", "Address hash"),
    Column("seen", "Last seen", sort=True),
    Column("created", "Signed in", sort=True),
    Column("actions", "Actions", kind="actions"),
)
_CODES = "codes"


def routes() -> Sequence[Route]:
    """The routes of this page."""
    view, edit = Action.PROFILE_VIEW, Action.PROFILE_EDIT
    return [
        Route("GET", "/profile/security", view, _show),
        Route("GET", "/profile/password", edit, _ask_password),
        Route("POST", "/profile/password", edit, _change_password),
        Route("POST", "/profile/totp", edit, _begin_totp),
        Route("GET", "/profile/totp", edit, _ask_code),
        Route("POST", "/profile/totp/confirm", edit, _confirm_totp),
        Route("GET", "/profile/totp/off", edit, _ask_totp_off),
        Route("POST", "/profile/totp/off", edit, _totp_off),
        Route("GET", "/profile/recovery-codes", edit, _ask_codes),
        Route("POST", "/profile/recovery-codes", edit, _new_codes),
        Route("GET", "/profile/recovery-codes/secret", edit, _show_codes),
        Route("GET", "/profile/sessions", view, _sessions),
        Route("POST", "/profile/sessions/end-others", edit, _end_others),
        Route("POST", "/profile/sessions/{session_id}/end", edit, _end_session),
    ]


async def _show(page: PageRequest) -> Response:
    return await page.render(
        "profile/security.html",
        codes_left=await user_store.recovery_codes_left(page.db, page.user.id),
        issuers=await identities.issuers_of(page.db, page.user.id),
    )


async def _renewed(page: PageRequest, path: str, toast: str = "", codes: Sequence[str] = ()) -> Response:
    """Lead on under another token, as after everything that changes what opens the door.

    What the next page tells is kept with the new session.
    """
    sessions = page.region.sessions
    token = await sessions.begin(page.user.id, page.visitor(page.region))
    await sessions.end(page.signed_in)
    found = await sessions.find(token)
    assert found is not None
    page.signed_in = found
    response = await page.redirect(path, toast, reveal={_CODES: "\n".join(codes)} if codes else None)
    page.cookies.keep_session(page.request, response, page.region.name, token)
    return response


# ------------------------------------------------------------------------------- password


async def _ask_password(page: PageRequest) -> Response:
    return await _show_password(page, FieldErrors())


async def _show_password(page: PageRequest, errors: FieldErrors) -> Response:
    return await page.render("profile/password.html", 422 if errors else 200, errors=errors, least=LENGTH_MIN)


async def _change_password(page: PageRequest) -> Response:
    errors = FieldErrors()
    password = page.form.raw("password")
    try:
        check_password(password)
    except ValueError as error:
        errors["password"] = str(error)
    if password != page.form.raw("again"):
        errors["again"] = "These are two different passwords."
    if page.user.password is not None:  # whoever came in by a link sets the first one
        await prove(page, errors)
    if errors:
        return await _show_password(page, errors)
    await profiles.change_password(page.db, page.region.passwords, page.user, password)
    return await _renewed(
        page, "/profile/security", "Your password was changed. You are signed out everywhere else."
    )


# ------------------------------------------------------------------------------- the second step


async def _begin_totp(page: PageRequest) -> Response:
    if page.user.totp_secret is not None:
        return await page.redirect("/profile/security", "The second step is on already.", kind="info")
    await profiles.begin_totp(page.db, page.region.secrets, page.user)
    return await page.redirect("/profile/totp")


async def _ask_code(page: PageRequest) -> Response:
    return await _show_totp(page, FieldErrors())


async def _show_totp(page: PageRequest, errors: FieldErrors) -> Response:
    user = page.user
    if user.totp_pending is None or user.totp_secret is not None:
        return await page.redirect("/profile/security")
    try:
        secret = page.region.secrets.open(user.totp_pending)
    except SealedSecretError:
        # Made under another master key; nothing is lost with it.
        await user_store.set_totp_pending(page.db, user.id, None)
        return await page.redirect("/profile/security", "Begin again: the code has expired.", kind="warning")
    return await page.render(
        "profile/totp.html",
        422 if errors else 200,
        errors=errors,
        drawing=_drawing(provisioning_uri(secret, user.email)),
        secret=" ".join(secret[start : start + 4] for start in range(0, len(secret), 4)),
    )


def _drawing(text: str) -> tuple[int, str]:
    """A QR code: how many squares it has at an edge, and the path that fills the dark ones."""
    rows = [list(row) for row in segno.make_qr(text, error="m").matrix_iter(border=0)]
    path = io.StringIO()
    for y, row in enumerate(rows):
        for x, dark in enumerate(row):
            if dark:
                path.write(f"M{x} {y}h1v1h-1z")
    return len(rows), path.getvalue()


async def _confirm_totp(page: PageRequest) -> Response:
    if page.user.totp_secret is not None:
        return await page.redirect("/profile/security")
    errors = FieldErrors()
    await page.region.attempts.take(page.client_ip, f"totp:{page.user.id}")
    if await prove(page, errors):
        try:
            codes = await confirm_totp(
                page.db, page.region.secrets, page.user, page.form.text("code"), page.now
            )
            return await _renewed(page, "/profile/recovery-codes/secret", codes=codes)
        except ValueError as error:
            errors["code"] = str(error)
        except SealedSecretError:
            errors[""] = "Begin again: this code has expired."
    return await _show_totp(page, errors)


async def _ask_totp_off(page: PageRequest) -> Response:
    return await _show_totp_off(page, FieldErrors())


async def _show_totp_off(page: PageRequest, errors: FieldErrors) -> Response:
    return await page.render("profile/totp_off.html", 422 if errors else 200, errors=errors)


async def _totp_off(page: PageRequest) -> Response:
    errors = FieldErrors()
    if not await prove(page, errors):
        return await _show_totp_off(page, errors)
    if page.user.totp_secret is not None:
        await profiles.turn_off_totp(page.db, page.user)
    return await _renewed(page, "/profile/security", "The second step is off.")


# ------------------------------------------------------------------------------- recovery codes


async def _ask_codes(page: PageRequest) -> Response:
    return await _show_new_codes(page, FieldErrors())


async def _show_new_codes(page: PageRequest, errors: FieldErrors) -> Response:
    if page.user.totp_secret is None:
        raise PageFaultError(
            404, "No second step", "Recovery codes come with the second step. Turn it on first."
        )
    return await page.render("profile/new_codes.html", 422 if errors else 200, errors=errors)


async def _new_codes(page: PageRequest) -> Response:
    errors = FieldErrors()
    if page.user.totp_secret is None or not await prove(page, errors):
        return await _show_new_codes(page, errors)
    codes = await profiles.renew_recovery_codes(page.db, page.user)
    return await _renewed(page, "/profile/recovery-codes/secret", codes=codes)


async def _show_codes(page: PageRequest) -> Response:
    codes = (await page.revealed()).get(_CODES, "").split()
    return await page.render("profile/codes.html", codes=codes)


# ------------------------------------------------------------------------------- sessions


async def _sessions(page: PageRequest) -> Response:
    listing = Listing.read(
        page.url("/profile/sessions"), page.query, sorts=people_store.SESSION_SORTS, default="-seen"
    )
    rows, total = await people_store.sessions(page.db, page.user.id, listing, idle_s=IDLE_S)
    return await page.render(
        "profile/sessions.html",
        listing=listing,
        result=Page.of(rows, listing, total),
        columns=_SESSION_COLUMNS,
        browser_name=browser_name,
        this_session=page.signed_in.session.id,
    )


async def _end_session(page: PageRequest) -> Response:
    async with page.db.transaction() as connection:
        if not await session_store.end(connection, page.id("session_id"), page.user.id):
            raise NotFoundError("There is no such session. It may have ended by itself.")
        await note_everywhere(
            connection, page.user, "auth.session_ended", f"{page.user.email} ended a session"
        )
    return await page.redirect("/profile/sessions", "The session was ended.")


async def _end_others(page: PageRequest) -> Response:
    async with page.db.transaction() as connection:
        await session_store.end_all(connection, page.user.id, but=page.signed_in.session.id)
        told = f"{page.user.email} ended all other sessions"
        await note_everywhere(connection, page.user, "auth.sessions_ended", told)
    return await page.redirect("/profile/sessions", "You are signed out everywhere else.")
