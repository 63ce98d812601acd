"""A provider dies in the middle of many running generations, with a second one healthy behind it.

`EFFORT=5` is the full run with five hundred.
"""

import asyncio
from typing import Any

from tests.conftest import MakeDeployment
from tests.effort import effort
from tests.emulators.fal import FalEmulator
from tests.emulators.kit import running
from tests.emulators.replicate import ReplicateEmulator
from tests.providers.live import Live, live
from tests.providers.profiles.kit import Case
from tests.support import JumpingClock, eventually

CASE = Case("bfl/flux-schnell")
ORDER = ("replicate", "fal")
MANY = effort(100)
TIMEOUT_S = 120.0
REST_S = 61
#: A process looks at its providers again after this.
READ_AGAIN_S = 5
#: What the catalog says that one picture costs the operator at Replicate, in micro-dollars.
REPLICATE_COST = 3000


async def _providers_of(system: Live, generation: Any) -> list[str]:
    return [attempt["provider"] for attempt in (await system.ended(generation)).attempts]


async def test_a_provider_that_dies_under_load_costs_no_customer_anything(
    make_deployment: MakeDeployment,
) -> None:
    clock = JumpingClock()
    async with (
        running(ReplicateEmulator()) as replicate,
        running(FalEmulator()) as fal,
        live(
            make_deployment,
            [replicate, fal],
            clock=clock,
            breaker_enabled=True,
            image_attempt_timeout_s=TIMEOUT_S,
            submit_timeout_s=60,
            worker_lease_s=3600,
            worker_poll_s=0.1,
        ) as system,
    ):
        db = system.deployment.db
        replicate.polls_until_done = 10_000
        sent = await asyncio.gather(*(system.generate(CASE, "a harbour", *ORDER) for _ in range(MANY)))

        async def all_taken() -> bool:
            return replicate.purchases == MANY

        await eventually(all_taken, within_s=60)
        replicate.down = True
        clock.jump(TIMEOUT_S)

        async def opened() -> bool:
            statuses = await system.deployment.api.regions["us"].provider_health.statuses()
            return statuses["replicate"] == "degraded"

        await eventually(opened, within_s=60)
        ended = [await system.ended(generation) for generation in sent]
        assert {row.status for row in ended} == {"succeeded"}
        assert {row.provider for row in ended} == {"fal"}
        assert {tuple(attempt["failure"] for attempt in row.attempts) for row in ended} == {
            ("timed_out", None)
        }
        assert fal.purchases == MANY
        assert replicate.purchases == MANY, "no job was bought twice"

        # Customers pay once, whatever it took; what it took is on the attempts and in the usage.
        charged = await db.fetchrow("SELECT count(*), sum(amount) FROM ledger WHERE kind = 'charge'")
        assert tuple(charged) == (MANY, sum(row.reserved for row in ended))
        assert await db.fetchval("SELECT count(*) FROM ledger WHERE kind = 'refund'") == 0
        wasted = await db.fetchval(
            "SELECT sum(wasted_cost) FROM usage_providers WHERE provider = 'replicate'"
        )
        assert wasted == MANY * REPLICATE_COST

        # From the first failures on, attempts that came later went straight to the other. Ten seconds after the
        # first of them none was begun at the dead provider any more.
        late = await db.fetchval(
            """SELECT count(*) FROM attempts WHERE provider = 'replicate' AND submitted_at > (
                   SELECT min(resolved_at) FROM attempts WHERE failure = 'timed_out') + interval '10 seconds'"""
        )
        assert late == 0
        assert await _providers_of(system, await system.generate(CASE, "while it is dead", *ORDER)) == ["fal"]

        # It comes back. After its rest one generation probes it, and then the chain is as asked for again.
        replicate.down = False
        replicate.polls_until_done = 1
        await _let_it_rest(db)
        clock.jump(READ_AGAIN_S)
        assert await _providers_of(system, await system.generate(CASE, "the probe", *ORDER)) == ["replicate"]

        async def closed() -> bool:
            statuses = await system.deployment.api.regions["us"].provider_health.statuses()
            return statuses["replicate"] == "healthy"

        await eventually(closed)
        clock.jump(READ_AGAIN_S)
        assert await _providers_of(system, await system.generate(CASE, "afterwards", *ORDER)) == ["replicate"]


async def _let_it_rest(db: Any) -> None:
    """Move what happened into the past, by the database's clock, which is what the breaker goes by."""
    await db.execute(
        """UPDATE attempts SET submitted_at = submitted_at - make_interval(secs => $1),
               resolved_at = resolved_at - make_interval(secs => $1)""",
        float(REST_S),
    )
