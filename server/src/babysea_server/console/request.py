"""One request of a page: who asks, in which account, and how it is answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from babysea_server.accounts import activity
from babysea_server.accounts.activity import Actor
from babysea_server.accounts.member_store import Membership
from babysea_server.accounts.roles import Action, Role, may
from babysea_server.accounts.sessions import SignedIn, Visitor, csrf_token
from babysea_server.accounts.user_store import User
from babysea_server.accounts.users import actor_of
from babysea_server.console.faults import not_found
from babysea_server.console.forms import Form
from babysea_server.console.region import ConsoleRegion
from babysea_server.db.pool import Database
from babysea_server.kit.clock import Clock
from babysea_server.webhooks.secrets import SealedSecretError

if TYPE_CHECKING:
    from babysea_server.console.security import Cookies
    from babysea_server.console.templating import Templates

#: Sent by our script with what it shows as a dialog: redirects are told in a header, for the script to follow.
DIALOG = "x-dialog"
_LOCATION = "x-location"
_TOASTS = "toasts"
_REVEALED = "revealed"


@dataclass(slots=True)
class _Asked:
    """What every request has."""

    request: Request
    request_id: str
    nonce: str
    client_ip: str
    params: Mapping[str, str]
    """The named segments of the path."""
    form: Form
    regions: Mapping[str, ConsoleRegion]
    templates: "Templates"
    cookies: "Cookies"
    forms_to: str = field(default="", kw_only=True)
    """Where else the answer to a form of this page may lead, e.g. `https://checkout.example.com`."""

    @property
    def query(self) -> QueryParams:
        """The parameters after the question mark."""
        return self.request.query_params

    @property
    def theme(self) -> str:
        """`light`, `dark`, or `auto` as the system has it."""
        theme = self.request.cookies.get("babysea-theme", "auto")
        return theme if theme in ("light", "dark") else "auto"

    @property
    def in_dialog(self) -> bool:
        """Whether the script shows the answer as a dialog."""
        return DIALOG in self.request.headers

    def visitor(self, region: ConsoleRegion) -> Visitor:
        """Who asks, as it is kept with a session."""
        return Visitor(
            self.request.headers.get("user-agent", ""), self.templates.address_hash(region, self.client_ip)
        )

    def _away(self, location: str) -> Response:
        if not self.in_dialog:
            return RedirectResponse(location, 303)
        return Response(status_code=204, headers={_LOCATION: location})


@dataclass(slots=True)
class OpenRequest(_Asked):
    """A request to a page that anybody may see."""

    visit: str = ""
    """What its forms are bound to."""

    @property
    def region(self) -> ConsoleRegion:
        """The region that the path, the form or the query names; by default the first.

        Raises:
            PageFaultError: there is no such region.
        """
        named = self.params.get("region") or self.form.text("region") or self.query.get("region")
        if not named:
            return next(iter(self.regions.values()))
        found = self.regions.get(named)
        if found is None:
            raise not_found()
        return found

    async def signed_in(self, region: ConsoleRegion) -> SignedIn | None:
        """Who is signed in in a region, or is about to be; None for nobody."""
        token = self.cookies.get(self.request, region.name)
        return await region.sessions.find(token) if token else None

    async def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page."""
        region = self.region
        csrf = csrf_token(self.visit, region.keys.forms)
        html = self.templates.render(template, page=self, region=region, csrf=csrf, **context)
        response = HTMLResponse(html, status)
        self.cookies.keep_visit(self.request, response, self.visit)
        return response

    def redirect(self, location: str) -> Response:
        """Lead to a path of the console, given whole."""
        return self._away(location)


@dataclass(slots=True)
class PageRequest(_Asked):
    """A request to a page of an account, by one of its members; the action of its route is allowed."""

    region: ConsoleRegion
    account: Membership
    """The account, and what the user is in it."""
    accounts: Sequence[Membership]
    """All accounts of the user in this region."""
    signed_in: SignedIn
    action: Action

    # ---------------------------------------------------------------------------------- who and where

    @property
    def user(self) -> User:
        """Who asks."""
        return self.signed_in.user

    @property
    def role(self) -> Role:
        """What the user is in the account."""
        return self.account.role

    @property
    def account_id(self) -> UUID:
        """The account."""
        return self.account.account_id

    @property
    def actor(self) -> Actor:
        """The user, as activity names it."""
        return actor_of(self.user)

    @property
    def db(self) -> Database:
        """The region's database."""
        return self.region.db

    @property
    def reads(self) -> Database:
        """The region's database, perhaps some seconds ago: for charts and logs alone."""
        return self.region.reads

    @property
    def clock(self) -> Clock:
        """What tells the time."""
        return self.region.clock

    @property
    def now(self) -> datetime:
        """This moment."""
        return self.region.clock.now()

    @property
    def csrf(self) -> str:
        """The token of this session's forms."""
        return csrf_token(self.signed_in.token, self.region.keys.forms)

    @property
    def api_origin(self) -> str:
        """Scheme and authority of the region's API as the browser reaches it."""
        return self.region.api_origin or f"{self.request.url.scheme}://{self.request.url.netloc}"

    def may(self, action: Action | str) -> bool:
        """Whether the user's role allows an action; pages show only what it does."""
        return may(self.role, Action(action))

    def url(self, path: str = "", **query: Any) -> str:
        """The address of a page of this account; arguments that are None are left out."""
        return self.templates.account_url(self.region.name, self.account.slug, path, query)

    def id(self, name: str) -> UUID:
        """A named segment of the path as an id.

        Raises:
            PageFaultError: 404, it is none.
        """
        try:
            return UUID(self.params[name])
        except ValueError:
            raise not_found() from None

    # ---------------------------------------------------------------------------------- what is done

    async def record(self, action: str, description: str, connection: Any = None) -> None:
        """Enter into the account's activity what the user has done.

        Args:
            action: `category.verb`, see `accounts/activity.py`.
            connection: of the transaction that does it.
        """
        await activity.record(connection or self.db, self.account_id, self.actor, action, description)

    # ---------------------------------------------------------------------------------- answers

    async def render(self, template: str, status: int = 200, **context: Any) -> Response:
        """A page, with what the session has to tell once."""
        flash = self.signed_in.session.flash or {}
        toasts = flash.get(_TOASTS, [])
        if toasts and not self.in_dialog:
            left = {name: value for name, value in flash.items() if name != _TOASTS}
            await self.region.sessions.set_flash(self.signed_in.session, left or None)
        html = self.templates.render(
            template,
            page=self,
            region=self.region,
            account=self.account,
            user=self.user,
            csrf=self.csrf,
            url=self.url,
            may=self.may,
            toasts=toasts,
            **context,
        )
        return HTMLResponse(html, status)

    async def redirect(
        self, path: str, toast: str = "", kind: str = "success", reveal: Mapping[str, str] | None = None
    ) -> Response:
        """Lead to a page of this account, after a form has done its work.

        Args:
            path: as for `url`.
            toast: a sentence for the next page.
            kind: `success`, `info`, `warning` or `danger`.
            reveal: secrets that the next page may show once, by name; sealed until then.
        """
        flash: dict[str, Any] = {}
        if toast:
            flash[_TOASTS] = [{"kind": kind, "text": toast}]
        if reveal:
            seal = self.region.secrets.seal
            flash[_REVEALED] = {name: seal(value).hex() for name, value in reveal.items()}
        if flash:
            await self.region.sessions.set_flash(self.signed_in.session, flash)
        return self._away(self.url(path))

    def leave(self, location: str) -> Response:
        """Lead to an address of the console outside of this account, given whole."""
        return self._away(location)

    async def revealed(self) -> dict[str, str]:
        """The secrets that the page before left to be shown, once: the next time there are none."""
        flash = dict(self.signed_in.session.flash or {})
        sealed = flash.pop(_REVEALED, {})
        if sealed:
            await self.region.sessions.set_flash(self.signed_in.session, flash or None)
        try:
            return {name: self.region.secrets.open(bytes.fromhex(value)) for name, value in sealed.items()}
        except SealedSecretError:  # the master key was replaced in this moment
            return {}
