"""The transport of real providers: aiohttp, one pool of safe connections per provider."""

import asyncio
import ssl
from collections.abc import Collection, Mapping
from enum import IntEnum
from types import SimpleNamespace

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, AbstractStreamWriter
from aiohttp.http import HttpProcessingError
from yarl import URL

from babysea_server.kit.connections import Allowance, ForbiddenAddressError, parse_url, public_connector
from babysea_server.providers.base import (
    Answer,
    AnswerLostError,
    AnswerTooLargeError,
    NeverSentError,
    Request,
)

_CHUNK = 64 * 1024
_LINE_ENDS = frozenset("\r\n\0")


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds for the phases of a call, each beside the call's own deadline, which holds for all together.

    `connect_s` covers the wait for a free connection, the look-up of the name, and TLS; it never gets more than
    half of the call's time, so that a full pool is found out before the time is over. `send_s` is for the request
    and `first_byte_s` for the head of the answer after it; None lets it take as long as the call, which providers
    need that answer with the result. `idle_s` is how long an unused connection is kept.
    """

    connect_s: float = 10.0
    send_s: float = 60.0
    first_byte_s: float | None = None
    idle_s: float = 4.0


class Line:
    """Exchanges one request for one answer over one pool of connections.

    What all transports share: redirects are not followed, cookies not kept, proxies of the environment not used,
    and nothing is sent again unless its method is idempotent.
    """

    def __init__(
        self,
        *,
        connections: int,
        timeouts: Timeouts,
        allowed: Collection[Allowance],
        private_networks: bool,
        resolver: AbstractResolver | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._connections = connections
        self._timeouts = timeouts
        self._allowed = allowed
        self._private_networks = private_networks
        self._resolver = resolver
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def exchange(
        self,
        request: Request,
        url: URL,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        body_max: int,
        unread: Collection[int] = (),
    ) -> Answer:
        """Send and read the whole answer.

        Args:
            request: gives method and body.
            unread: statuses whose body is not wanted; it comes empty.

        Raises:
            NeverSentError, AnswerLostError: their texts hold no URL, header or body.
            AnswerTooLargeError: the body has more than `body_max` bytes, decompressed.
        """
        if any(_LINE_ENDS.intersection(text) for header in headers.items() for text in header):
            raise NeverSentError("a header cannot be written")
        call = _Call(self._timeouts, timeout_s, bodiless=request.body is None)
        try:
            async with call.alarm:
                response = await self._open().request(
                    request.method,
                    url,
                    headers=headers,
                    data=None if request.body is None else _Body(request.body, call),
                    allow_redirects=False,
                    trace_request_ctx=call,
                )
                try:
                    call.enter(_Phase.READING)
                    return await _read(response, body_max, wanted=response.status not in unread)
                finally:
                    # A connection whose answer was read to its end is back in the pool; any other is of no use.
                    response.close()
        except (TimeoutError, aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            # The cause is cut off: its text holds the address or a header, and either may hold a secret.
            raise call.failure(error) from None
        finally:
            call.enter(_Phase.OVER)

    async def close(self) -> None:
        """Close all connections; the next exchange opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_note_sent)
            self._session = aiohttp.ClientSession(
                connector=public_connector(
                    limit=self._connections,
                    allowed=self._allowed,
                    private_networks=self._private_networks,
                    resolver=self._resolver,
                    tls=self._tls,
                    idle_s=self._timeouts.idle_s,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "BabySea"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # each call has its own alarm
                trace_configs=[trace],
            )
        return self._session


class HttpTransport:
    """Sends requests of one provider over HTTP(S). Redirects are answers like any other.

    Whatever goes wrong before the first byte of the request is written is a `NeverSentError`: no free connection
    of the pool, no address, a forbidden address, no connection, no TLS. Everything later is an `AnswerLostError`.

    Args:
        connections: connections at once at most.
        timeouts: for the phases of each call.
        allowed: hosts that may be on private networks, e.g. `Allowance.of(base_url)` of one's own server.
        private_networks: every host may be; for development only.
        resolver: instead of the system's.
        tls: instead of the usual checks against the system's authorities.
    """

    def __init__(
        self,
        *,
        connections: int = 100,
        timeouts: Timeouts | None = None,
        allowed: Collection[Allowance] = (),
        private_networks: bool = False,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._line = Line(
            connections=connections,
            timeouts=timeouts or Timeouts(),
            allowed=allowed,
            private_networks=private_networks,
            resolver=resolver,
            tls=tls,
        )

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        """See `Transport.send`."""
        try:
            url = parse_url(request.url)
        except ValueError as error:
            raise NeverSentError(str(error)) from None
        return await self._line.exchange(
            request, url, request.headers, timeout_s=timeout_s, body_max=body_max
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._line.close()


class _Phase(IntEnum):
    CONNECTING = 0
    SENDING = 1  # from here on the provider may have heard of it
    WAITING = 2
    READING = 3
    OVER = 4


class _Call:
    """How far one exchange came, and its one alarm, which is set anew as it passes from phase to phase."""

    def __init__(self, timeouts: Timeouts, timeout_s: float, *, bodiless: bool) -> None:
        self._timeouts = timeouts
        self._clock = asyncio.get_running_loop().time
        self._bodiless = bodiless
        now = self._clock()
        self._ends_at = now + timeout_s
        self._phase = _Phase.CONNECTING
        self.alarm = asyncio.timeout_at(now + min(timeouts.connect_s, timeout_s / 2))

    def sent_head(self) -> None:
        """The head of the request is about to be written; without a body it is the whole."""
        self.enter(_Phase.SENDING)
        if self._bodiless:
            self.enter(_Phase.WAITING)

    def enter(self, phase: _Phase) -> None:
        """Pass to a later phase. An answer may come before all is sent, so phases may be left out."""
        if phase <= self._phase:
            return
        self._phase = phase
        if phase is _Phase.OVER or self.alarm.expired():
            return
        seconds: float | None = None
        if phase is _Phase.SENDING:
            seconds = self._timeouts.send_s
        elif phase is _Phase.WAITING:
            seconds = self._timeouts.first_byte_s
        within = self._ends_at if seconds is None else min(self._ends_at, self._clock() + seconds)
        self.alarm.reschedule(within)

    def failure(self, error: Exception) -> NeverSentError | AnswerLostError:
        """What an error means where it happened."""
        if self._phase is _Phase.CONNECTING:
            reason = error.reason if isinstance(error, ForbiddenAddressError) else type(error).__name__
            return NeverSentError(f"cannot connect: {reason}")
        return AnswerLostError(f"no answer: {type(error).__name__} while {self._phase.name.lower()}")


class _Body(aiohttp.Payload):
    """A request's body, written piece by piece, that tells when it has left."""

    def __init__(self, data: bytes, call: _Call) -> None:
        super().__init__(data, content_type="application/octet-stream")
        self._data = data
        self._size = len(data)
        self._call = call

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text."""
        return self._data.decode(encoding, errors)

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """The body."""
        return self._data

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write at most `content_length` bytes of it."""
        view = memoryview(self._data)[:content_length]
        for at in range(0, len(view), _CHUNK):
            await writer.write(view[at : at + _CHUNK])
        await writer.drain()
        self._call.enter(_Phase.WAITING)


async def _read(response: aiohttp.ClientResponse, body_max: int, *, wanted: bool) -> Answer:
    body = bytearray()
    if wanted:
        length = response.content_length
        if length is not None and length > body_max and "content-encoding" not in response.headers:
            raise AnswerTooLargeError(f"the answer is larger than {body_max} bytes")
        # Decompressed piece by piece, so that a body that grows beyond all bounds is left where it passes them.
        async for chunk in response.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > body_max:
                raise AnswerTooLargeError(f"the answer is larger than {body_max} bytes")
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status, headers, bytes(body))


async def _note_sent(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _parameters: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    context.trace_request_ctx.sent_head()
