"""The request log: one row for each authenticated request, written in batches off the way of the answer."""

import asyncio
import hmac
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import structlog
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from babysea_server.db.pool import Database, DatabaseUnavailableError, fault_of
from babysea_server.kit import json
from babysea_server.kit.calls import ServedRequest
from babysea_server.kit.clock import Clock
from babysea_server.kit.tasks import end
from babysea_server.telemetry import store

_log = structlog.get_logger(__name__)

_PURPOSE = b"babysea/telemetry/addresses/v1/"
_HASH_BYTES = 16
#: The same few addresses send nearly everything; hashing one costs as much as the rest of a row.
_ADDRESSES_REMEMBERED = 4096
_USER_AGENT_MAX = 256
_PARAMETER_MAX = 256
_SDK_MAX = 64
_SDK_HEADERS = (
    ("name", "x-babysea-sdk-name"),
    ("version", "x-babysea-sdk-version"),
    ("runtime", "x-babysea-sdk-runtime"),
    ("runtime_version", "x-babysea-sdk-runtime-version"),
)
_DURATION_MAX_US = 2**31 - 1
_FLUSH_EVERY_S = 0.2
_PAUSE_MAX_S = 5.0
_WARN_EVERY_S = 60.0
_CLOSE_S = 2.0
#: What the database has against the rows themselves: they would be refused again.
_REFUSALS = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)

_Row: TypeAlias = tuple[
    float, str, UUID, UUID, str, str, str | None, int, str | None, bool, bytes, str | None, str | None, int
]
"""The moment of the answer, on our own clock; then the arguments of `log_requests_v1` from the second on."""


def address_key(secret: bytes, region: str) -> bytes:
    """The key that client addresses of a region are hashed with.

    Args:
        secret: the master secret. With another one, the same address has another hash.
    """
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE + region.encode()).derive(secret)


class RequestLog:
    """Keeps what is to be written of each request until the next batch, at most `buffer_max` rows.

    A batch that was certainly not written is kept and tried again. One whose answer was lost is not, because
    requests counted twice are worse than a few that are missing. When the buffer is full, the oldest go.

    Args:
        hash_key: see `address_key`.
        buffer_max: rows that wait at most.
        batch_max: rows written in one call at most.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        hash_key: bytes,
        *,
        buffer_max: int = 20_000,
        batch_max: int = 500,
    ) -> None:
        self.lost = 0
        """Rows that were never written, or may not have been."""
        self._db = db
        self._clock = clock
        self._hash_key = hash_key
        self._pseudonyms: dict[str, bytes] = {}
        self._batch_max = batch_max
        self._rows: deque[_Row] = deque()
        self._buffer_max = buffer_max
        self._waiting = asyncio.Event()
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._warned_at = float("-inf")

    def start(self) -> None:
        """Begin writing in the background."""
        self._task = asyncio.create_task(self._run(), name="request-log")

    async def close(self) -> None:
        """Write what is left, for two seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self.flush()
        await end([self._task])
        if self._rows:
            self._lose(len(self._rows), "the process ended")
            self._rows.clear()

    def record(self, request: ServedRequest) -> None:
        """Take note of a request; never waits, never fails.

        Only what is logged is kept, so that neither keys nor whole headers lie in the buffer.
        """
        if len(self._rows) >= self._buffer_max:
            self._rows.popleft()
            self._lose(1, "the buffer is full")
        headers = request.headers
        principal = request.principal
        agent = headers.get("user-agent")
        self._rows.append(
            (
                self._clock.monotonic(),
                request.request_id,
                principal.account_id,
                principal.apikey_id,
                request.method,
                request.endpoint,
                _parameters(request.query) if request.query else None,
                request.status,
                request.error_code,
                request.replayed,
                self._pseudonym(request.client_ip),
                None if agent is None else _storable(agent, _USER_AGENT_MAX),
                _sdk(headers),
                min(int(request.duration_s * 1e6), _DURATION_MAX_US),
            )
        )
        self._waiting.set()

    async def flush(self) -> bool:
        """Write everything that waits; False when the database could not take it, and it still waits."""
        async with self._turn:
            while self._rows:
                batch = [self._rows.popleft() for _ in range(min(len(self._rows), self._batch_max))]
                if not await self._write(batch):
                    return False
            self._waiting.clear()
            return True

    async def _run(self) -> None:
        pause = _FLUSH_EVERY_S
        while True:
            await self._waiting.wait()
            await self._clock.sleep(pause)
            pause = _FLUSH_EVERY_S if await self.flush() else min(pause * 2, _PAUSE_MAX_S)

    async def _write(self, batch: list[_Row]) -> bool:
        """Write or lose a batch; False when it was put back."""
        try:
            await store.log_requests(self._db, self._columns(batch))
        except DatabaseUnavailableError as error:
            if not error.sent:
                return self._put_back(batch, error)
            self._lose(len(batch), "it is not known whether they were written")
        except _REFUSALS as error:
            self._lose(len(batch), fault_of(error))
        except asyncpg.PostgresError as error:
            return self._put_back(batch, error)
        except asyncio.CancelledError:
            self._lose(len(batch), "the process ended")
            raise
        except Exception:
            # Whatever it is, the log goes on with the next rows.
            _log.exception("request_log_failed")
            self._lose(len(batch), "unexpected failure")
        return True

    def _columns(self, batch: list[_Row]) -> list[list[Any]]:
        moments, *columns = (list(column) for column in zip(*batch, strict=True))
        present = self._clock.monotonic()
        return [[int((present - moment) * 1e6) for moment in moments], *columns]

    def _put_back(self, batch: list[_Row], error: Exception) -> bool:
        _log.warning("request_log_waits", rows=len(batch) + len(self._rows), error=fault_of(error))
        room = self._buffer_max - len(self._rows)
        if len(batch) > room:
            self._lose(len(batch) - room, "the buffer is full")
        self._rows.extendleft(reversed(batch[max(0, len(batch) - room) :]))
        return False

    def _lose(self, rows: int, reason: str) -> None:
        """Count rows that are lost, and say so once a minute at most."""
        self.lost += rows
        present = self._clock.monotonic()
        if present - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = present
            _log.warning("request_log_rows_lost", rows_since_start=self.lost, reason=reason)

    def _pseudonym(self, address: str) -> bytes:
        known = self._pseudonyms.get(address)
        if known is None:
            digest = hmac.digest(self._hash_key, address.encode("utf-8", "replace"), "sha256")
            known = digest[:_HASH_BYTES]
            if len(self._pseudonyms) >= _ADDRESSES_REMEMBERED:
                self._pseudonyms.clear()
            self._pseudonyms[address] = known
        return known


def _storable(text: str, length: int) -> str:
    """The text's beginning without what PostgreSQL cannot store: NUL and unpaired surrogates."""
    text = text[:length]
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text.replace("\0", "?")


def _parameters(query: Mapping[str, Any]) -> str:
    values = {
        name: _storable(value, _PARAMETER_MAX) if isinstance(value, str) else value
        for name, value in query.items()
    }
    return json.dumps(values).decode()


def _sdk(headers: Mapping[str, str]) -> str | None:
    values = {
        name: _storable(headers[header], _SDK_MAX) for name, header in _SDK_HEADERS if header in headers
    }
    return json.dumps(values).decode() if values else None
