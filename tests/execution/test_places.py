"""Outputs of many generations that end at once: a bounded number is in memory, and by provider."""

import asyncio

from obstore.store import LocalStore
from tests.execution.conftest import House
from tests.support import eventually

from babysea_server.outputs.store import ObjectStore

PLACES = 128


class HeldStore(ObjectStore):
    """Holds the first puts until it is let go."""

    def __init__(self, house: House) -> None:
        super().__init__(LocalStore(house.folder), name="held", directory=house.folder)
        self.inside = self.most = 0
        self.let_go = asyncio.Event()

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Wait, then as always."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            if self.inside <= PLACES:
                await self.let_go.wait()
            await super().put(key, data, content_type)
        finally:
            self.inside -= 1


async def test_outputs_in_memory_are_bounded_for_each_provider(house: House) -> None:
    store = HeldStore(house)
    for _ in range(10):
        await asyncio.gather(*(house.admit(["replicate"]) for _ in range(14)))
    await house.worker(concurrency=200, store=store)

    async def full() -> bool:
        return store.inside == PLACES

    await eventually(full)
    # Another provider's outputs do not wait behind them.
    other = await house.admit(["fal"])
    assert (await house.finished(other))["status"] == "succeeded"
    assert store.most == PLACES + 1
    store.let_go.set()
    await house.all_finished()
    assert store.most <= PLACES + 1
    await house.check()
