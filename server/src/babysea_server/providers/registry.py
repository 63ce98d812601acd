"""Which adapter serves which provider id, and over which transports."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import msgspec

from babysea_server.providers.base import Answer, NeverSentError, Provider, Request, Transport
from babysea_server.providers.caps import Cap


class Route(msgspec.Struct, frozen=True):
    """How one provider id is called.

    Without `files`, outputs are fetched over `transport`, too. `inputs` fetches what customers name: never from where
    only the operator may go, even if the provider is there.
    """

    provider: Provider
    transport: Transport
    files: Transport | None = None
    inputs: Transport | None = None
    cap: Cap | None = None


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
        carried = [
            transport
            for route in self._routes.values()
            for transport in (route.transport, route.files, route.inputs)
            if transport is not None
        ]
        return list({id(transport): transport for transport in carried}.values())

    async def close(self) -> None:
        """Close every transport once."""
        for transport in self.transports():
            await transport.close()


def everywhere(provider_ids: Iterable[str], route: Route) -> Registry:
    """A registry in which one adapter stands in for every provider, as the sandbox does."""
    return Registry(dict.fromkeys(provider_ids, route))


class GuardedTransport:
    """Carries requests to the provider's own addresses and to no others: every request holds its credentials.

    Providers answer with addresses to be asked next. Those are followed to the origin of `base`, and by https to
    hosts that end as one of `hosts` does.
    """

    def __init__(self, transport: Transport, base: str, hosts: Iterable[str] = ()) -> None:
        self._transport = transport
        self._origin = _origin(base)
        self._hosts = tuple(hosts)

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        """See `Transport.send`; an address elsewhere is a `NeverSentError`."""
        if not self._is_ours(request.url):
            raise NeverSentError("the provider named an address that is not its own")
        return await self._transport.send(request, timeout_s=timeout_s, body_max=body_max)

    async def close(self) -> None:
        """Close connections."""
        await self._transport.close()

    def _is_ours(self, url: str) -> bool:
        try:
            origin = _origin(url)
        except ValueError:
            return False
        if origin == self._origin:
            return True
        scheme, host, port = origin
        return (
            scheme == "https"
            and port == 443
            and any(host == own or host.endswith(f".{own}") for own in self._hosts)
        )


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; a URL with a user name has none that could be trusted."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("the address carries a user name")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port
