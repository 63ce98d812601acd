"""The HTTP transport against a real server: what was never sent, what was lost, and what never leaks."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support import eventually

from babysea_server.providers.base import Answer, AnswerLostError, NeverSentError, Request
from babysea_server.providers.http import HttpTransport

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
    one = HttpTransport(connections=4)
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
    [f"http://[::1/?key={SECRET}", f"ftp://127.0.0.1/{SECRET}", f"/{SECRET}", f"http://{'a' * 70}.test/"],
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
    transport = HttpTransport(connections=1)
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
    serving = await _serve(upstream, _self_signed(tmp_path))
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


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
