"""Signing in through the operator's identity provider: OpenID Connect, authorization code flow with PKCE.

Nothing is kept between the way there and the way back: state, nonce and verifier are made from a random value, a key
of the server and the cookie of the browser, so a way back that began in another browser leads nowhere.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

import msgspec

#: Between leaving for the provider and coming back.
WAY_S = 600


class OidcError(Exception):
    """Signing in there has not worked; the message is for the log, and holds no token."""


class AddressRefusedError(Exception):
    """The provider knows the person, but not by an address that may sign in here; the message is for people."""


class OidcSettings(msgspec.Struct, frozen=True):
    """How the provider is reached, and who of its people may come in."""

    issuer: str
    client_id: str
    client_secret: str | None
    name: str
    """On the button."""
    allowed_domains: Sequence[str] = ()
    """Of e-mail addresses; none: all."""


class Identity(msgspec.Struct, frozen=True):
    """Somebody, as the provider vouches for them."""

    issuer: str
    subject: str
    email: str
    """Verified by the provider."""
    name: str


class Way(msgspec.Struct, frozen=True):
    """One way to the provider and back."""

    region: str
    next: str
    """Where in the console to go on."""
    state: str
    nonce: str
    verifier: str


def begin_way(key: bytes, visit: str, region: str, next: str, now: datetime) -> Way:
    """A new way.

    Args:
        key: of the server, for forms.
        visit: what the browser's cookie holds.
    """
    body = msgspec.json.encode([secrets.token_urlsafe(16), region, next, int(now.timestamp()) + WAY_S])
    state = base64.urlsafe_b64encode(body).rstrip(b"=").decode()
    return _way(key, visit, region, next, f"{state}.{_derive(key, visit, 'state', state)}")


def find_way(key: bytes, visit: str, state: str, now: datetime) -> Way | None:
    """The way that a browser comes back on, or None: it is not this browser's, or it took too long."""
    text, _, seal = state.partition(".")
    expected = _derive(key, visit, "state", text)
    if not visit or not hmac.compare_digest(seal.encode("utf-8", "replace"), expected.encode()):
        return None
    body = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    _, region, next, until = msgspec.json.decode(body, type=tuple[str, str, str, int])
    return _way(key, visit, region, next, state) if now.timestamp() < until else None


def _way(key: bytes, visit: str, region: str, next: str, state: str) -> Way:
    nonce, verifier = (_derive(key, visit, purpose, state) for purpose in ("nonce", "verifier"))
    return Way(region, next, state, nonce, verifier)


def _derive(key: bytes, visit: str, purpose: str, text: str) -> str:
    message = "\0".join(("oidc", purpose, visit, text)).encode("utf-8", "replace")
    return base64.urlsafe_b64encode(hmac.new(key, message, hashlib.sha256).digest()).rstrip(b"=").decode()
