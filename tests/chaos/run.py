"""One run: the system, the load, the faults, and the audit at the end."""

import asyncio
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from tests.chaos import audit as audits
from tests.chaos import processes
from tests.chaos.audit import Audit
from tests.chaos.faults import Faults
from tests.chaos.load import MARK, Customers
from tests.chaos.plan import Fault, Kind, draw
from tests.chaos.topology import Customer, Topology, new_folder, running
from tests.emulators.kit import SECRET_MARK

from babysea_server.kit.clock import Clock

_CREDITS = 1000
_ANSWERED_S = 90.0
#: The bound on everything beside the load: the start, settling, the audit.
_BESIDE_S = 900.0
#: What needs a file system that can be filled.
_ON_SMALL_DISKS = frozenset({Kind.DISK_FULL, Kind.STORAGE_FULL})


@dataclass(frozen=True, slots=True)
class Chaos:
    """What to run."""

    seed: int
    seconds: float
    rate: float
    keep: bool = False
    """Keep the folder with the logs also when all is well."""
    without: frozenset[Kind] = frozenset()
    """Faults that are not made."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it."""

    chaos: Chaos
    made: list[Fault]
    breaches: list[str]
    counted: dict[str, Any]
    notes: list[str]
    folder: Path | None
    """Where the logs are, if they were kept."""

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not self.breaches


async def run(chaos: Chaos, clock: Clock, say: Callable[[str], None]) -> Result:
    """Run once; nothing but perhaps the folder is left. What goes wrong is in the result, whatever it is."""
    audit, notes, made = Audit(), list[str](), list[Fault]()
    began = clock.monotonic()
    folder = new_folder()

    def tell(what: str) -> None:
        say(f"[{clock.monotonic() - began:5.0f} s] {what}")

    try:
        async with asyncio.timeout(chaos.seconds + _BESIDE_S), running(folder, clock) as topology:
            without = set(chaos.without)
            if not topology.small_disks and _ON_SMALL_DISKS - without:
                without |= _ON_SMALL_DISKS
                notes.append(
                    f"not made, for want of the right to mount: {', '.join(sorted(_ON_SMALL_DISKS))}"
                )
            faults = Faults(topology, chaos.seed, tell, made)
            customer = await _standing(topology)
            tell("the system stands")
            plan = draw(chaos.seed, chaos.seconds, without=without)
            await _under_load(topology, chaos, customer, plan, faults, audit, tell)
            secrets = [MARK, SECRET_MARK, customer.key, *customer.secrets.values()]
        processes.logs(folder / "logs", secrets, audit)
    except Exception as error:
        traceback.print_exc()
        audit.breach("the run comes to its end", [repr(error)])
    except BaseException:  # ended by whoever started it
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if audit.breaches or chaos.keep:
        return Result(chaos, made, audit.breaches, audit.counted, notes, folder)
    shutil.rmtree(folder, ignore_errors=True)
    return Result(chaos, made, [], audit.counted, notes, None)


async def _standing(topology: Topology) -> Customer:
    async with asyncio.TaskGroup() as group:
        group.create_task(topology.all_serve())
        customer = group.create_task(topology.customer(_CREDITS))
    return customer.result()


async def _under_load(
    topology: Topology,
    chaos: Chaos,
    customer: Customer,
    plan: list[Fault],
    faults: Faults,
    audit: Audit,
    tell: Callable[[str], None],
) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        customers = Customers(
            session, topology.bases, customer.key, topology.clock, seed=chaos.seed, rate=chaos.rate
        )
        await _storm(customers, faults, plan, chaos.seconds)
        tell("the storm is over")
        await topology.all_serve()
        await customers.answered(within_s=_ANSWERED_S)
        tell("every customer has an answer")
        await audits.settle(topology, audit)
        tell("everything is settled")
        await _promises(topology, customers, customer, audit)
    await processes.descriptors(topology, audit)
    for server in topology.servers:
        server.life.sample(topology.clock.monotonic())
    await asyncio.gather(*(server.stop() for server in topology.servers))
    processes.lives(topology.servers, audit)
    tell("everything is audited")


async def _storm(customers: Customers, faults: Faults, plan: list[Fault], seconds: float) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(customers.go(seconds))
        group.create_task(faults.follow(plan))


async def _promises(topology: Topology, customers: Customers, customer: Customer, audit: Audit) -> None:
    outcome = customers.outcome
    audit.counted["answers"] = dict(outcome.answers)
    audit.counted["requests not made for want of room"] = outcome.skipped
    audit.counted["connections cut"] = {name: way.cuts for name, way in topology.ways.items()}
    audit.breach("customers have no complaint", outcome.complaints)
    rows = await audits.generations(topology, outcome, audit)
    await audits.money(topology, customer, audit)
    seen = await topology.seen()
    audit.counted["requests spoiled"] = seen.spoiled
    audits.webhooks(seen, rows, customer.secrets, audit)
    audits.upstream(await topology.query(audits.ATTEMPTS), seen, audit)
    await audits.outputs(customers, topology.bases[0], rows, audit)
