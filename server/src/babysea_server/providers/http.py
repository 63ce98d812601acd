"""The transport of real providers: aiohttp, one connection pool per provider."""

from types import SimpleNamespace

import aiohttp

from babysea_server.providers.base import Answer, AnswerLostError, NeverSentError, Request

_CONNECT_TIMEOUT_S = 10.0
_CHUNK = 64 * 1024
_LINE_ENDS = frozenset("\r\n\0")


class HttpTransport:
    """Sends requests over HTTP(S). Redirects are not followed; cookies are not kept.

    Whatever goes wrong before the first byte of the request is written is a `NeverSentError`: no free
    connection of the pool, no address, no connection, no TLS. Everything later is an `AnswerLostError`.

    Args:
        connections: connections at once at most.
    """

    def __init__(self, *, connections: int = 100) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        """See `Transport.send`."""
        if any(_LINE_ENDS.intersection(text) for header in request.headers.items() for text in header):
            raise NeverSentError("a header cannot be written")
        # The wait for a connection gets only a part, so that a full pool is found out before the time is over.
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(_CONNECT_TIMEOUT_S, timeout_s / 2))
        progress = SimpleNamespace(sent=False)
        try:
            async with self._open().request(
                request.method,
                request.url,
                headers=request.headers,
                data=request.body,
                timeout=timeout,
                allow_redirects=False,
                trace_request_ctx=progress,
            ) as response:
                return await _read(response, body_max)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            # The cause is cut off: its text holds the address or a header, and either may hold a secret.
            if progress.sent:
                raise AnswerLostError(f"no answer: {type(error).__name__}") from None
            raise NeverSentError(f"cannot connect: {type(error).__name__}") from None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_note_sent)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=60),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
                trace_configs=[trace],
            )
        return self._session


async def _read(response: aiohttp.ClientResponse, body_max: int) -> Answer:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > body_max:
            raise AnswerLostError(f"the answer is larger than {body_max} bytes")
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status, headers, bytes(body))


async def _note_sent(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _parameters: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    context.trace_request_ctx.sent = True
