"""Whether a process lives and whether it may be given work: `/healthz` and `/readyz`."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

import asyncpg
import structlog
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from babysea_server.db.migrations import known_revisions, newest_revision
from babysea_server.db.pool import Database, DatabaseUnavailableError
from babysea_server.kit.clock import Clock
from babysea_server.kit.remembered import Remembered

_log = structlog.get_logger(__name__)

HEALTHY, READY = "/healthz", "/readyz"

RegionState = Literal["ready", "database_unavailable", "migrations_missing"]

#: However many ask, the databases are asked once in so many seconds.
_BELIEVED_S = 1.0
_ANSWER_S = 2.0
_FAULTS = (DatabaseUnavailableError, asyncpg.InternalClientError, asyncpg.PostgresError, TimeoutError)


class Readiness:
    """Whether each region of a process can be served: its database answers, and no migration is missing.

    Each is asked over a connection of its own, so that a pool in which everybody waits does not take the process out of
    rotation and its load to the next one. A schema newer than this version does not either: the migrations of an
    upgrade would otherwise take out all processes at once.

    Args:
        dsns: connection string of each region's database.
        draining: whether the process is about to end.
    """

    def __init__(self, dsns: Mapping[str, str], clock: Clock, draining: Callable[[], bool]) -> None:
        self._databases = {
            region: Database(dsn, name="babysea-health", size=1, statement_timeout_s=_ANSWER_S)
            for region, dsn in dsns.items()
        }
        self._draining = draining
        self._newest, self._known = newest_revision(), known_revisions()
        self._states = Remembered(self._ask, clock, seconds=_BELIEVED_S)
        self._told: Mapping[str, RegionState] = {}
        self._opened = False

    @property
    def draining(self) -> bool:
        """Whether the process is about to end, or has not begun."""
        return not self._opened or self._draining()

    async def open(self) -> None:
        """Make the pools; connections are made when somebody asks."""
        for database in self._databases.values():
            await database.open()
        self._opened = True

    async def close(self) -> None:
        """Let go of the connections."""
        self._opened = False
        for database in self._databases.values():
            await database.close()

    async def regions(self) -> Mapping[str, RegionState]:
        """The state of each region's database; takes two seconds at most and raises nothing of its faults."""
        return await self._states.get()

    async def _ask(self) -> Mapping[str, RegionState]:
        states = await asyncio.gather(*(self._state(database) for database in self._databases.values()))
        found = dict(zip(self._databases, states, strict=True))
        for region, state in found.items():
            before = self._told.get(region, "ready")
            if state != before:
                (_log.info if state == "ready" else _log.warning)("readiness", region=region, state=state)
        self._told = found
        return found

    async def _state(self, database: Database) -> RegionState:
        try:
            revision = await asyncio.wait_for(
                database.fetchval("SELECT version_num FROM alembic_version"), _ANSWER_S
            )
        except asyncpg.UndefinedTableError:
            return "migrations_missing"
        except _FAULTS:
            return "database_unavailable"
        missing = revision is None or (revision in self._known and revision != self._newest)
        return "migrations_missing" if missing else "ready"


class HealthApp:
    """Answers `/healthz` and `/readyz`, 200 or 503, over HTTP.

    Args:
        detailed: tell the state of each region; not where strangers can ask.
    """

    PATHS = frozenset({HEALTHY, READY})

    def __init__(self, readiness: Readiness, *, detailed: bool) -> None:
        self._readiness = readiness
        self._detailed = detailed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request to a path of `PATHS`."""
        # That there is an answer at all says that the loop turns.
        status, body = (200, {"status": "ok"}) if scope["path"] == HEALTHY else await self._ready()
        response = JSONResponse(body, status, headers={"cache-control": "no-store"})
        await response(scope, receive, send)

    async def _ready(self) -> tuple[int, dict[str, Any]]:
        if self._readiness.draining:
            return 503, {"status": "draining" if self._detailed else "unavailable"}
        regions = await self._readiness.regions()
        ready = all(state == "ready" for state in regions.values())
        body: dict[str, Any] = {"status": "ok" if ready else "unavailable"}
        if self._detailed:
            body["regions"] = dict(regions)
        return (200 if ready else 503), body
