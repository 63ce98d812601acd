"""A small OpenID Connect provider on a port of this machine: discovery, keys, authorization, tokens, userinfo.

It knows nothing of our code but the clock. It checks what a provider must: the client, the redirect address, that a
code is used once and by whom it was made for, and the proof of RFC 7636.
"""

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from babysea_server.kit.clock import Clock, SystemClock

CLIENT_ID = "babysea-console"
CLIENT_SECRET = "a secret: with +/% in it"


@dataclass
class Provider:
    """The provider, who is signed in there, and how it misbehaves."""

    issuer: str = ""
    clock: Clock = field(default_factory=SystemClock)
    redirect_uri: str = "http://localhost/console/oidc/callback"
    person: dict[str, Any] = field(default_factory=dict)
    """The claims of who is signed in."""
    id_claims: dict[str, Any] = field(default_factory=dict)
    """What stands in the ID token in place of what should; None takes a claim away."""
    in_userinfo: bool = False
    """The address is told by the userinfo endpoint alone."""
    userinfo_subject: str | None = None
    sign_with: str = "known"
    """`known`, `unknown`, `none`, `client_secret`."""
    discovery: dict[str, Any] = field(default_factory=dict)
    """Replaces what the document says."""
    requests: list[str] = field(default_factory=list)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "first", "use": "sig"}))
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    async def document(self, request: web.Request) -> web.Response:
        self.requests.append("discovery")
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "jwks_uri": f"{self.issuer}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                **self.discovery,
            }
        )

    async def keys(self, request: web.Request) -> web.Response:
        self.requests.append("keys")
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def authorize(self, request: web.Request) -> web.Response:
        """Nobody is asked: whoever comes is the person, and goes back with a code."""
        asked = dict(request.query)
        if asked.get("client_id") != CLIENT_ID or asked.get("redirect_uri") != self.redirect_uri:
            return web.Response(status=400, text="unknown client or redirect address")
        right = (
            asked.get("response_type") == "code"
            and "openid" in asked.get("scope", "").split()
            and asked.get("code_challenge_method") == "S256"
            and len(asked.get("code_challenge", "")) == 43
        )
        if not right:
            return _back(self.redirect_uri, error="invalid_request", state=asked.get("state", ""))
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return _back(self.redirect_uri, code=code, state=asked["state"], iss=self.issuer)

    async def token(self, request: web.Request) -> web.Response:
        self.requests.append("token")
        form = await request.post()
        asked = self.codes.pop(str(form.get("code")), None)
        scheme, _, pair = request.headers.get("authorization", "").partition(" ")
        client_id, _, secret = base64.b64decode(pair).decode().partition(":")
        known = scheme == "Basic" and unquote(client_id) == CLIENT_ID and unquote(secret) == CLIENT_SECRET
        if not known:
            return web.json_response({"error": "invalid_client"}, status=401)
        digest = hashlib.sha256(str(form.get("code_verifier", "")).encode()).digest()
        proof = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        right = (
            asked is not None
            and form.get("grant_type") == "authorization_code"
            and form.get("redirect_uri") == asked["redirect_uri"]
            and proof == asked["code_challenge"]
        )
        if not right or asked is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response(
            {"access_token": "at", "token_type": "Bearer", "id_token": self._id_token(asked.get("nonce", ""))}
        )

    async def userinfo(self, request: web.Request) -> web.Response:
        self.requests.append("userinfo")
        if request.headers.get("authorization") != "Bearer at":
            return web.json_response({"error": "invalid_token"}, status=401)
        return web.json_response({**self.person, "sub": self.userinfo_subject or self.person["sub"]})

    def _id_token(self, nonce: str) -> str:
        now = int(self.clock.now().timestamp())
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, "nonce": nonce}
        claims |= {"sub": self.person["sub"]} if self.in_userinfo else self.person
        claims |= self.id_claims
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.sign_with == "none":
            parts = (b'{"alg":"none","typ":"JWT"}', jwt_body(claims), b"")
            return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
        if self.sign_with == "client_secret":
            return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(CLIENT_SECRET.encode()))
        key = self.key
        if self.sign_with == "unknown":
            key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})
        return jwt.encode({"alg": "RS256", "kid": key.kid}, claims, key)


def jwt_body(claims: dict[str, Any]) -> bytes:
    """Claims as an unsigned token has them."""
    body = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(b"x" * 32)).split(".")[1]
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


def _back(redirect_uri: str, **query: str) -> web.Response:
    return web.Response(status=302, headers={"location": f"{redirect_uri}?{urlencode(query)}"})


@asynccontextmanager
async def running_provider() -> AsyncIterator[Provider]:
    """The provider behind a port of this machine."""
    provider = Provider()
    app = web.Application()
    app.add_routes(
        [
            web.get("/.well-known/openid-configuration", provider.document),
            web.get("/keys", provider.keys),
            web.get("/authorize", provider.authorize),
            web.post("/token", provider.token),
            web.get("/userinfo", provider.userinfo),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        provider.issuer = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield provider
    finally:
        await runner.cleanup()
