"""Who may speak to the server over HTTP: no web page by way of a browser, and nobody without the token."""

import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class Door:
    """ASGI middleware.

    A page that rebinds its own name to this machine sends that name as Host: only names that were given, localhost
    and IP addresses, which are no names, pass. A page elsewhere sends its Origin: only pages of this machine and of
    the given names pass; programs send none.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, names: Sequence[str]) -> None:
        self._app = app
        self._token = None if token is None else f"Bearer {token}".encode()
        self._names = _LOCAL | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, headers: Headers) -> PlainTextResponse | None:
        host = _name(f"//{headers.get('host', '')}")
        if host is None or not (host in self._names or _is_address(host)):
            return PlainTextResponse("This host is not served here: see --allowed-host.", 421)
        origin = headers.get("origin")
        if origin is not None and _name(origin) not in self._names:
            return PlainTextResponse("Pages of this origin have no access.", 403)
        given = headers.get("authorization", "").encode("latin-1")
        if self._token is not None and not hmac.compare_digest(given, self._token):
            return PlainTextResponse("A bearer token is needed.", 401, {"WWW-Authenticate": "Bearer"})
        return None


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
