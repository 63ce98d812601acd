"""One webhook over HTTP: what is sent, what may be connected to, and what an answer means."""

import asyncio
import ssl

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.http import HttpProcessingError
from yarl import URL

from babysea_server.kit.clock import Clock
from babysea_server.kit.connections import ForbiddenAddressError, parse_url, public_connector
from babysea_server.webhooks.schedule import retry_after
from babysea_server.webhooks.types import Answer, SendFailure

#: What counts as a success: 2xx within so many seconds.
TIMEOUT_S = 10.0
_CONNECT_S = 5.0
#: For the body, which decides nothing any more.
_BODY_S = 2.0
_READ_MAX = 16 * 1024
_KEPT_MAX = 2 * 1024
_HTTPS_PORT = 443
_FAULTS = (aiohttp.ClientError, HttpProcessingError, OSError, ValueError)


class Sender:
    """Sends webhooks over one pool of connections that cannot be turned inwards.

    Redirects are failures and never followed, cookies are not kept, proxies of the environment are not used, and
    nothing is sent twice.

    Args:
        connections: at once at most.
        allow_private: development: http, any port, and hosts on this machine or private networks.
        timeout_s: until there must be an answer; `body_s` is for the rest of it.
        resolver: instead of the system's.
        tls: instead of the usual checks against the system's authorities.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        connections: int = 1024,
        allow_private: bool = False,
        timeout_s: float = TIMEOUT_S,
        body_s: float = _BODY_S,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._clock = clock
        self._connections = connections
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._body_s = body_s
        self._resolver = resolver
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def send(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """POST the body once; whatever goes wrong is an answer, too."""
        started = self._clock.monotonic()
        try:
            target = self._target(url)
        except ValueError:
            return Answer(SendFailure.FORBIDDEN_URL, 0)
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._open().post(target, data=body, headers=headers, allow_redirects=False)
        except _FAULTS as error:
            return Answer(_failure_of(error), self._since(started))
        try:
            text = await self._read(response)
        finally:
            response.close()  # a connection whose answer was read to its end is back in the pool already
        return Answer(
            _failure_of_status(response.status),
            self._since(started),
            response.status,
            text,
            retry_after(response.headers.get("Retry-After"), self._clock.now()),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _target(self, url: str) -> URL:
        target = parse_url(url)
        if not self._allow_private and (target.scheme != "https" or target.port != _HTTPS_PORT):
            raise ValueError("webhooks go to https and port 443")
        return target

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=public_connector(
                    limit=self._connections,
                    private_networks=self._allow_private,
                    resolver=self._resolver,
                    tls=self._tls,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "BabySea-Webhooks", "Accept": "*/*", "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_S),
                auto_decompress=False,  # nothing grows while it is read
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse) -> str:
        """The beginning of the answer's body. How it ends decides nothing: the status is known."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_s):
                while len(body) < _READ_MAX and (chunk := await response.content.read(_READ_MAX - len(body))):
                    body += chunk
        except _FAULTS:
            pass
        return bytes(body[:_KEPT_MAX]).decode("utf-8", "replace").replace("\0", "\ufffd")

    def _since(self, started: float) -> int:
        return max(0, round((self._clock.monotonic() - started) * 1000))


def _failure_of_status(status: int) -> SendFailure | None:
    match status // 100:
        case 2:
            return None
        case 3:
            return SendFailure.REDIRECT
        case 4:
            return SendFailure.HTTP_4XX
        case 5:
            return SendFailure.HTTP_5XX
        case _:
            return SendFailure.PROTOCOL


def _failure_of(error: Exception) -> SendFailure:
    match error:
        case ForbiddenAddressError():
            return SendFailure.FORBIDDEN_ADDRESS
        case aiohttp.ClientConnectorDNSError():
            return SendFailure.DNS
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return SendFailure.TLS
        case TimeoutError():
            return SendFailure.TIMEOUT
        case aiohttp.ClientConnectorError():
            return SendFailure.CONNECT
        case aiohttp.ClientConnectionError() | OSError():
            return SendFailure.DISCONNECTED
        case _:
            return SendFailure.PROTOCOL
