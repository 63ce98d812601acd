"""One simulation: from a seed to what became of it."""

import asyncio
import hashlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any
from unittest.mock import patch
from uuid import UUID

import structlog
from tests.simulation.auditor import QUERY, Auditor
from tests.simulation.customers import PROMPT_MARK, Customer, Front, Wish, draw_wishes
from tests.simulation.database import Line, Server
from tests.simulation.faults import BUSY_S, FAULTY_S, TURNS, Faults
from tests.simulation.loop import OWNER, Process, SimLoop, StalledError
from tests.simulation.receivers import Files, Receivers
from tests.simulation.sides import MASTER_KEY, ApiSide, Surroundings, WorkerSide, attempt_of
from tests.simulation.upstream import CREDENTIALS, Upstream, draw_habits
from tests.support import principal

from babysea_server.accounts import store as accounts
from babysea_server.catalog.catalog import Catalog
from babysea_server.kit import ids
from babysea_server.kit.calls import Plan
from babysea_server.webhooks.secrets import SecretBox

BEGINS_AT = datetime(2026, 4, 28, 12, tzinfo=UTC)
_PROVIDERS = ("replicate", "fal", "cloudflare", "runway")
_SECRETS = (PROMPT_MARK, CREDENTIALS, "whsec_")
_BREACHES_MAX = 20
#: How long after the last fault everything must have ended, beside deliveries that wait for their next try.
_REST_S = 400
_LIFE_MAX_S = 4 * 86_400.0
_STOP_S = 20.0
_EVENTS = ("generation.started", "generation.completed", "generation.failed", "generation.canceled")


@dataclass
class Report:
    """What became of one seed."""

    seed: int
    kinds: Sequence[str]
    breaches: list[str] = field(default_factory=list)
    digest: str = ""
    """Of everything that happened, in order."""
    without: Sequence[str] = ()
    """Kinds of faults that were left out."""
    generations: int = 0
    crashes: int = 0
    statements: int = 0
    steps: int = 0
    simulated_s: float = 0.0
    seconds: float = 0.0


class World:
    """See the module.

    Args:
        without: kinds of faults that are left out.
        show: is given each line of the trace.
    """

    def __init__(
        self,
        server: Server,
        catalog: Catalog,
        seed: int,
        *,
        without: Sequence[str] = (),
        show: Callable[[str], None] | None = None,
    ) -> None:
        self._server = server
        self._draw = Random(f"{seed} world")
        self._show = show
        self._hash = hashlib.sha256()
        self.faults = Faults(seed, without)
        self.report = Report(seed, sorted(self.faults.kinds))
        self.loop = SimLoop(self._uncaught, lambda: self._draw.uniform(0.0, 0.01))
        self.auditor = Auditor(self.breach)
        self.line = Line(server, self.loop, self.faults, BEGINS_AT, QUERY, self.auditor.step, self.trace)
        self.upstream = Upstream(
            self.loop,
            self.faults,
            Random(f"{seed} upstream"),
            self,
            self.trace,
            self._call_back,
            {id: draw_habits(self._draw) for id in _PROVIDERS},
        )
        self.receivers = Receivers(self.loop, self.faults, Random(f"{seed} receivers"), self.breach)
        self.files = Files(self.loop, self.faults, Random(f"{seed} files"))
        self.front = Front(self.loop, self.faults, Random(f"{seed} front"))
        self._around = Surroundings(self.line, self.upstream, self.receivers, self.files, catalog, self._draw)
        self._sides: dict[str, ApiSide | WorkerSide] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._over = False

    def run(self) -> Report:
        """Live through it."""
        began = time.process_time()
        report = self.report
        self._server.begin(report.seed)
        with _seeded(report.seed, self._wall_ns), _listened_to(self._logged):
            customers = [self._customer(number) for number in range(2)]
            try:
                self.loop.run_until_complete(self._live(customers))
                self.line.settle()
                self.auditor.close(set(self.files.objects), self._acknowledged)
            except StalledError as error:
                self.breach(f"stalled: {error}")
            finally:
                self.loop.end()
        report.digest = self._hash.hexdigest()
        report.generations = len(self.auditor.accepted_ids)
        report.statements, report.steps = self.line.statements, self.loop.steps
        report.simulated_s, report.seconds = self.loop.time(), time.process_time() - began
        return report

    # ------------------------------------------------------------------------------- what is seen

    def breach(self, text: str) -> None:
        """Something that must not be."""
        self.trace(f"BREACH {text}")
        if len(self.report.breaches) < _BREACHES_MAX:
            self.report.breaches.append(f"{self.loop.time():.3f} s: {text}")

    def trace(self, text: str) -> None:
        """Something happened."""
        line = f"{self.loop.time():.6f} {text}"
        self._hash.update(line.encode())
        if self._show is not None:
            self._show(line)

    def sending(self, process: Process, attempt_id: UUID) -> None:
        """See `Witness`."""
        self.line.settle()  # it has seen all that is committed
        self.auditor.sending(process, attempt_id)

    def bought(self, attempt_id: UUID, provider: str) -> None:
        """See `Witness`."""
        self.auditor.buys(attempt_id, provider)

    def accepted(self, account_id: UUID, key: str | None, body: str, generation_id: UUID) -> None:
        """See `Notes`."""
        self.line.settle()  # it has seen all that is committed
        self.auditor.accepted(account_id, key, body, generation_id)

    def canceled(self, generation_id: UUID) -> None:
        """See `Notes`."""
        self.auditor.canceled(generation_id)

    def asked_to_delete(self, generation_id: UUID) -> None:
        """See `Notes`."""
        self.auditor.asked_to_delete(generation_id)

    def deleted(self, generation_id: UUID) -> None:
        """See `Notes`."""
        self.auditor.deleted(generation_id)

    def _acknowledged(self, delivery_id: str) -> bool:
        seen = self.receivers.received.get(delivery_id)
        return seen is not None and seen.acknowledged > 0

    def _uncaught(self, text: str) -> None:
        self.breach(f"nobody caught: {text}")

    def _logged(self, entry: dict[str, Any], error: BaseException | None) -> None:
        if self.loop.is_over:
            return
        owner = OWNER.get()
        self.trace(f"{owner.name if owner else 'world'} logs {entry['event']}")
        text = repr(entry)
        if error is not None:
            self.breach(f"unexpected, logged as {entry['event']}: {type(error).__name__}: {error}")
            text += repr(error)
        for secret in _SECRETS:
            if secret in text:
                self.breach(f"[11] the log entry {entry['event']} tells a secret")

    def _wall_ns(self) -> int:
        owner = OWNER.get()
        offset_s = 0.0 if owner is None else owner.clock_offset_s
        begins_at_ns = int(BEGINS_AT.timestamp()) * 1_000_000_000
        return begins_at_ns + round((self.loop.time() + offset_s) * 1e9)

    # ------------------------------------------------------------------------------- the beginning

    def _customer(self, number: int) -> tuple[Customer, list[Wish]]:
        draw, server = self._draw, self._server
        limit = draw.choice((1, 2, 4, None))
        account = server.run(accounts.create(server.connection, name=f"Customer {number}", plan="free"))
        credits = draw.choice((12_000, 60_000, 4_000_000, 50_000_000))
        server.fetch("SELECT add_credits_v1($1, $2, 'test')", account.id, credits)
        for place in range(draw.choice((0, 1, 1, 2))):
            events = draw.sample(_EVENTS, draw.randint(1, 4))
            server.fetch(
                """INSERT INTO webhook_endpoints (id, account_id, url, events, secret)
                   VALUES ($1, $2, $3, $4, $5)""",
                ids.uuid7(),
                account.id,
                f"https://hooks.example.com/{number}/{place}",
                sorted(events),
                SecretBox(MASTER_KEY).seal("whsec_" + "A" * 32),
            )
        self.auditor.limits[str(account.id)] = limit
        caller = principal(account_id=account.id, plan=Plan("free", None, limit))
        customer = Customer(caller, self.front, self, Random(f"{self.report.seed} customer {number}"))
        return customer, draw_wishes(draw, draw.choice((3, 6, 12)))

    # ------------------------------------------------------------------------------- the life

    async def _live(self, customers: Sequence[tuple[Customer, list[Wish]]]) -> None:
        slots = [f"api-{n}" for n in range(self._draw.randint(1, 2))]
        slots += [f"worker-{n}" for n in range(self._draw.randint(1, 3))]
        self._keepers = [asyncio.create_task(self._keep(slot)) for slot in slots]
        operator = asyncio.create_task(self._operate())
        wants = [asyncio.create_task(who.want(wish)) for who, wishes in customers for wish in wishes]
        await asyncio.sleep(FAULTY_S)
        for side in self._sides.values():
            side.process.crash_after = side.process.armed = None
        await operator
        await asyncio.wait(wants)
        for task in wants:
            task.result()
        await self._rest()
        self._over = True
        await asyncio.gather(*[self._stop(side) for side in self._sides.values()])
        await asyncio.wait(self._keepers)

    async def _rest(self) -> None:
        """Let time run on until everything has ended."""
        while self.loop.time() < _LIFE_MAX_S:
            for _ in range(_REST_S):
                if self._resting():
                    break
                await asyncio.sleep(1.0)
            self.line.settle()
            if self.auditor.at_rest or not self._resting():
                return
            # Only deliveries wait, perhaps for hours: meanwhile everybody is at home.
            wait_s = self._server.fetch(
                "SELECT extract(epoch FROM min(due_at) - $1)::float8 FROM webhook_deliveries WHERE state = 'pending'",
                self.line.now(),
            )[0][0]
            self._over = True
            await asyncio.gather(*[self._stop(side) for side in self._sides.values()])
            await asyncio.wait(self._keepers)
            await asyncio.sleep(max(0.0, wait_s))
            self._over = False
            self._keepers = [asyncio.create_task(self._keep(slot)) for slot in self._sides]

    def _resting(self) -> bool:
        """Whether there is nothing to do before the next try of a delivery, which is not soon."""
        if self.auditor.at_rest:
            return True
        auditor = self.auditor
        busy = any(row["status"] not in _ENDED for row in auditor.generations.values()) or any(
            row["outcome"] == "pending" for row in auditor.attempts.values()
        )
        if busy:
            return False
        return not self._server.fetch(
            """SELECT FROM webhook_deliveries WHERE state = 'pending'
               AND (worker_id IS NOT NULL OR due_at < $1::timestamptz + interval '20 s')""",
            self.line.now(),
        )

    async def _keep(self, slot: str) -> None:
        """A process manager: whenever the process is gone, it starts another."""
        draw, number = self._draw, 0
        while not self._over:
            process = Process(f"{slot}.{number}", self.loop)
            now = self.loop.time()
            if self.faults.on("crashes", now):
                process.crash_after = int(math.exp(draw.uniform(math.log(20), math.log(3000))))
            if self.faults.on("jumps", now):
                process.clock_offset_s = draw.choice((0.0, draw.uniform(-1.0, 1.0)))
            died = asyncio.Event()
            process.on_death(died.set)
            side = ApiSide(self._around, process) if slot[0] == "a" else WorkerSide(self._around, process)
            self._sides[slot] = side
            process.start(side.open())
            if isinstance(side, ApiSide):
                self.front.apis.append(side)
            await died.wait()
            self.trace(f"{process.name} is gone after {process.steps} steps")
            if isinstance(side, ApiSide) and side in self.front.apis:
                self.front.apis.remove(side)
            self.report.crashes += process.steps == process.crash_after
            pause = draw.choice((0.05, draw.uniform(0.5, 4.0), draw.uniform(4.0, 20.0)))
            await asyncio.sleep(pause if self.loop.time() < self.faults.until else 0.05)
            number += 1

    async def _stop(self, side: ApiSide | WorkerSide) -> None:
        """What an operator's restart does: ask it to end, and end it when it takes too long."""
        process = side.process
        if isinstance(side, ApiSide) and side in self.front.apis:
            self.front.apis.remove(side)  # no new requests
        closing = process.start(side.close())
        died = asyncio.Event()
        process.on_death(died.set)
        gone = asyncio.create_task(died.wait())
        await asyncio.wait([closing, gone], timeout=_STOP_S, return_when=asyncio.FIRST_COMPLETED)
        if closing.done():
            closing.result()
        gone.cancel()
        process.die()

    async def _operate(self) -> None:
        """Faults of whole processes, at times of the seed's choosing."""
        draw, faults = self._draw, self.faults
        acts: list[tuple[float, str]] = []
        for kind in ("crashes", "restarts", "freezes", "cuts", "jumps"):
            acts += [(draw.uniform(1.0, BUSY_S + 5), kind) for _ in range(draw.randint(1, 4))]
        stops = []
        for at, kind in sorted(acts):
            await asyncio.sleep(max(0.0, at - self.loop.time()))
            ready = [side for side in self._sides.values() if side.process.alive]
            if not faults.on(kind, self.loop.time()) or not ready:
                continue
            side = draw.choice(ready)
            process = side.process
            self.trace(f"{kind} of {process.name}")
            match kind:
                case "restarts":
                    stops.append(asyncio.create_task(self._stop(side)))
                case "crashes" | "freezes" | "cuts":
                    self._arm(kind, ready)
                case "jumps":
                    process.clock_offset_s += draw.choice((-3600.0, -5.0, -0.5, 0.5, 5.0, 3600.0))
        if stops:
            await asyncio.wait(stops)
            for stop in stops:
                stop.result()

    def _arm(self, kind: str, sides: Sequence[ApiSide | WorkerSide]) -> None:
        """Have it happen to some of these at a turn of their own."""
        draw = self._draw
        for side in sides:
            if draw.random() < 0.6 and side.process.armed is None:
                seconds = draw.choice((2.0, draw.uniform(10.0, 14.0), draw.uniform(14.0, 20.0)))
                turn = draw.choice(TURNS)
                side.process.armed = turn, self._struck(kind, side.process, seconds)

    def _struck(self, kind: str, process: Process, seconds: float) -> Callable[[], None]:
        """What happens at the worst moment: between a statement and its answer, or just after that."""
        waits = self._draw.random() < 0.5

        def strike() -> None:
            self.trace(f"{process.name}: {kind} for {seconds:.1f} s")
            if kind == "crashes":
                self.report.crashes += 1
                process.die()
            elif kind == "freezes":
                process.freeze(seconds)
            else:
                process.cut_off_until = min(self.loop.time() + seconds, self.faults.until)
                process.waits_for_answers = waits

        return strike

    def _call_back(self, provider: str, attempt_id: UUID) -> None:
        """A provider calls an API, if there is one."""
        ready = [api for api in self.front.apis if api.process.alive]
        if not ready:
            return
        api = self._draw.choice(ready)

        async def handle() -> None:
            address = self._around.address(provider, attempt_id)
            assert attempt_of(api, provider, address) == attempt_id
            if not await api.callbacks.receive(provider, attempt_id, {}, b""):
                self.breach(f"a callback of {provider} was refused")

        api.process.start(handle())


_ENDED = ("succeeded", "failed", "canceled")


class _Seeded:
    """What `kit.ids` asks of `time` and `secrets`."""

    def __init__(self, draw: Random, time_ns: Callable[[], int]) -> None:
        self._draw = draw
        self.time_ns = time_ns

    def token_urlsafe(self, count: int) -> str:
        return self._draw.randbytes(count).hex()


@contextmanager
def _seeded(seed: int, time_ns: Callable[[], int]) -> Iterator[None]:
    """Identifiers come from the seed and the simulated clock."""
    draw = Random(f"{seed} ids")
    source = _Seeded(draw, time_ns)
    with patch.multiple(ids, _random=draw, time=source, secrets=source):
        yield


@contextmanager
def _listened_to(tell: Callable[[dict[str, Any], BaseException | None], None]) -> Iterator[None]:
    """Everything that is logged is told, and nothing is written."""
    old = structlog.get_config()

    def processor(_logger: Any, _method: str, entry: Any) -> Any:
        tell(dict(entry), sys.exc_info()[1] if entry.get("exc_info") else None)
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, processor], cache_logger_on_first_use=False
    )
    try:
        yield
    finally:
        structlog.configure(**old)


def simulate(server: Server, catalog: Catalog, seed: int, **options: Any) -> Report:
    """One seed, see `World`."""
    return World(server, catalog, seed, **options).run()
