"""The client of an identity provider.

Apart from the rest of signing in: its libraries are loaded only where a provider is set.
"""

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from babysea_server.accounts.users import check_email
from babysea_server.console.oidc import AddressRefusedError, Identity, OidcError, OidcSettings, Way
from babysea_server.kit.clock import Clock

_DEADLINE_S = 10.0
_ANSWER_MAX = 512 * 1024
_KNOWN_FOR_S = 3_600.0
#: An unknown key has the keys read again, but nobody can have them read all the time.
_KEYS_AGAIN_S = 30.0
_LEEWAY_S = 60
#: Signatures that only the provider can make; a shared secret or none is not among them.
_ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_MAX_SUBJECT = 255


class _Provider(msgspec.Struct, frozen=True):
    """What is needed of the discovery document (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class OidcClient:
    """Talks to one provider; what it publishes is remembered for an hour.

    Raises:
        ValueError: the issuer is not https (or on this machine), or has a query.
    """

    def __init__(self, settings: OidcSettings, clock: Clock) -> None:
        _check_address(settings.issuer, "the issuer", secure=True)
        self.settings = settings
        self._clock = clock
        self._provider: tuple[float, _Provider] | None = None
        self._keys: tuple[float, KeySet] | None = None

    async def authorization_url(self, way: Way, redirect_uri: str) -> str:
        """Where the browser goes to sign in.

        Raises:
            OidcError
        """
        provider = await self._discover()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.settings.client_id,
                "redirect_uri": redirect_uri,
                "scope": "openid email profile",
                "state": way.state,
                "nonce": way.nonce,
                "code_challenge": create_s256_code_challenge(way.verifier),
                "code_challenge_method": "S256",
            }
        )
        mark = "&" if "?" in provider.authorization_endpoint else "?"
        return f"{provider.authorization_endpoint}{mark}{query}"

    async def identity(self, way: Way, code: str, redirect_uri: str) -> Identity:
        """Who has come back with a code.

        Raises:
            OidcError: the provider refused, or what it said does not hold.
            AddressRefusedError: no verified address, or none of the allowed domains.
        """
        provider = await self._discover()
        tokens = await self._exchange(provider, way, code, redirect_uri)
        id_token = tokens.get("id_token")
        if not isinstance(id_token, str):
            raise OidcError("there is no ID token in the answer of the token endpoint")
        claims = await self._verified(provider, id_token, way.nonce, tokens.get("access_token"))
        subject = claims["sub"]
        if "email" not in claims and provider.userinfo_endpoint and tokens.get("access_token"):
            bearer = {"authorization": f"Bearer {tokens['access_token']}"}
            info = await self._json("GET", provider.userinfo_endpoint, headers=bearer)
            if info.get("sub") != subject:
                raise OidcError("the userinfo endpoint speaks of somebody else")
            claims = {**info, **claims}
        name = claims.get("name")
        return Identity(
            provider.issuer, subject, self._address(claims), name if isinstance(name, str) else ""
        )

    def _address(self, claims: Mapping[str, Any]) -> str:
        """The verified address: anybody may claim one that is not."""
        try:
            email = check_email(str(claims.get("email", "")))
        except ValueError:
            raise AddressRefusedError(f"{self.settings.name} has not told your e-mail address.") from None
        verified = claims.get("email_verified")
        if verified is not True and verified != "true":  # some providers send the word
            raise AddressRefusedError(f"{self.settings.name} has not verified your e-mail address.")
        domains = {domain.lower().lstrip("@") for domain in self.settings.allowed_domains}
        if domains and email.rpartition("@")[2].lower() not in domains:
            raise AddressRefusedError("E-mail addresses of your domain cannot sign in here.")
        return email

    async def _exchange(
        self, provider: _Provider, way: Way, code: str, redirect_uri: str
    ) -> Mapping[str, Any]:
        """Tokens for a code (RFC 6749, section 4.1.3; RFC 7636, section 4.5)."""
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": way.verifier,
        }
        headers = {}
        client_id, secret = self.settings.client_id, self.settings.client_secret
        if secret is not None and "client_secret_basic" in provider.token_endpoint_auth_methods_supported:
            pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            fields["client_id"] = client_id
            if secret is not None:
                fields["client_secret"] = secret
        return await self._json("POST", provider.token_endpoint, headers=headers, fields=fields)

    async def _verified(
        self, provider: _Provider, id_token: str, nonce: str, access_token: object
    ) -> dict[str, Any]:
        """The claims of an ID token (OpenID Connect Core 1.0, section 3.1.3.7)."""
        try:
            token = await self._decoded(provider, id_token)
            claims = CodeIDToken(
                token.claims,
                token.header,
                options={
                    "iss": {"essential": True, "value": provider.issuer},
                    "aud": {"essential": True, "value": self.settings.client_id},
                },
                params={
                    "nonce": nonce,
                    "client_id": self.settings.client_id,
                    "access_token": access_token if isinstance(access_token, str) else None,
                },
            )
            claims.validate(now=int(self._clock.now().timestamp()), leeway=_LEEWAY_S)
        except (JoseError, ValueError, TypeError) as error:
            raise OidcError(f"the ID token does not hold: {type(error).__name__}") from None
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= _MAX_SUBJECT or "\0" in subject:
            raise OidcError("the ID token names nobody")
        return dict(claims)

    async def _decoded(self, provider: _Provider, id_token: str) -> jwt.Token:
        keys = await self._key_set(provider, older_s=_KNOWN_FOR_S)
        try:
            return jwt.decode(id_token, keys, algorithms=_ALGORITHMS)
        except (JoseError, ValueError):
            # It may be signed with a key that is newer than what we know.
            newer = await self._key_set(provider, older_s=_KEYS_AGAIN_S)
            if newer is keys:
                raise
            return jwt.decode(id_token, newer, algorithms=_ALGORITHMS)

    async def _key_set(self, provider: _Provider, *, older_s: float) -> KeySet:
        """The provider's keys, read again when they are older."""
        now = self._clock.monotonic()
        if self._keys is None or now - self._keys[0] > older_s:
            document: Any = await self._json("GET", provider.jwks_uri)
            try:
                self._keys = (now, KeySet.import_key_set(document))
            except (JoseError, ValueError, KeyError, TypeError) as error:
                raise OidcError(f"the provider's keys cannot be read: {type(error).__name__}") from None
        return self._keys[1]

    async def _discover(self) -> _Provider:
        now = self._clock.monotonic()
        if self._provider is not None and now - self._provider[0] < _KNOWN_FOR_S:
            return self._provider[1]
        issuer = self.settings.issuer
        document = await self._json("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            provider = msgspec.convert(document, _Provider)
        except msgspec.ValidationError as error:
            raise OidcError(f"the discovery document cannot be used: {error}") from None
        if provider.issuer.rstrip("/") != issuer.rstrip("/"):
            raise OidcError("the discovery document is another issuer's")
        addresses = (provider.authorization_endpoint, provider.token_endpoint, provider.jwks_uri)
        try:
            for address in (*addresses, provider.userinfo_endpoint or provider.jwks_uri):
                _check_address(address, "an endpoint of the provider", secure=issuer.startswith("https:"))
        except ValueError as error:
            raise OidcError(str(error)) from None
        self._provider = (now, provider)
        return provider

    async def _json(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        """One object from the provider: bounded, within ten seconds, no redirects."""
        timeout = aiohttp.ClientTimeout(total=_DEADLINE_S)
        sent = {"accept": "application/json", **(headers or {})}
        where = urlsplit(url).path
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.request(method, url, headers=sent, data=fields, allow_redirects=False) as response,
            ):
                body = await response.content.read(_ANSWER_MAX)
                while len(body) < _ANSWER_MAX and (chunk := await response.content.read(_ANSWER_MAX)):
                    body += chunk
                status = response.status
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise OidcError(f"{where} did not answer: {type(error).__name__}") from None
        if status != 200 or len(body) >= _ANSWER_MAX:
            raise OidcError(f"{where} answered {status}")
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise OidcError(f"{where} sent no JSON object") from None


def _check_address(url: str, what: str, *, secure: bool) -> None:
    parts = urlsplit(url)
    plain = parts.scheme == "http" and (not secure or parts.hostname in _LOOPBACK)
    if not (parts.scheme == "https" or plain) or not parts.hostname or parts.username or parts.fragment:
        raise ValueError(f"{what} must be an https address, without user and fragment")
