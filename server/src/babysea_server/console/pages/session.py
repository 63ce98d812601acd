"""What belongs to no page: signing out, live events, another account, the account's picture."""

from collections.abc import Sequence

from starlette.responses import Response, StreamingResponse

from babysea_server.accounts import session_store
from babysea_server.accounts.roles import Action
from babysea_server.accounts.users import create_team
from babysea_server.console import accounts_store
from babysea_server.console.faults import not_found
from babysea_server.console.forms import FieldErrors
from babysea_server.console.navigation import ROOT
from babysea_server.console.plans import sign_up_plan
from babysea_server.console.request import PageRequest
from babysea_server.console.routes import Route


def routes() -> Sequence[Route]:
    """The routes of this page."""
    return [
        Route("GET", "", Action.METRICS_VIEW, _home),
        Route("GET", "/events", Action.EVENTS_HEAR, _events),
        Route("GET", "/picture", Action.METRICS_VIEW, _picture),
        Route("GET", "/new-account", Action.ACCOUNT_CREATE, _new_account),
        Route("POST", "/new-account", Action.ACCOUNT_CREATE, _create_account),
        Route("POST", "/sign-out", Action.PROFILE_EDIT, _sign_out),
        Route("POST", "/sign-out-everywhere", Action.PROFILE_EDIT, _sign_out_everywhere),
    ]


async def _home(page: PageRequest) -> Response:
    return await page.redirect("/metrics")


async def _events(page: PageRequest) -> Response:
    events = await page.region.live.watch(page.account_id, page.signed_in.session.id)
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _picture(page: PageRequest) -> Response:
    found = await accounts_store.picture(page.db, page.account_id)
    if found is None:
        raise not_found()
    content_type, content = found
    return Response(content, media_type=content_type, headers={"cache-control": "private, max-age=60"})


async def _new_account(page: PageRequest) -> Response:
    return await page.render("new_account.html", form=page.form, errors=FieldErrors())


async def _create_account(page: PageRequest) -> Response:
    plan = sign_up_plan(page.region)
    try:
        if plan is None:
            raise ValueError("The operator has no plan for new accounts.")
        account = await create_team(page.db, page.user, page.form.text("name"), plan)
    except ValueError as error:
        return await page.render("new_account.html", 422, form=page.form, errors=FieldErrors(name=str(error)))
    slug = await accounts_store.slug(page.db, account.id)
    return page.leave(f"{ROOT}/{page.region.name}/{slug}/metrics")


async def _sign_out(page: PageRequest) -> Response:
    await page.region.sessions.end(page.signed_in)
    return _out(page)


async def _sign_out_everywhere(page: PageRequest) -> Response:
    async with page.db.transaction() as connection:
        await session_store.end_all(connection, page.user.id)
        await page.record(
            "auth.signed_out_everywhere", f"{page.user.email} signed out everywhere", connection
        )
    return _out(page)


def _out(page: PageRequest) -> Response:
    response = page.leave(f"{ROOT}/sign-in?region={page.region.name}")
    page.cookies.forget(page.request, response, page.region.name)
    response.headers["clear-site-data"] = '"cache"'
    return response
