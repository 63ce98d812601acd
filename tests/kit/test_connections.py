"""Connections go to public addresses and to explicit exceptions, whatever a URL or a name server says."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from tests.certificates import self_signed
from tests.resolving import ScriptedResolver
from yarl import URL

from babysea_server.kit.connections import (
    Allowance,
    ForbiddenAddressError,
    PublicConnector,
    parse_url,
    public_connector,
    refusal_of,
)
from babysea_server.kit.urls import check_public_url

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001:82a::200e"]
PRIVATE = [
    "127.0.0.1",
    "127.255.0.9",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.178.1",
    "100.64.0.1",
    "::1",
    "fd12::1",
]
CLOSED = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.170.2",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "100.100.100.200",
    "fd00:ec2::254",
    "::",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "fe80::1",
    "fe80::1%1",
    "::1%lo",
    "fec0::1",
    "ff02::1",
    "100::1",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.1 ",
    "",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_connected_to(address: str) -> None:
    assert refusal_of(address) is None
    assert refusal_of(address, private=True) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_may_be_connected_to_only_where_that_is_allowed(address: str) -> None:
    assert refusal_of(address) == "the address is not public"
    assert refusal_of(address, private=True) is None


@pytest.mark.parametrize("address", CLOSED)
def test_any_other_address_may_never_be_connected_to(address: str) -> None:
    assert refusal_of(address) is not None
    assert refusal_of(address, private=True) is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "http://example.com",
        "HTTPS://EXAMPLE.COM:8443/A",
        "http://127.0.0.1:8188/view?filename=a%20b.png",
        "http://[::1]:80/",
        "https://bücher.example/ä",
        "https://bucket.example/key?X-Sig=a%2Fb%2B%3D&Expires=1",
    ],
)
def test_a_plain_http_url_is_parsed(url: str) -> None:
    assert parse_url(url).scheme in ("http", "https")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/path",
        "//example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "data:text/plain,x",
        "gopher://127.0.0.1:6379/_INFO",
        "ws://example.com/",
        "tcp://example.com/",
        "http:example.com",
        "http:/example.com",
        "http://",
        "https:///path",
        "http://:80/",
        "http://[::1/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:80a/",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://@example.com/",
        "http://example.com@127.0.0.1/",
        "http://exam ple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nHost: other",
        "http://example.com/\0",
        "http://example.com\\@127.0.0.1/",
        "http://example.com/\x85",
        "http://example.com/\udcff",
        "http://example.com/" + "a" * 20_000,
    ],
)
def test_any_other_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as caught:
        parse_url(url)
    assert "example" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_escapes_of_a_url_stay_as_they_are_written() -> None:
    assert parse_url("https://a.test/x%2Fy/%7e?s=%2f+%2B&e=").raw_path_qs == "/x%2Fy/%7e?s=%2f+%2B&e="


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("/b", "https://a.test:8443/b"),
        ("c?d=%2F", "https://a.test:8443/x/c?d=%2F"),
        ("//b.test/c", "https://b.test/c"),
        ("http://b.test/c", "http://b.test/c"),
    ],
)
def test_a_reference_is_relative_to_its_base(reference: str, target: str) -> None:
    assert str(parse_url(reference, base=URL("https://a.test:8443/x/y"))) == target


@pytest.mark.parametrize(
    "reference", ["file:///etc/passwd", "//user@b.test/", "javascript:x", "//:80/", "http:////", "\r\n"]
)
def test_a_reference_to_anything_else_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match="URL"):
        parse_url(reference, base=URL("https://a.test:8443/x/y"))


@pytest.mark.parametrize(
    ("url", "allowance"),
    [
        ("http://GPU.internal.:8188/x", Allowance("gpu.internal", 8188)),
        ("https://127.0.0.1", Allowance("127.0.0.1", 443)),
        ("HTTP://[::1]/", Allowance("::1", 80)),
    ],
)
def test_an_allowance_is_for_a_host_and_a_port(url: str, allowance: Allowance) -> None:
    assert Allowance.of(url) == allowance


class Listener:
    """A socket on loopback that would notice being connected to."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET6)
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(("::", 0))
        self.socket.listen()
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    @property
    def connected(self) -> bool:
        try:
            self.socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def listener() -> Iterator[Listener]:
    one = Listener()
    yield one
    one.socket.close()


async def _get(connector: PublicConnector, url: str) -> str:
    # A deadline, because the listener never answers whom it should not have met.
    timeout = aiohttp.ClientTimeout(total=5)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.get(url) as response,
    ):
        return await response.text()


async def test_the_listener_notices_a_connection(listener: Listener) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    assert listener.connected
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0.0.0.0",
        "0",
        "１２７.0.0.1",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::1%25lo]",
        "localhost",
        "LOCALHOST.",
    ],
)
async def test_no_spelling_of_this_machine_gets_a_socket(listener: Listener, host: str) -> None:
    with pytest.raises(
        (ForbiddenAddressError, aiohttp.InvalidURL, aiohttp.ClientConnectorDNSError, ValueError)
    ):
        await _get(public_connector(limit=2), f"http://{host}:{listener.port}/")
    assert not listener.connected


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["127.0.0.1", "::1"],
        ["10.0.0.1", "fe80::1", "127.0.0.1"],
        ["localhost"],
        ["::1%1"],
        ["127.0.0.1", "localhost"],
        ["127.0.0.1"] * 50,
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_name_that_resolves_inwards_gets_a_socket(
    listener: Listener, addresses: list[str], scheme: str
) -> None:
    resolver = ScriptedResolver({"images.example.com": [addresses]})
    with pytest.raises(ForbiddenAddressError) as caught:
        await _get(
            public_connector(limit=2, resolver=resolver),
            f"{scheme}://images.example.com:{listener.port}/?k=s",
        )
    assert resolver.asked == ["images.example.com"]
    assert isinstance(caught.value, OSError)
    assert "example.com" not in str(caught.value)
    assert all(address not in str(caught.value) for address in addresses)
    assert not listener.connected


async def test_a_name_that_changes_its_mind_between_check_and_connection_gets_no_socket(
    listener: Listener,
) -> None:
    url = f"http://rebinding.example.com:{listener.port}/"
    resolver = ScriptedResolver({"rebinding.example.com": [["93.184.215.14"], ["127.0.0.1"]]})
    check_public_url(url)
    [first] = await resolver.resolve("rebinding.example.com", listener.port)
    assert refusal_of(first["host"]) is None
    with pytest.raises(ForbiddenAddressError):
        await _get(public_connector(limit=2, resolver=resolver), url)
    assert not listener.connected


async def test_an_exception_is_for_its_host_and_port_alone(listener: Listener) -> None:
    allowed = [Allowance("gpu.internal", 8188), Allowance("127.0.0.1", 1), Allowance("::1", listener.port)]
    resolver = ScriptedResolver({"gpu.internal": [["127.0.0.1"]], "other.internal": [["127.0.0.1"]]})
    for host in ("gpu.internal", "other.internal", "127.0.0.1"):
        with pytest.raises(ForbiddenAddressError, match="not public"):
            await _get(
                public_connector(limit=2, allowed=allowed, resolver=resolver),
                f"http://{host}:{listener.port}/",
            )
    assert not listener.connected


async def test_an_exception_opens_no_metadata_service() -> None:
    resolver = ScriptedResolver({"gpu.internal": [["169.254.169.254"]]})
    with pytest.raises(ForbiddenAddressError, match="private network"):
        await _get(
            public_connector(limit=2, allowed=[Allowance("gpu.internal", 80)], resolver=resolver),
            "http://gpu.internal/",
        )


async def test_a_proxy_is_not_used(listener: Listener) -> None:
    connector = public_connector(limit=2, private_networks=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(ForbiddenAddressError, match="proxies"):
            await session.get("http://example.com/", proxy=f"http://127.0.0.1:{listener.port}/")
    assert not listener.connected


@pytest.mark.parametrize("url", ["ws://127.0.0.1/", "tcp://127.0.0.1/", "ftp://127.0.0.1/"])
async def test_only_http_is_spoken(url: str) -> None:
    with pytest.raises(aiohttp.NonHttpUrlClientError):
        await _get(public_connector(limit=2, private_networks=True), url)


@pytest.fixture
async def greeter() -> AsyncIterator[int]:
    """The port of a server on loopback that answers with the request's Host."""

    async def greet(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Host"])

    runner = await _serve(greet, None)
    yield runner.addresses[0][1]
    await runner.cleanup()


async def _serve(handle: Any, context: ssl.SSLContext | None) -> web.AppRunner:
    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    return runner


async def test_an_allowed_address_is_connected_to(greeter: int) -> None:
    url = f"http://127.0.0.1:{greeter}/"
    assert await _get(public_connector(limit=2, allowed=[Allowance.of(url)]), url) == f"127.0.0.1:{greeter}"


async def test_an_allowed_name_is_connected_to_under_its_own_name(greeter: int) -> None:
    url = f"http://GPU.internal:{greeter}/"
    connector = public_connector(
        limit=2,
        allowed=[Allowance("gpu.internal", greeter)],
        resolver=ScriptedResolver({"gpu.internal": [["127.0.0.1"]]}),
    )
    assert await _get(connector, url) == f"gpu.internal:{greeter}"


async def test_where_private_networks_are_allowed_what_is_closed_is_passed_over(greeter: int) -> None:
    connector = public_connector(
        limit=2,
        private_networks=True,
        resolver=ScriptedResolver({"many.test": [["169.254.169.254", "::ffff:127.0.0.1", "127.0.0.1"]]}),
    )
    assert await _get(connector, f"http://many.test:{greeter}/") == f"many.test:{greeter}"


async def test_a_connection_that_fails_otherwise_is_no_forbidden_one() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await _get(public_connector(limit=2, private_networks=True), f"http://127.0.0.1:{port}/")
    assert not isinstance(caught.value, ForbiddenAddressError)


async def test_tls_asks_for_and_checks_the_name_of_the_url(tmp_path: Path) -> None:
    server, client = self_signed(tmp_path, "media.test")
    asked: list[str | None] = []

    def note(_socket: object, name: str | None, _context: object) -> None:
        asked.append(name)

    server.sni_callback = note

    async def greet(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Host"])

    runner = await _serve(greet, server)
    port = runner.addresses[0][1]
    resolver = ScriptedResolver({"media.test": [["127.0.0.1"]], "other.test": [["127.0.0.1"]]})

    def connector() -> PublicConnector:
        return public_connector(limit=2, private_networks=True, resolver=resolver, tls=client)

    assert await _get(connector(), f"https://media.test:{port}/") == f"media.test:{port}"
    assert asked == ["media.test"]
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await _get(connector(), f"https://other.test:{port}/")
    await runner.cleanup()
