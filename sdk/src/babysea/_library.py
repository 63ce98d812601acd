"""`client.library`: which providers and models there are."""

from typing import TYPE_CHECKING

from babysea import _operations as operations
from babysea._flows import Flows
from babysea._types import LibraryModel, LibraryModels, LibraryProviders

if TYPE_CHECKING:
    from babysea._driver import Driver
    from babysea._driver_async import AsyncDriver


class Library:
    """Providers and models. The models are read at most every five minutes."""

    def __init__(self, driver: "Driver", flows: Flows) -> None:
        self._driver = driver
        self._flows = flows

    def providers(self) -> LibraryProviders:
        """The providers that the server knows.

        Example:
            library = client.library.providers()
            print([provider.provider_id for provider in library.providers])
        """
        return self._driver.run(self._flows.read(LibraryProviders, operations.LIBRARY_PROVIDERS))

    def models(self) -> LibraryModels:
        """The models on offer, with their prices and fields.

        Example:
            library = client.library.models()
            print([model.model_identifier for model in library.models])
        """
        return self._driver.run(self._flows.catalog.models())

    def model(self, identifier: str) -> LibraryModel:
        """One model; read anew when it is not among those that were read before.

        Raises:
            NotFoundError: it is not on offer; the message names those that are spelled like it.

        Example:
            model = client.library.model("sandbox/image")
            print(model.model_pricing, model.schema.generation_ratio)
        """
        return self._driver.run(self._flows.catalog.model(identifier))


class AsyncLibrary:
    """Providers and models. The models are read at most every five minutes."""

    def __init__(self, driver: "AsyncDriver", flows: Flows) -> None:
        self._driver = driver
        self._flows = flows

    async def providers(self) -> LibraryProviders:
        """The providers that the server knows.

        Example:
            library = await client.library.providers()
            print([provider.provider_id for provider in library.providers])
        """
        return await self._driver.run(self._flows.read(LibraryProviders, operations.LIBRARY_PROVIDERS))

    async def models(self) -> LibraryModels:
        """The models on offer, with their prices and fields.

        Example:
            library = await client.library.models()
            print([model.model_identifier for model in library.models])
        """
        return await self._driver.run(self._flows.catalog.models())

    async def model(self, identifier: str) -> LibraryModel:
        """One model; read anew when it is not among those that were read before.

        Raises:
            NotFoundError: it is not on offer; the message names those that are spelled like it.

        Example:
            model = await client.library.model("sandbox/image")
            print(model.model_pricing, model.schema.generation_ratio)
        """
        return await self._driver.run(self._flows.catalog.model(identifier))
