"""From an Authorization header to a principal, mostly without asking the database."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import structlog

from babysea_server import errors
from babysea_server.db.pool import Database, DatabaseUnavailableError, Listener, fault_of
from babysea_server.errors import ApiError
from babysea_server.keys import store
from babysea_server.keys.allowlist import Network, allows, networks
from babysea_server.keys.service import KEY_LENGTH, hash_of
from babysea_server.kit.calls import Plan, Principal
from babysea_server.kit.clock import Clock
from babysea_server.kit.tasks import end

_log = structlog.get_logger(__name__)

#: How long a key is believed without asking again while changes are heard, and while they are not:
#: revocation is to hold everywhere within a second even when LISTEN is cut.
_TTL_S = 5.0
_TTL_DEAF_S = 1.0
_CACHE_MAX = 50_000
_TOUCH_INTERVAL_S = 0.2


class _Entry(msgspec.Struct):
    principal: Principal | None
    """None: the account is gone."""
    networks: Sequence[Network]
    ends_at: datetime | None
    """When the key dies by itself."""
    loaded_at: float


class Authenticator:
    """Authenticates the keys of one region.

    Known keys are believed for a few seconds; NOTIFY from the database drops a changed one at once. Unknown
    keys are never remembered, so a new key works immediately.
    """

    def __init__(self, db: Database, region: str, plans: Mapping[str, Plan], clock: Clock) -> None:
        self._db = db
        self._region = region
        self._plans = plans
        self._clock = clock
        self._cache: dict[bytes, _Entry] = {}
        self._loading: dict[bytes, asyncio.Task[_Entry | None]] = {}
        self._used: dict[UUID, datetime] = {}
        self._listener: Listener | None = None
        self._toucher: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Hear of changes, and write last-used times in the background."""
        self._listener = self._db.listen(["keys_changed", "accounts_changed"], self._changed)
        self._toucher = asyncio.create_task(self._touch_forever(), name="touch-keys")

    async def close(self) -> None:
        """Write what is buffered and stop."""
        await end([self._toucher])
        await self._touch()

    async def authenticate(
        self, authorization: str | None, client_ip: str, account_id: UUID | None = None
    ) -> Principal:
        """The principal behind an Authorization header.

        Args:
            account_id: keys of other accounts are unknown here: it is this one's custom domain.

        Raises:
            ApiError: BSE1001, BSE1002, BSE1007, BSE1008, or BSE5002 when the database cannot be asked.
        """
        secret = _bearer(authorization)
        if len(secret) != KEY_LENGTH or not secret.startswith("bye_") or not secret.isascii():
            raise _invalid_key()
        hash = hash_of(secret)
        entry = self._cache.get(hash)
        age = 0.0 if entry is None else self._clock.monotonic() - entry.loaded_at
        if entry is None or (age > _TTL_DEAF_S and age > self._ttl()):
            entry = await self._load(hash)
        now = self._clock.now()
        if entry is None or (entry.ends_at is not None and entry.ends_at <= now):
            raise _invalid_key()
        if account_id is not None and (entry.principal is None or entry.principal.account_id != account_id):
            raise _invalid_key()
        if entry.networks and not allows(client_ip, entry.networks):
            raise ApiError(errors.IP_NOT_ALLOWED, f"The API key may not be used from {client_ip}.")
        if entry.principal is None:
            raise ApiError(errors.ACCOUNT_NOT_FOUND, "The account of this API key no longer exists.")
        self._used[entry.principal.apikey_id] = now
        return entry.principal

    def _ttl(self) -> float:
        return _TTL_S if self._listener is not None and self._listener.hearing else _TTL_DEAF_S

    async def _load(self, hash: bytes) -> _Entry | None:
        """Ask the database; requests with the same key share one question."""
        task = self._loading.get(hash)
        if task is None:
            task = asyncio.create_task(self._fetch(hash))
            self._loading[hash] = task
            task.add_done_callback(lambda done: self._loaded(hash, done))
        try:
            return await asyncio.shield(task)
        except (DatabaseUnavailableError, asyncpg.QueryCanceledError) as error:
            raise ApiError(
                errors.SERVICE_UNAVAILABLE,
                "The service cannot check API keys right now; nothing was accepted.",
                headers={"retry-after": "1"},
            ) from error

    def _loaded(self, hash: bytes, task: asyncio.Task[_Entry | None]) -> None:
        self._loading.pop(hash, None)
        if not task.cancelled():
            task.exception()  # all who asked may have left: then nobody takes note of a fault

    async def _fetch(self, hash: bytes) -> _Entry | None:
        asked_at = self._clock.monotonic()
        row = await store.by_hash(self._db, hash)
        self._cache.pop(hash, None)  # and to the end with it: the front is what was loaded longest ago
        if row is None or row["state"] == "revoked":
            return None
        entry = self._entry(row, asked_at)
        if len(self._cache) >= _CACHE_MAX:
            self._cache.pop(next(iter(self._cache)))
        self._cache[hash] = entry
        return entry

    def _entry(self, row: Any, asked_at: float) -> _Entry:
        key = store.ApiKey(**{name: row[name] for name in store.ApiKey.__struct_fields__})
        plan_name = row["plan"]
        principal = None
        if isinstance(plan_name, str):
            # A plan that left the data file must not open the gates: it allows nothing.
            plan = self._plans.get(plan_name) or Plan(plan_name, 0, 0)
            principal = Principal(
                region=self._region,
                account_id=key.account_id,
                plan=plan,
                apikey_id=key.id,
                apikey_name=key.name,
                apikey_prefix=key.prefix,
                scopes=frozenset(key.scopes),
                created_at=key.created_at,
                last_used_at=key.last_used_at,
                expires_at=key.expires_at,
            )
        return _Entry(principal, networks(key.allowlist), key.ends_at, asked_at)

    def _changed(self, channel: str, payload: str) -> None:
        try:
            if channel == "keys_changed":
                self._forget_key(bytes.fromhex(payload))
            else:
                self._forget_account(UUID(payload))
        except ValueError:  # the empty notice after a gap, or one that is not ours
            self._cache.clear()
        # A question already under way may have been answered before the change: its answer is not kept.
        for task in list(self._loading.values()):
            task.add_done_callback(lambda _: self._cache.clear())

    def _forget_key(self, hash: bytes) -> None:
        if not hash:
            raise ValueError("every key may have changed")
        self._cache.pop(hash, None)

    def _forget_account(self, account_id: UUID) -> None:
        for hash, entry in list(self._cache.items()):
            if entry.principal is not None and entry.principal.account_id == account_id:
                del self._cache[hash]

    async def _touch_forever(self) -> None:
        while True:
            await self._clock.sleep(_TOUCH_INTERVAL_S)
            await self._touch()

    async def _touch(self) -> None:
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            await store.touch(self._db, list(used.items()))
        except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
            _log.warning("last_used_not_written", keys=len(used), error=fault_of(error))
            # Next time; as many as there are keys in the cache, at most.
            kept = list(used.items())[: max(0, _CACHE_MAX - len(self._used))]
            self._used = {**dict(kept), **self._used}


def _invalid_key() -> ApiError:
    return ApiError(errors.AUTHENTICATION_FAILED, "The API key is not valid in this region.")


def _bearer(authorization: str | None) -> str:
    if authorization is None:
        raise ApiError(
            errors.AUTHENTICATION_REQUIRED, "Send your API key as `Authorization: Bearer bye_...`."
        )
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise ApiError(
            errors.AUTHENTICATION_REQUIRED, "Send your API key as `Authorization: Bearer bye_...`."
        )
    return secret.strip()
