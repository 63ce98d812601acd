"""Callbacks of providers: addresses that nobody can guess, and the check that a callback is the provider's own."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from babysea_server.kit.clock import Clock
from babysea_server.providers.base import Callback
from babysea_server.providers.registry import Registry
from babysea_server.providers.runner import Runner

PREFIX = "/callbacks/"

_PURPOSE = b"babysea/callbacks/v1"
_TAG_BYTES = 16
#: Keys are believed for so long; after a signature that does not match they are asked for again, but not more often
#: than every minute.
_KEYS_LIFE_S = 3600.0
_KEYS_AGAIN_S = 60.0


class CallbackAddresses:
    """Makes and reads `<origin>/callbacks/<provider>/<token>`.

    The token is the attempt's id and an HMAC-SHA256 over region, provider and id, under a key derived from the master
    secret for this purpose alone: 128 bits that nobody can guess, and nothing that would have to be stored or looked
    up to turn a stranger away.

    Args:
        origin: scheme and authority where providers reach the region's API; None where they cannot.
        other: another master secret, whose addresses are read, too, while the secret is changed.
    """

    def __init__(self, secret: bytes, region: str, origin: str | None, *, other: bytes | None = None) -> None:
        self._key, *rest = (
            HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(each)
            for each in (secret, other)
            if each is not None
        )
        self._accepted = (self._key, *rest)
        self._region = region
        self._origin = None if origin is None else origin.format(region=region).rstrip("/")

    def url(self, provider_id: str, attempt_id: UUID) -> str | None:
        """Where the provider may announce the end of the attempt."""
        if self._origin is None:
            return None
        token = base64.urlsafe_b64encode(
            attempt_id.bytes + self._tag(self._key, provider_id, attempt_id)
        ).decode()
        return f"{self._origin}{PREFIX}{provider_id}/{token.rstrip('=')}"

    def attempt(self, provider_id: str, token: str) -> UUID | None:
        """The attempt that a token of ours is about; None for any other text."""
        try:
            padded = token.encode("ascii") + b"=" * (-len(token) % 4)
            raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if len(raw) != 16 + _TAG_BYTES:
            return None
        attempt_id = UUID(bytes=raw[:16])
        tags = [self._tag(key, provider_id, attempt_id) for key in self._accepted]
        return attempt_id if any(hmac.compare_digest(raw[16:], tag) for tag in tags) else None

    def _tag(self, key: bytes, provider_id: str, attempt_id: UUID) -> bytes:
        message = f"{self._region}\n{provider_id}\n".encode() + attempt_id.bytes
        return hmac.new(key, message, hashlib.sha256).digest()[:_TAG_BYTES]


class _Keys(msgspec.Struct, frozen=True):
    keys: tuple[bytes, ...]
    found_at: float


class CallbackVerifier:
    """Tells a provider's own callbacks from forged ones; remembers the keys that providers publish."""

    def __init__(self, registry: Registry, runner: Runner, clock: Clock) -> None:
        self._registry = registry
        self._runner = runner
        self._clock = clock
        self._keys: dict[str, _Keys] = {}

    async def verifies(self, provider_id: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether the callback is the provider's own."""
        route = self._registry.route(provider_id)
        if route is None:
            return False
        callback = Callback(headers, body, self._clock.now().timestamp())
        if route.provider.verify_callback(callback, await self._known(provider_id, _KEYS_LIFE_S)):
            return True
        # The provider may have changed its keys.
        if self._age_s(provider_id) < _KEYS_AGAIN_S:
            return False
        return route.provider.verify_callback(callback, await self._known(provider_id, _KEYS_AGAIN_S))

    async def _known(self, provider_id: str, life_s: float) -> tuple[bytes, ...]:
        if self._age_s(provider_id) >= life_s:
            before = self._keys.get(provider_id)
            found = await self._runner.callback_keys(provider_id)
            # A provider that cannot be asked just now keeps the keys it had.
            keys = found or (before.keys if before else ())
            self._keys[provider_id] = _Keys(keys, self._clock.monotonic())
        return self._keys[provider_id].keys

    def _age_s(self, provider_id: str) -> float:
        known = self._keys.get(provider_id)
        return float("inf") if known is None else self._clock.monotonic() - known.found_at
