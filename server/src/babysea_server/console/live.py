"""What changes while somebody looks: generations, deliveries, the balance, as server-sent events.

Once a second one statement reads, for all accounts that are being watched in this process, what of theirs is in
flight and what is newest, and each watcher is told what differs. While nobody looks nothing is asked. A NOTIFY in the
transactions themselves would tell sooner, and would put every admission and settlement of the region in line for
the one lock that NOTIFY takes at commit.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from babysea_server.console.faults import PageFaultError
from babysea_server.db.pool import Database, DatabaseUnavailableError, fault_of
from babysea_server.kit import json
from babysea_server.kit.clock import Clock
from babysea_server.kit.tasks import end

_log = structlog.get_logger(__name__)

EVERY_S = 1.0
HEARTBEAT_S = 15.0
#: Streams of one session, and of the whole process and region.
PER_SESSION = 6
STREAMS_MAX = 500
#: A stream ends by itself after so long, and the browser comes again: rights are looked at anew.
_LIFETIME_S = 600.0
_QUEUE_MAX = 200
_NEWEST = 50

#: By account: `balance`, `generations` and `deliveries`, each a map of what is shown by id.
_STATE = """
SELECT a.id AS account_id, a.credit_balance AS balance, (
    SELECT count(*) FROM (SELECT FROM notices n WHERE n.account_id = a.id AND n.read_at IS NULL LIMIT 100) AS unread
) AS unread, (
    SELECT coalesce(jsonb_object_agg(g.id, g.status), '{}') FROM (
        (SELECT id, status FROM generations WHERE account_id = a.id ORDER BY id DESC LIMIT $2)
        UNION
        (SELECT id, status FROM generations WHERE account_id = a.id AND status IN ('pending', 'processing') LIMIT $2)
    ) AS g
) AS generations, (
    SELECT coalesce(jsonb_object_agg(d.id, jsonb_build_array(d.state, d.attempts)), '{}')
    FROM webhook_endpoints e CROSS JOIN LATERAL (
        SELECT id, state, attempts FROM webhook_deliveries WHERE endpoint_id = e.id ORDER BY id DESC LIMIT $2
    ) AS d WHERE e.account_id = a.id
) AS deliveries
FROM accounts a WHERE a.id = ANY ($1)
"""


class _Watcher:
    """One stream."""

    __slots__ = ("account_id", "known", "queue", "session_id")

    def __init__(self, account_id: UUID, session_id: UUID) -> None:
        self.account_id = account_id
        self.session_id = session_id
        self.known: Mapping[str, Any] | None = None
        self.queue: asyncio.Queue[bytes] = asyncio.Queue(_QUEUE_MAX)


class Live:
    """Tells watchers of one region what has changed."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._watchers: set[_Watcher] = set()
        self._task: asyncio.Task[None] | None = None

    async def watch(self, account_id: UUID, session_id: UUID) -> AsyncIterator[bytes]:
        """The events of an account, from now on; its present state is the first.

        Raises:
            PageFaultError: 429, too many streams.
        """
        of_session = sum(watcher.session_id == session_id for watcher in self._watchers)
        if of_session >= PER_SESSION or len(self._watchers) >= STREAMS_MAX:
            raise PageFaultError(
                429, "Too many open pages", "Live updates are paused on this page.", {"retry-after": "60"}
            )
        watcher = _Watcher(account_id, session_id)
        self._watchers.add(watcher)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_forever(), name="console-live")
        return self._stream(watcher)

    async def close(self) -> None:
        """Stop."""
        await end([self._task])

    async def _stream(self, watcher: _Watcher) -> AsyncIterator[bytes]:
        ends_at = self._clock.monotonic() + _LIFETIME_S
        try:
            yield b"retry: 3000\n\n"
            while self._clock.monotonic() < ends_at:
                try:
                    yield await asyncio.wait_for(watcher.queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._watchers.discard(watcher)

    async def _look_forever(self) -> None:
        while self._watchers:
            try:
                await self.look()
            except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
                _log.warning("live_not_read", error=fault_of(error))
            await self._clock.sleep(EVERY_S)

    async def look(self) -> None:
        """Read once, and tell every watcher what is new to it.

        Raises:
            DatabaseUnavailableError, asyncpg.PostgresError
        """
        watchers = list(self._watchers)
        accounts = list({watcher.account_id for watcher in watchers})
        rows = {row["account_id"]: row for row in await self._db.fetch(_STATE, accounts, _NEWEST)}
        for watcher in watchers:
            if row := rows.get(watcher.account_id):
                self._tell(watcher, row)

    def _tell(self, watcher: _Watcher, row: Any) -> None:
        state = {
            "balance": row["balance"],
            "unread": row["unread"],
            "generations": row["generations"],
            "deliveries": row["deliveries"],
        }
        change = state if watcher.known is None else _difference(watcher.known, state)
        if change and not watcher.queue.full():
            watcher.queue.put_nowait(b"event: change\ndata: " + json.dumps(change) + b"\n\n")
            watcher.known = state


def _difference(known: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    change: dict[str, Any] = {
        name: state[name] for name in ("balance", "unread") if state[name] != known[name]
    }
    for name in ("generations", "deliveries"):
        changed = {id: value for id, value in state[name].items() if known[name].get(id) != value}
        if changed:
            change[name] = changed
    return change
