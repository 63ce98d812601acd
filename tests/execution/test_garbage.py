"""What a run leaves behind: nothing that only a collection of garbage would find."""

import asyncio

import pytest
from tests.execution.conftest import House
from tests.execution.scripted import DONE, Gate, Script, Scripted, accepted
from tests.execution.test_cancellation import canceled, idle
from tests.execution.test_failover import BROKEN, NO_OUTPUT, refuses
from tests.uncollected import uncollected

from babysea_server.execution.attempt import Attempt, Defeat, Success
from babysea_server.execution.collect import Collector
from babysea_server.execution.run import Run
from babysea_server.execution.types import Claim
from babysea_server.providers.base import (
    AnswerLostError,
    Failure,
    Finished,
    Job,
    NeverSentError,
    Output,
    Running,
)

PARTS = (Run, Collector, Claim, Attempt, Success, Defeat, Job)
ORDERS = [
    ("instant",),
    ("polled",),
    ("unreachable", "busy", "empty", "broken", "gone", "instant"),
    ("unreachable", "busy"),
    ("policy",),
    ("lost",),
]


def everybody() -> Scripted:
    """A provider for each way of ending."""
    return Scripted(
        instant=Script([DONE]),
        polled=Script([accepted()], [Running(0.0), Running(0.0), DONE]),
        unreachable=Script([NeverSentError("no route")]),
        lost=Script([AnswerLostError("reset")]),
        busy=refuses(Failure.REFUSED_BUSY),
        policy=refuses(Failure.REFUSED_POLICY),
        empty=Script([accepted()], [NO_OUTPUT]),
        broken=Script([BROKEN]),
        gone=Script([accepted()], [Finished([Output(url="file/gone/dead")])]),
    )


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_a_run_that_ended_leaves_no_garbage(house: House, order: tuple[str, ...]) -> None:
    house.provider = everybody()
    with uncollected(*PARTS) as left_behind:
        await house.worker()
        await asyncio.gather(*(house.admit(order) for _ in range(5)))
        await house.all_finished()
        await idle(house)
        assert left_behind() == {}


async def test_a_canceled_run_leaves_no_garbage(house: House) -> None:
    gate = Gate()
    house.provider = Scripted(replicate=Script([accepted()], [Running(5.0)], cancel=True, on_submit=gate))
    with uncollected(*PARTS) as left_behind:
        await house.worker()
        generation = await house.admit()
        await gate.entered.wait()
        await canceled(house, generation)
        gate.opened.set()
        await idle(house)
        assert left_behind() == {}
