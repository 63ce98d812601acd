"""What keeps a page of the console to itself: its headers, its cookies, where forms and links may come from."""

import hmac
import secrets
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from babysea_server.accounts.sessions import LIFETIME_S, csrf_token
from babysea_server.console.faults import forged

#: Before there is a session: what the forms of somebody unknown are bound to.
VISIT = "visit"
_VISIT_S = 86_400
_PERMISSIONS = "camera=(), geolocation=(), microphone=(), payment=(), usb=(), interest-cohort=()"


def new_nonce() -> str:
    """For the scripts of one answer."""
    return secrets.token_urlsafe(16)


def protect(response: Response, nonce: str, origins: str, forms_to: str = "") -> None:
    """Add the headers that every page has.

    Args:
        origins: where the region's API is, if it is elsewhere.
        forms_to: where else the answer to a form of this page may lead.
    """
    elsewhere = f" {origins}" if origins else ""
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' 'nonce-{nonce}'",
        "style-src": f"'self' 'nonce-{nonce}'",
        "img-src": f"'self' data:{elsewhere}",
        "media-src": f"'self'{elsewhere}",
        "connect-src": f"'self'{elsewhere}",
        "font-src": "'self'",
        "form-action": f"'self' {forms_to}".strip(),
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
        "permissions-policy": _PERMISSIONS,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
    for name, value in headers.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("cache-control", "no-store")


class Cookies:
    """The console's cookies: `__Host-` over TLS, where no other host and no plain connection can set them.

    Args:
        secure: whether the console is reached over TLS, whatever this request says.
    """

    def __init__(self, *, secure: bool) -> None:
        self._secure = secure

    def get(self, request: Request, name: str) -> str:
        """The value of a cookie of ours, or nothing."""
        return request.cookies.get(self._name(request, name), "")

    def keep_session(self, request: Request, response: Response, region: str, token: str) -> None:
        """Have the browser keep a session, and forget what stood for it before."""
        self._set(request, response, region, token, max_age=LIFETIME_S)
        self.forget(request, response, VISIT)

    def visit(self, request: Request) -> str:
        """What an unknown browser's forms are bound to; a new one where there is none."""
        return self.get(request, VISIT) or secrets.token_urlsafe(24)

    def keep_visit(self, request: Request, response: Response, value: str) -> None:
        """Have the browser keep it, as long as it may be filling in the form."""
        self._set(request, response, VISIT, value, max_age=_VISIT_S)

    def keep_theme(self, request: Request, response: Response, theme: str) -> None:
        """Have the browser remember light or dark."""
        response.set_cookie(
            "babysea-theme",
            theme,
            max_age=LIFETIME_S * 4,
            path="/",
            samesite="lax",
            secure=self._tls(request),
        )

    def forget(self, request: Request, response: Response, name: str) -> None:
        """Have the browser forget a cookie."""
        self._set(request, response, name, "", max_age=0)

    def _set(self, request: Request, response: Response, name: str, value: str, *, max_age: int) -> None:
        response.set_cookie(
            self._name(request, name),
            value,
            max_age=max_age,
            path="/",
            secure=self._tls(request),
            httponly=True,
            samesite="lax",
        )

    def _name(self, request: Request, name: str) -> str:
        return f"__Host-babysea-{name}" if self._tls(request) else f"babysea-{name}"

    def _tls(self, request: Request) -> bool:
        return self._secure or request.url.scheme == "https"


def check_form(request: Request, sent: str, secret: str, key: bytes, other: bytes | None = None) -> None:
    """Refuse a form that a page of ours cannot have sent.

    Args:
        sent: the token that came with the form.
        secret: what the browser's cookie holds.
        other: a key that is accepted, too.

    Raises:
        PageFaultError: 403.
    """
    check_origin(request)
    given = sent.encode("utf-8", "replace")
    expected = [csrf_token(secret, each).encode() for each in (key, other) if each is not None]
    if not secret or not any(hmac.compare_digest(given, token) for token in expected):
        raise forged()


def check_origin(request: Request) -> None:
    """Refuse what the browser itself says another site has sent.

    Raises:
        PageFaultError: 403.
    """
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise forged()
    origin = request.headers.get("origin")
    # Only the authority: a proxy in front may have taken TLS off.
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise forged()


def local_path(text: str, default: str) -> str:
    """A path of the console that somebody asked to be led to, or the default: never another site.

    What a browser might read as the beginning of an authority, or drop, is not let through.
    """
    plain = text.isascii() and text.isprintable() and not any(char in text for char in "\\ ")
    inside = text == "/console" or text.startswith(("/console/", "/console?"))
    if not plain or not inside or "//" in text.partition("?")[0] or "/.." in text:
        return default
    return text
