"""Which adapter serves which provider id, and over which transport."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from babysea_server.providers.base import Provider, Transport


@dataclass(frozen=True, slots=True)
class Route:
    """How one provider id is called."""

    provider: Provider
    transport: Transport


class Registry:
    """The providers this installation can call."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = dict(routes)

    def available(self, provider_id: str) -> bool:
        """Whether the provider can be called at all (configured; says nothing of its health)."""
        return provider_id in self._routes

    def route(self, provider_id: str) -> Route | None:
        """How to call the provider, or None."""
        return self._routes.get(provider_id)

    def transports(self) -> list[Transport]:
        """Every transport once."""
        return list({id(route.transport): route.transport for route in self._routes.values()}.values())

    async def close(self) -> None:
        """Close every transport once."""
        for transport in self.transports():
            await transport.close()


def everywhere(provider_ids: Iterable[str], route: Route) -> Registry:
    """A registry in which one adapter stands in for every provider, as the sandbox does."""
    return Registry(dict.fromkeys(provider_ids, route))
