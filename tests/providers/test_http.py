"""The HTTP transport against a real server: what was never sent, what was lost, and what never leaks."""

import asyncio
import gzip
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from tests.certificates import self_signed
from tests.resolving import ScriptedResolver
from tests.support import eventually

from babysea_server.kit.connections import Allowance
from babysea_server.providers.base import (
    Answer,
    AnswerLostError,
    AnswerTooLargeError,
    NeverSentError,
    Request,
)
from babysea_server.providers.http import HttpTransport, Timeouts

SECRET = "sk-live-do-not-tell"
HEADERS = {"authorization": f"Bearer {SECRET}"}
LIMIT = 1000


@dataclass
class Upstream:
    """A server on loopback that knows how to misbehave."""

    port: int = 0
    requests: list[web.Request] = field(default_factory=list)
    peers: set[tuple[str, int]] = field(default_factory=set)

    def url(self, path: str, scheme: str = "http", host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.port}/{path}?key={SECRET}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        transport = request.transport
        assert transport is not None
        self.peers.add(transport.get_extra_info("peername"))
        match request.path:
            case "/echo":
                return web.Response(status=201, body=await request.read(), headers={"X-Kept": "yes"})
            case "/redirect":
                return web.Response(status=302, headers={"Location": "/echo"})
            case "/cookie":
                answer = web.Response(text=request.headers.get("cookie", "none"))
                answer.set_cookie("session", "1")
                return answer
            case "/drop":
                await request.read()
                transport.abort()
                return web.Response()
            case "/large":
                return web.Response(body=b"x" * (LIMIT + 1))
            case "/just":
                return web.Response(body=b"x" * LIMIT)
            case "/truncated":
                stream = web.StreamResponse(headers={"Content-Length": "500"})
                await stream.prepare(request)
                await stream.write(b"x" * 100)
                transport.abort()
                return stream
            case "/gzip":
                body = gzip.compress(b"x" * int(request.query["size"]))
                return web.Response(body=body, headers={"Content-Encoding": "gzip"})
            case "/broken-gzip":
                return web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"})
            case _:  # /slow
                await asyncio.Event().wait()
                return web.Response()


async def _serve(upstream: Upstream, context: ssl.SSLContext | None = None) -> web.AppRunner:
    app = web.Application()
    app.router.add_route("*", "/{path}", upstream.handle)
    serving = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await serving.setup()
    site = web.TCPSite(serving, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    upstream.port = serving.addresses[0][1]
    return serving


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    serving = await _serve(server)
    yield server
    await serving.cleanup()


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    one = HttpTransport(connections=4, private_networks=True)
    yield one
    await one.close()


async def _send(
    transport: HttpTransport,
    url: str,
    method: str = "POST",
    timeout_s: float = 5.0,
    body: bytes | None = b"{}",
) -> Answer:
    assert method in ("GET", "POST")
    request = Request("GET" if method == "GET" else "POST", url, HEADERS, body)
    return await transport.send(request, timeout_s=timeout_s, body_max=LIMIT)


def _tells_nothing(error: BaseException) -> None:
    """Neither the text nor what a traceback would print holds a secret."""
    assert SECRET not in str(error)
    assert SECRET not in repr(error)
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


async def test_an_answer_comes_whole_with_lower_case_headers(
    transport: HttpTransport, upstream: Upstream
) -> None:
    answer = await _send(transport, upstream.url("echo"), body=b"hello")
    assert (answer.status, answer.body, answer.headers["x-kept"]) == (201, b"hello", "yes")
    assert upstream.requests[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_redirects_are_answers_and_not_followed(transport: HttpTransport, upstream: Upstream) -> None:
    answer = await _send(transport, upstream.url("redirect"))
    assert (answer.status, answer.headers["location"]) == (302, "/echo")
    assert len(upstream.requests) == 1


async def test_cookies_are_not_kept(transport: HttpTransport, upstream: Upstream) -> None:
    bodies = [(await _send(transport, upstream.url("cookie"), "GET", body=None)).body for _ in range(2)]
    assert bodies == [b"none", b"none"]


async def test_connections_are_reused_and_bounded(transport: HttpTransport, upstream: Upstream) -> None:
    for _ in range(5):
        await _send(transport, upstream.url("echo"))
    assert len(upstream.peers) == 1
    await asyncio.gather(*(_send(transport, upstream.url("echo")) for _ in range(40)))
    assert len(upstream.peers) <= 4


async def test_a_refused_connection_was_never_sent(transport: HttpTransport) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/?key={SECRET}"
        with pytest.raises(NeverSentError) as caught:
            await _send(transport, url)
    _tells_nothing(caught.value)


async def test_a_name_without_an_address_was_never_sent(transport: HttpTransport) -> None:
    with pytest.raises(NeverSentError) as caught:
        await _send(transport, f"http://nowhere.invalid/?key={SECRET}")
    _tells_nothing(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://[::1/?key={SECRET}",
        f"ftp://127.0.0.1/{SECRET}",
        f"/{SECRET}",
        f"http://{'a' * 70}.test/",
        f"http://user:{SECRET}@127.0.0.1/",
        f"http://127.0.0.1/{SECRET}\r\nX: y",
    ],
)
async def test_an_address_that_is_none_was_never_sent(transport: HttpTransport, url: str) -> None:
    with pytest.raises(NeverSentError) as caught:
        await _send(transport, url)
    _tells_nothing(caught.value)


async def test_a_header_that_cannot_be_written_was_never_sent(
    transport: HttpTransport, upstream: Upstream
) -> None:
    request = Request("POST", upstream.url("echo"), {"authorization": f"Bearer {SECRET}\n"}, b"{}")
    with pytest.raises(NeverSentError) as caught:
        await transport.send(request, timeout_s=5, body_max=LIMIT)
    _tells_nothing(caught.value)
    assert upstream.requests == []


async def test_a_connection_that_is_never_taken_was_never_sent(transport: HttpTransport) -> None:
    """A full backlog: the network's handshake gets no answer."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        port = busy.getsockname()[1]
        waiting = [socket.socket() for _ in range(8)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        with pytest.raises(NeverSentError) as caught:
            await _send(transport, f"http://127.0.0.1:{port}/?key={SECRET}", timeout_s=0.4)
        for client in waiting:
            client.close()
    _tells_nothing(caught.value)


async def test_no_free_connection_in_time_was_never_sent(upstream: Upstream) -> None:
    transport = HttpTransport(connections=1, private_networks=True)
    first = asyncio.create_task(_send(transport, upstream.url("slow"), timeout_s=30))

    async def taken() -> bool:
        return bool(upstream.requests)

    await eventually(taken)
    with pytest.raises(NeverSentError):
        await _send(transport, upstream.url("echo"), timeout_s=0.4)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await transport.close()
    assert [request.path for request in upstream.requests] == ["/slow"]


async def _lost(send: Callable[[], Awaitable[Answer]]) -> None:
    with pytest.raises(AnswerLostError) as caught:
        await send()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("path", ["drop", "large", "truncated", "slow"])
async def test_whatever_goes_wrong_after_sending_is_an_answer_lost_and_not_sent_again(
    transport: HttpTransport, upstream: Upstream, path: str
) -> None:
    await _send(transport, upstream.url("echo"))  # so that the connection is a used one
    await _lost(lambda: _send(transport, upstream.url(path), timeout_s=0.5))
    assert [request.path for request in upstream.requests] == ["/echo", f"/{path}"]
    assert (await _send(transport, upstream.url("just"))).body == b"x" * LIMIT


async def test_a_certificate_nobody_knows_was_never_sent(transport: HttpTransport, tmp_path: Path) -> None:
    upstream = Upstream()
    serving = await _serve(upstream, self_signed(tmp_path)[0])
    with pytest.raises(NeverSentError) as caught:
        await _send(transport, upstream.url("echo", "https"))
    _tells_nothing(caught.value)
    assert upstream.requests == []
    await serving.cleanup()


async def test_a_server_that_speaks_no_tls_was_never_sent(
    transport: HttpTransport, upstream: Upstream
) -> None:
    with pytest.raises(NeverSentError):
        await _send(transport, upstream.url("echo", "https"))
    assert upstream.requests == []


async def test_a_closed_transport_opens_again_when_it_is_used(
    transport: HttpTransport, upstream: Upstream
) -> None:
    await _send(transport, upstream.url("echo"))
    await transport.close()
    await transport.close()
    assert (await _send(transport, upstream.url("echo"))).status == 201


async def test_an_answer_is_decompressed(transport: HttpTransport, upstream: Upstream) -> None:
    answer = await _send(transport, upstream.url("gzip") + f"&size={LIMIT}")
    assert answer.body == b"x" * LIMIT


@pytest.mark.parametrize("size", [LIMIT + 1, 50_000_000])
async def test_what_grows_too_large_by_decompression_is_an_answer_lost(
    transport: HttpTransport, upstream: Upstream, size: int
) -> None:
    with pytest.raises(AnswerTooLargeError):
        await _send(transport, upstream.url("gzip") + f"&size={size}")


async def test_what_cannot_be_decompressed_is_an_answer_lost(
    transport: HttpTransport, upstream: Upstream
) -> None:
    await _lost(lambda: _send(transport, upstream.url("broken-gzip")))


async def test_without_an_allowance_a_private_address_gets_no_connection(upstream: Upstream) -> None:
    resolver = ScriptedResolver({"api.example.com": [["127.0.0.1"]]})
    transport = HttpTransport(resolver=resolver, allowed=[Allowance("gpu.internal", upstream.port)])
    for host in ("127.0.0.1", "api.example.com"):
        with pytest.raises(NeverSentError, match="the address is not public") as caught:
            await _send(transport, upstream.url("echo", host=host))
        _tells_nothing(caught.value)
    assert upstream.requests == []
    await transport.close()


async def test_with_an_allowance_a_private_address_is_called(upstream: Upstream) -> None:
    transport = HttpTransport(allowed=[Allowance.of(upstream.url(""))])
    assert (await _send(transport, upstream.url("echo"))).status == 201
    await transport.close()


async def test_proxies_of_the_environment_are_not_used(
    transport: HttpTransport, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await _send(transport, upstream.url("echo"))).status == 201


async def test_a_body_of_many_pieces_arrives_whole(transport: HttpTransport, upstream: Upstream) -> None:
    body = bytes(range(256)) * 5
    assert (await _send(transport, upstream.url("echo"), body=body[:LIMIT])).body == body[:LIMIT]
    large = bytes(range(256)) * 3000
    await _lost(lambda: _send(transport, upstream.url("echo"), body=large))  # its echo is too large
    assert await upstream.requests[-1].read() == large
    assert upstream.requests[-1].headers["content-length"] == str(len(large))
    assert (await _send(transport, upstream.url("echo"), body=b"")).body == b""
    assert (await _send(transport, upstream.url("echo"), body=None)).body == b""


# --------------------------------------------------------------------------------- what goes over the line


@dataclass
class Wire:
    """A server that speaks as it is told, byte by byte; it counts what reaches it."""

    speak: Callable[["Wire", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    port: int = 0
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    open: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/?key={SECRET}"

    async def head(self, reader: asyncio.StreamReader, *, body: int = 2) -> None:
        """Read a request whole."""
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if self.heads[-1].startswith("POST"):
            await reader.readexactly(body)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.append(writer)
        try:
            await self.speak(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def _wire(
    speak: Callable[[Wire, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Wire]:
    wire = Wire(speak)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        wire.release.set()
        for writer in wire.open:
            writer.transport.abort()
        server.close()
        await server.wait_closed()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def _answers_once_then_reads_and_closes(
    wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await wire.head(reader)
    if wire.connections > 1:
        return
    writer.write(OK)
    await wire.head(reader)


async def test_a_post_is_never_sent_twice_when_a_kept_connection_closes(transport: HttpTransport) -> None:
    async with _wire(_answers_once_then_reads_and_closes) as wire:
        assert (await _send(transport, wire.url)).status == 200
        with pytest.raises(AnswerLostError):
            await _send(transport, wire.url)
        assert (wire.connections, len(wire.heads)) == (1, 2)


async def _answers_and_closes(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await wire.head(reader)
    writer.write(OK)
    await writer.drain()


async def test_posts_arrive_once_each_where_every_connection_is_closed_behind_them(
    transport: HttpTransport,
) -> None:
    """Whether the closing is noticed before the next request or not: nothing is sent again."""
    async with _wire(_answers_and_closes) as wire:
        outcomes = [
            await asyncio.gather(_send(transport, wire.url), return_exceptions=True) for _ in range(20)
        ]
        answered = sum(isinstance(outcome, Answer) for [outcome] in outcomes)
        assert all(isinstance(outcome, Answer | AnswerLostError) for [outcome] in outcomes)
        assert answered <= len(wire.heads) <= 20


async def _idle_for_ever(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await wire.head(reader)
        writer.write(OK)


async def test_a_connection_is_not_used_after_its_idle_time() -> None:
    transport = HttpTransport(private_networks=True, timeouts=Timeouts(idle_s=0))
    async with _wire(_idle_for_ever) as wire:
        for _ in range(3):
            await _send(transport, wire.url)
        await transport.close()
        assert wire.connections == 3


async def _never_reads(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await wire.release.wait()


async def test_a_request_that_is_not_taken_in_time_is_an_answer_lost() -> None:
    transport = HttpTransport(private_networks=True, timeouts=Timeouts(send_s=0.2))
    async with _wire(_never_reads) as wire:
        with pytest.raises(AnswerLostError, match="TimeoutError while sending"):
            await _send(transport, wire.url, body=bytes(16_000_000), timeout_s=60)
        await transport.close()


async def test_a_head_that_does_not_come_in_time_is_an_answer_lost() -> None:
    transport = HttpTransport(private_networks=True, timeouts=Timeouts(first_byte_s=0.2))
    async with _wire(_never_reads) as wire:
        for method, body in (("POST", b"{}"), ("GET", None)):
            with pytest.raises(AnswerLostError, match="TimeoutError while waiting"):
                await _send(transport, wire.url, method, body=body, timeout_s=60)
        await transport.close()


async def _sends_half(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await wire.head(reader)
    writer.write(OK[:-1])
    await wire.release.wait()


async def test_a_body_that_does_not_come_in_time_is_an_answer_lost(transport: HttpTransport) -> None:
    async with _wire(_sends_half) as wire:
        with pytest.raises(AnswerLostError, match="TimeoutError while reading"):
            await _send(transport, wire.url, timeout_s=0.3)


async def _answers_before_reading(
    wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    wire.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
    writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
    await wire.release.wait()


async def test_an_answer_before_the_end_of_the_request_is_an_answer(transport: HttpTransport) -> None:
    async with _wire(_answers_before_reading) as wire:
        for connections in (1, 2):
            answer = await _send(transport, wire.url, body=bytes(16_000_000), timeout_s=60)
            assert (answer.status, answer.body) == (413, b"{}")
            assert wire.connections == connections  # half a request is in the one before


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 30\r\n\r\n"
        + gzip.compress(b"x" * 100, mtime=0)[:12],
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 8\r\n\r\n"
        + zlib.compress(b"x" * 100)[:8],
    ],
)
async def test_an_answer_that_is_none_is_an_answer_lost(transport: HttpTransport, said: bytes) -> None:
    async def speak(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await wire.head(reader)
        writer.write(said)
        await writer.drain()

    async with _wire(speak) as wire:
        await _lost(lambda: _send(transport, wire.url))
        assert len(wire.heads) == 1


async def test_a_secure_server_is_called_by_its_name(tmp_path: Path) -> None:
    server, client = self_signed(tmp_path, "api.test")
    upstream = Upstream()
    serving = await _serve(upstream, server)
    transport = HttpTransport(
        allowed=[Allowance("api.test", upstream.port)],
        resolver=ScriptedResolver({"api.test": [["127.0.0.1"]]}),
        tls=client,
    )
    assert (await _send(transport, upstream.url("echo", "https", "api.test"))).status == 201
    assert upstream.requests[0].host == f"api.test:{upstream.port}"
    await transport.close()
    await serving.cleanup()
