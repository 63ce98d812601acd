"""The database of a simulation: a real PostgreSQL that is asked over a simulated line, by a simulated clock.

Each statement is an event: it travels, is executed to its end while the simulation stands still, and its answer
travels back, or any of that fails. What PostgreSQL does with statements at the same time is not simulated; a
transaction of several has the server for itself.
"""

import asyncio
from asyncio import events
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import asyncpg
from tests.simulation.faults import Fate, Faults
from tests.simulation.loop import OWNER, Process, SimLoop

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.db.migrate import migrate
from babysea_server.db.pool import Database, Listener, _prepare

Value = TypeVar("Value")

_CHANNELS = ("generations_due", "generations_canceled", "attempts_announced")
#: Where the server's own clock and dice are hidden. It is looked into before pg_catalog.
_SHADOWS = """
CREATE SCHEMA simulated;
CREATE FUNCTION simulated.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT current_setting('simulated.now')::timestamptz $$;
CREATE FUNCTION simulated.transaction_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT current_setting('simulated.now')::timestamptz $$;
CREATE FUNCTION simulated.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT current_setting('simulated.now')::timestamptz $$;
CREATE FUNCTION simulated.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS $$ SELECT current_setting('simulated.now')::timestamptz $$;
CREATE SEQUENCE simulated.draws;
CREATE FUNCTION simulated.gen_random_uuid() RETURNS uuid LANGUAGE sql VOLATILE
    AS $$ SELECT md5(current_setting('simulated.seed') || nextval('simulated.draws'))::uuid $$;
"""
_SETTINGS = {
    "search_path": "simulated, pg_catalog, public",
    "simulated.now": "2026-04-28 12:00:00+00",
    "simulated.seed": "0",
    "synchronous_commit": "off",
    "plan_cache_mode": "force_generic_plan",  # the same plan for everybody: rows come in the same order
    "TimeZone": "UTC",
}
_TABLES = """SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind = 'r' AND nspname IN ('simulated', 'public') AND relname <> 'alembic_version'"""
_STEP = (
    """SELECT set_config('simulated.now', $1, false), pg_snapshot_xmax(pg_current_snapshot())::text::bigint"""
)


@dataclass(frozen=True, slots=True)
class Executed:
    """A statement that the server has carried out."""

    at: float
    query: str
    arguments: Sequence[Any]
    process: Process | None


Audit = Callable[[Sequence[Any], Executed], None]


class Server:
    """A PostgreSQL database for simulations, one after the other. Everything here blocks.

    Args:
        postgres: a running server.
        name: of the database, which is made anew.
    """

    def __init__(self, postgres: EmbeddedPostgres, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._heard: list[tuple[str, str]] = []
        self._name, self._admin_dsn = name, postgres.dsn("postgres")
        self.connection: Any = self.run(self._made(postgres, name))
        """The one real connection."""
        self._written: list[str] = []
        self._tables = [name for (name,) in self.run(self.connection.fetch(_TABLES))]

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Have something done with the real database, however simulated the caller is."""
        outside = events._get_running_loop()
        events._set_running_loop(None)
        try:
            return self._loop.run_until_complete(work)
        finally:
            events._set_running_loop(outside)

    def execute(self, query: str) -> None:
        """Anything, e.g. a function replaced."""
        self.run(self.connection.execute(query))

    def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Rows, as the next simulation will not see them."""
        rows: list[Any] = self.run(self.connection.fetch(query, *arguments))
        return rows

    def begin(self, seed: int) -> None:
        """Make the database as it was in the beginning."""
        self.run(self._emptied(seed))
        self._heard.clear()

    def notices(self) -> list[tuple[str, str]]:
        """Channel and payload of what was notified since the last call."""
        heard, self._heard = self._heard, []
        return heard

    async def ask(
        self, now: str, audit: tuple[str, Callable[[Sequence[Any]], None], int], call: Callable[[Any], Any]
    ) -> tuple[int, Any, Exception | None]:
        """One round: set the clock, look whether something was written since, audit it, then do what is asked."""
        _, xid = await self.connection.fetchrow(_STEP, now)
        query, tell, since = audit
        if xid != since:
            tell(await self.connection.fetch(query, since))
        try:
            return xid, await call(self.connection), None
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return xid, None, error

    async def alone(self, call: Callable[[Any], Any]) -> tuple[Any, Exception | None]:
        """A statement inside a transaction: the clock stands still."""
        try:
            return await call(self.connection), None
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return None, error

    def close(self) -> None:
        """Close the connection and the loop, and drop the database."""
        self.run(self._dropped())
        self._loop.close()

    async def _dropped(self) -> None:
        await self.connection.close(timeout=5)
        admin = await asyncpg.connect(self._admin_dsn)
        try:
            await admin.execute(f'DROP DATABASE "{self._name}" WITH (FORCE)')
        finally:
            await admin.close()

    async def _made(self, postgres: EmbeddedPostgres, name: str) -> Any:
        admin = await asyncpg.connect(self._admin_dsn)
        try:
            await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await admin.execute(f'CREATE DATABASE "{name}"')
        finally:
            await admin.close()
        connection = await asyncpg.connect(postgres.dsn(name))
        await connection.execute(_SHADOWS)
        for setting, value in _SETTINGS.items():
            quoted = value if setting == "search_path" else f"'{value}'"
            await connection.execute(f'ALTER DATABASE "{name}" SET {setting} = {quoted}')
        await connection.close()
        await migrate(postgres.dsn(name))
        connection = await asyncpg.connect(postgres.dsn(name), statement_cache_size=1000)
        await _prepare(connection)
        for (table,) in await connection.fetch(_TABLES):
            # Whatever else happens in the server's background must not change where rows lie.
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        for channel in _CHANNELS:
            await connection.add_listener(channel, self._hear)
        return connection

    def _hear(self, _connection: Any, _pid: int, channel: str, payload: object) -> None:
        self._heard.append((channel, str(payload)))

    async def _emptied(self, seed: int) -> None:
        connection = self.connection
        which = " UNION ALL ".join(
            f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in self._tables
        )
        written = [name for (name,) in await connection.fetch(which)]
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            if written:
                await connection.execute(f"TRUNCATE {', '.join(written)} RESTART IDENTITY CASCADE")
            await connection.execute("SELECT setval('simulated.draws', 1)")
        await connection.execute(f"SET simulated.seed = '{seed}'")


@dataclass(eq=False)
class _Statement:
    """One statement under way."""

    connection: "SimConnection"
    method: str
    query: str
    arguments: Sequence[Any]
    fate: Fate
    future: "asyncio.Future[Any]"


@dataclass
class Line:
    """The way of all simulated processes to the one database.

    Args:
        audit_query: reads what was written by transactions from `$1` on.
        audit: is told its rows after each statement that wrote something, before the next is executed.
        trace: is told of everything that happens.
    """

    server: Server
    loop: SimLoop
    faults: Faults
    begins_at: datetime
    audit_query: str
    audit: Audit
    trace: Callable[[str], None]
    _context: Context = field(default_factory=Context)
    _holder: "SimConnection | None" = None
    _waiting: deque[_Statement] = field(default_factory=deque)
    _listeners: "list[SimListener]" = field(default_factory=list)
    _xid: int = 0
    _last: Executed = Executed(0.0, "the beginning", (), None)
    statements: int = 0

    def now(self) -> datetime:
        """The true time, which is the database's."""
        return self.begins_at + timedelta(seconds=self.loop.time())

    def listen(self, listener: "SimListener") -> None:
        """Have a listener told of notices."""
        self._listeners.append(listener)

    async def ask(
        self, connection: "SimConnection", method: str, query: str, arguments: Sequence[Any]
    ) -> Any:
        """Send a statement and wait for its answer."""
        fate = self.faults.statement(connection.process, self.loop.time())
        statement = _Statement(connection, method, query, arguments, fate, self.loop.create_future())
        self.loop.call_later(fate.travels_s, self._arrive, statement, context=self._context)
        return await statement.future

    def settle(self) -> None:
        """Audit what was written last."""
        if self._holder is None:
            self._xid, _, _ = self.server.run(
                self.server.ask(self.now().isoformat(), self._auditing(), lambda c: c.fetchval("SELECT 1"))
            )

    # ------------------------------------------------------------------------------- at the server

    def _arrive(self, statement: _Statement) -> None:
        connection, fate = statement.connection, statement.fate
        if connection.broken or not fate.arrives or not (connection.process.alive or fate.outlives):
            self.trace(f"{connection.process.name} lost {_head(statement.query)}")
            return self._lost(statement)
        if self._holder is not None and self._holder is not connection:
            self._waiting.append(statement)
            return None
        self._execute(statement)
        return None

    def _execute(self, statement: _Statement) -> None:
        connection, query = statement.connection, statement.query
        if query == "BEGIN":
            self._holder = connection
            connection.forget = connection.process.on_death(lambda: self._break(connection))
        value, error = self._run(statement)
        self.statements += 1
        outcome = type(error).__name__ if error else len(value) if isinstance(value, list) else "done"
        self.trace(f"{connection.process.name} {_head(query)} -> {outcome}")
        self._notify()
        if query in ("COMMIT", "ROLLBACK"):
            self._release(connection)
        if not statement.fate.answers:
            return self._lost(statement)
        if error is None and (bool(value) if isinstance(value, list) else not str(value).endswith(" 0")):
            connection.process.spoke(query)
        returns_s, process = statement.fate.returns_s, connection.process
        if process.waits_for_answers:
            returns_s = max(returns_s, process.cut_off_until - self.loop.time())
        self.loop.call_later(returns_s, _answer, statement.future, value, error, context=self._context)
        return None

    def _run(self, statement: _Statement) -> tuple[Any, Exception | None]:
        def call(connection: Any) -> Any:
            return getattr(connection, statement.method)(statement.query, *statement.arguments)

        if self._holder is not None and statement.query != "BEGIN":
            return self.server.run(self.server.alone(call))
        asked = self.server.ask(self.now().isoformat(), self._auditing(), call)
        self._xid, value, error = self.server.run(asked)
        process = statement.connection.process
        self._last = Executed(self.loop.time(), statement.query, statement.arguments, process)
        return value, error

    def _auditing(self) -> tuple[str, Callable[[Sequence[Any]], None], int]:
        last = self._last

        def tell(rows: Sequence[Any]) -> None:
            self.audit(rows, last)

        return self.audit_query, tell, self._xid

    def _lost(self, statement: _Statement) -> None:
        connection, fate = statement.connection, statement.fate
        error: Exception = ConnectionResetError("simulated: the line broke")
        self._break(connection)
        self.loop.call_later(fate.returns_s, _answer, statement.future, None, error, context=self._context)

    def _break(self, connection: "SimConnection") -> None:
        """The connection is gone: what it had not committed never happened."""
        connection.broken = True
        if self._holder is connection:
            self.server.execute("ROLLBACK")
            self._release(connection)

    def _release(self, connection: "SimConnection") -> None:
        if self._holder is connection:
            self._holder = None
            connection.forget()
        waiting, self._waiting = self._waiting, deque()
        for statement in waiting:
            self._arrive(statement)

    def _notify(self) -> None:
        for channel, payload in self.server.notices():
            for listener in list(self._listeners):
                if not listener.process.alive or listener.closed:
                    self._listeners.remove(listener)
                elif channel in listener.channels:
                    delay = self.faults.notice(listener.process, self.loop.time())
                    if delay is None:
                        listener.go_deaf()
                    else:
                        self.loop.call_later(delay, listener.hear, channel, payload, context=self._context)


def _head(query: str) -> str:
    return " ".join(query.split())[:60]


def _answer(future: "asyncio.Future[Any]", value: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
        future.exception()


class SimConnection:
    """What a pool lends: the calls of asyncpg that the server uses."""

    def __init__(self, line: Line, process: Process) -> None:
        self.process = process
        self.broken = False
        self.forget: Callable[[], None] = lambda: None
        self._line = line

    async def fetch(self, query: str, *arguments: Any, timeout: float | None = None) -> Any:
        return await self._line.ask(self, "fetch", query, arguments)

    async def fetchrow(self, query: str, *arguments: Any, timeout: float | None = None) -> Any:
        return await self._line.ask(self, "fetchrow", query, arguments)

    async def fetchval(self, query: str, *arguments: Any, timeout: float | None = None) -> Any:
        return await self._line.ask(self, "fetchval", query, arguments)

    async def execute(self, query: str, *arguments: Any, timeout: float | None = None) -> Any:
        return await self._line.ask(self, "execute", query, arguments)

    @asynccontextmanager
    async def transaction(self, **_options: Any) -> AsyncIterator[None]:
        await self.execute("BEGIN")
        try:
            yield
        except BaseException:
            if not self.broken:
                await self.execute("ROLLBACK")
            raise
        await self.execute("COMMIT")


class _Pool:
    """Connections without number."""

    def __init__(self, line: Line, process: Process) -> None:
        self._line = line
        self._process = process

    async def acquire(self, timeout: float) -> SimConnection:
        if not self._line.faults.connects(self._process, self._line.loop.time()):
            await asyncio.sleep(self._line.faults.refusal_s())
            raise ConnectionRefusedError("simulated: no way to the database")
        return SimConnection(self._line, self._process)

    async def release(self, connection: SimConnection, timeout: float) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is open."""

    def terminate(self) -> None:
        """Nothing is open."""

    def get_size(self) -> int:
        return 0

    def get_idle_size(self) -> int:
        return 0


class SimDatabase(Database):
    """A process's pool on the simulated line; all of `Database` but the driver is the real one."""

    def __init__(self, line: Line, process: Process, name: str) -> None:
        super().__init__("simulated", name=name)
        self._line = line
        self._process = process

    async def open(self) -> None:
        self._pool = _Pool(self._line, self._process)

    def listen(self, channels: Sequence[str], on_notice: Callable[[str, str], None]) -> Listener:
        listener = SimListener(self._line, self._process, channels, on_notice)
        self._listeners.append(listener)
        listener.start()
        return listener


class SimListener(Listener):
    """Hears notices, unless it is deaf; after that everything may have happened."""

    def __init__(
        self, line: Line, process: Process, channels: Sequence[str], on_notice: Callable[[str, str], None]
    ) -> None:
        super().__init__("simulated", process.name, channels, on_notice)
        self.process = process
        self.channels = channels
        self.closed = False
        self._line = line
        self._deaf = True

    @property
    def hearing(self) -> bool:
        return not self._deaf

    def start(self) -> None:
        self._line.listen(self)
        self.go_deaf()

    async def close(self) -> None:
        self.closed = True

    def go_deaf(self) -> None:
        """Its connection breaks, and stands again after a while."""
        self._deaf = True
        loop, faults = self._line.loop, self._line.faults
        loop.call_later(faults.deaf_s(), self._hear_again, context=self._owned())

    def hear(self, channel: str, payload: str) -> None:
        """A notice has come."""
        if not self._deaf and not self.closed:
            self._owned().run(self._call, channel, payload)

    def _hear_again(self) -> None:
        if self.closed:
            return
        self._deaf = False
        for channel in self.channels:
            self._on_notice(channel, "")

    def _call(self, channel: str, payload: str) -> None:
        self._line.loop.call_soon(self._on_notice, channel, payload)

    def _owned(self) -> Context:
        context = Context()
        context.run(OWNER.set, self.process)
        return context
