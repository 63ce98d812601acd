"""The console as one ASGI application: from a path to a page, with every check before it."""

from collections.abc import Mapping
from typing import Any

import asyncpg
import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from babysea_server.accounts import member_store
from babysea_server.accounts.roles import may
from babysea_server.console.faults import PageFaultError, forbidden, not_found
from babysea_server.console.forms import Form, read_form
from babysea_server.console.navigation import ROOT
from babysea_server.console.pages import ACCOUNT_PAGES, OPEN_PAGES
from babysea_server.console.region import ConsoleRegion
from babysea_server.console.request import OpenRequest, PageRequest
from babysea_server.console.routes import OpenRoute, Route, RouteTable
from babysea_server.console.security import VISIT, Cookies, check_form, check_origin, new_nonce, protect
from babysea_server.console.templating import templates
from babysea_server.db.pool import DatabaseUnavailableError, fault_of
from babysea_server.kit.faults import NotFoundError
from babysea_server.kit.ids import request_id

_log = structlog.get_logger(__name__)

_STATIC = f"{ROOT}/static/"
_YEAR = "public, max-age=31536000, immutable"


class ConsoleApp:
    """Serves `/console` and everything beneath it.

    Args:
        regions: by name, the default region first.
        secure: whether the console is reached over TLS, whatever a request says.
    """

    def __init__(self, regions: Mapping[str, ConsoleRegion], *, secure: bool = False) -> None:
        self.regions = dict(regions)
        self.templates = templates()
        self.cookies = Cookies(secure=secure)
        self.routes: RouteTable[Route] = RouteTable(
            route for page in ACCOUNT_PAGES for route in page.routes()
        )
        self.open_routes: RouteTable[OpenRoute] = RouteTable(
            route for page in OPEN_PAGES for route in page.routes()
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        nonce, identifier = new_nonce(), request_id()
        origins = ""
        forms_to = ""
        try:
            asked = self._asked(request, nonce, identifier)
            response, page = await self._answer(request, asked)
            if page is not None:
                origins, forms_to = page.region.api_origin or "", page.forms_to
        except PageFaultError as error:
            response = self._error_page(request, error, nonce, identifier)
        except NotFoundError as error:
            response = self._error_page(
                request, PageFaultError(404, "Not found", str(error)), nonce, identifier
            )
        except DatabaseUnavailableError as error:
            _log.warning("console_without_database", request_id=identifier, error=fault_of(error))
            response = self._error_page(request, _away(), nonce, identifier)
        except asyncpg.QueryCanceledError:
            response = self._error_page(request, _away(), nonce, identifier)
        except Exception as error:
            # Values never reach the log: a fault of the database may quote them.
            shown = fault_of(error) if isinstance(error, asyncpg.PostgresError) else None
            _log.error(
                "console_failed",
                request_id=identifier,
                path=request.url.path,
                error=shown,
                exc_info=not shown,
            )
            response = self._error_page(request, _broken(), nonce, identifier)
        response.headers.setdefault("x-request-id", identifier)
        protect(response, nonce, origins, forms_to)
        await response(scope, receive, send)

    def _asked(self, request: Request, nonce: str, identifier: str) -> dict[str, Any]:
        client = request.client
        return {
            "request": request,
            "request_id": identifier,
            "nonce": nonce,
            "client_ip": "" if client is None else client.host,
            "regions": self.regions,
            "templates": self.templates,
            "cookies": self.cookies,
        }

    async def _answer(
        self, request: Request, asked: dict[str, Any]
    ) -> tuple[Response, PageRequest | OpenRequest | None]:
        path = request.url.path
        if path.startswith(_STATIC):
            return self._static(request, path.removeprefix(_STATIC)), None
        rest = path.removeprefix(ROOT).rstrip("/")
        if found := self.open_routes.find(rest):
            route = _by_method(request.method, found[0])
            opened = OpenRequest(**asked, params=found[1], form=Form(), visit=self.cookies.visit(request))
            if request.method == "POST":
                opened.form = await read_form(request, upload=False)
                check_origin(request)
                if not route.harmless:
                    visit = self.cookies.get(request, VISIT)
                    keys = opened.region.keys
                    check_form(request, opened.form.text("csrf"), visit, keys.forms, keys.other_forms)
            return await route.handler(opened), opened
        region_name, _, beyond = rest.removeprefix("/").partition("/")
        slug, slash, inner = beyond.partition("/")
        region = self.regions.get(region_name)
        if region is None or not slug:
            raise not_found()
        return await self._account_page(request, asked, region, slug, slash + inner)

    async def _account_page(
        self, request: Request, asked: dict[str, Any], region: ConsoleRegion, slug: str, inner: str
    ) -> tuple[Response, PageRequest | None]:
        token = self.cookies.get(request, region.name)
        signed_in = await region.sessions.find(token) if token else None
        if signed_in is None or signed_in.session.awaits_totp:
            return self._to_sign_in(request, region), None
        accounts = await member_store.of_user(region.db, signed_in.user.id)
        account = next((each for each in accounts if each.slug == slug), None)
        account = account or await member_store.in_account(region.db, signed_in.user.id, slug)
        found = self.routes.find(inner or "")
        if account is None or found is None:
            raise not_found()
        route = _by_method(request.method, found[0])
        page = PageRequest(
            **asked,
            params=found[1],
            form=Form(),
            region=region,
            account=account,
            accounts=accounts,
            signed_in=signed_in,
            action=route.action,
        )
        try:
            await self._check(request, page, route)
            return await route.handler(page), page
        except PageFaultError as error:
            return await self._inner_error_page(page, error), page
        except NotFoundError as error:
            return await self._inner_error_page(page, PageFaultError(404, "Not found", str(error))), page

    async def _check(self, request: Request, page: PageRequest, route: Route) -> None:
        """Before a handler runs: the role, then the form."""
        if not may(page.role, route.action):
            raise forbidden(f"The role {page.role} does not allow this. Ask an owner of {page.account.name}.")
        if request.method == "POST":
            check_origin(request)
            page.form = await read_form(request, upload=route.upload)
            keys = page.region.keys
            check_form(request, page.form.text("csrf"), page.signed_in.token, keys.forms, keys.other_forms)

    def _to_sign_in(self, request: Request, region: ConsoleRegion) -> Response:
        there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        query = {"region": region.name, "next": there if request.method == "GET" else None}
        target = f"{ROOT}/sign-in" + self.templates.query(query)
        if "x-dialog" in request.headers:
            return Response(status_code=204, headers={"x-location": target})
        if request.headers.get("accept") == "text/event-stream":
            return Response(status_code=204)  # tells the browser not to come again
        return RedirectResponse(target, 303)

    def _static(self, request: Request, name: str) -> Response:
        asset = self.templates.assets.get(name)
        if asset is None or request.method not in ("GET", "HEAD"):
            raise not_found()
        tag = f'"{asset.version}"'
        fresh = request.query_params.get("v") == asset.version
        headers = {"cache-control": _YEAR if fresh else "no-cache", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(asset.content, media_type=asset.content_type, headers=headers)

    def _error_page(self, request: Request, error: PageFaultError, nonce: str, identifier: str) -> Response:
        theme = request.cookies.get("babysea-theme", "auto")
        html = self.templates.render(
            "error_outside.html",
            error=error,
            request_id=identifier,
            theme=theme if theme in ("light", "dark") else "auto",
            nonce=nonce,
        )
        return Response(html, error.status, error.headers, "text/html; charset=utf-8")

    async def _inner_error_page(self, page: PageRequest, error: PageFaultError) -> Response:
        response = await page.render("error.html", error.status, error=error)
        response.headers.update(error.headers)
        return response


def _by_method(method: str, routes: Mapping[str, Any]) -> Any:
    route = routes.get("GET" if method == "HEAD" else method)
    if route is None:
        allowed = ", ".join(sorted({*routes, *(["HEAD"] if "GET" in routes else [])}))
        raise PageFaultError(405, "Not possible", "This address does not take that.", {"allow": allowed})
    return route


def _away() -> PageFaultError:
    return PageFaultError(
        503,
        "The database cannot be reached",
        "Nothing was changed. Try again in a moment.",
        {"retry-after": "5"},
    )


def _broken() -> PageFaultError:
    return PageFaultError(
        500,
        "Something went wrong",
        "It has been logged. If it happens again, tell the operator the request's id.",
    )
