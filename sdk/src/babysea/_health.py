"""`client.health`: how the server's parts do."""

from typing import TYPE_CHECKING

from babysea import _operations as operations
from babysea._flows import Flows
from babysea._types import CacheHealth, ModelsHealth, ProvidersHealth, StorageHealth

if TYPE_CHECKING:
    from babysea._driver import Driver
    from babysea._driver_async import AsyncDriver


class Health:
    """Four reads; what is unwell is told by `healthy`, never by an error."""

    def __init__(self, driver: "Driver", flows: Flows) -> None:
        self._driver = driver
        self._flows = flows

    def providers(self) -> ProvidersHealth:
        """How every provider did lately.

        Example:
            health = client.health.providers()
            print(health.healthy)
        """
        read = self._flows.read(ProvidersHealth, operations.HEALTH_INFERENCE, subject="providers")
        return self._driver.run(read)

    def models(self) -> ModelsHealth:
        """Where every model can run now.

        Example:
            health = client.health.models()
            print(health.models_total)
        """
        read = self._flows.read(ModelsHealth, operations.HEALTH_INFERENCE, subject="models")
        return self._driver.run(read)

    def storage(self) -> StorageHealth:
        """Whether files can be stored, and how fast.

        Example:
            health = client.health.storage()
            print(health.latency_ms)
        """
        return self._driver.run(self._flows.read(StorageHealth, operations.HEALTH_STORAGE))

    def cache(self) -> CacheHealth:
        """Whether shared limits can be counted, and how fast.

        Example:
            health = client.health.cache()
            print(health.latency_ms)
        """
        return self._driver.run(self._flows.read(CacheHealth, operations.HEALTH_CACHE))


class AsyncHealth:
    """Four reads; what is unwell is told by `healthy`, never by an error."""

    def __init__(self, driver: "AsyncDriver", flows: Flows) -> None:
        self._driver = driver
        self._flows = flows

    async def providers(self) -> ProvidersHealth:
        """How every provider did lately.

        Example:
            health = await client.health.providers()
            print(health.healthy)
        """
        read = self._flows.read(ProvidersHealth, operations.HEALTH_INFERENCE, subject="providers")
        return await self._driver.run(read)

    async def models(self) -> ModelsHealth:
        """Where every model can run now.

        Example:
            health = await client.health.models()
            print(health.models_total)
        """
        read = self._flows.read(ModelsHealth, operations.HEALTH_INFERENCE, subject="models")
        return await self._driver.run(read)

    async def storage(self) -> StorageHealth:
        """Whether files can be stored, and how fast.

        Example:
            health = await client.health.storage()
            print(health.latency_ms)
        """
        return await self._driver.run(self._flows.read(StorageHealth, operations.HEALTH_STORAGE))

    async def cache(self) -> CacheHealth:
        """Whether shared limits can be counted, and how fast.

        Example:
            health = await client.health.cache()
            print(health.latency_ms)
        """
        return await self._driver.run(self._flows.read(CacheHealth, operations.HEALTH_CACHE))
