"""Fetching files: redirects are followed a little, never inwards, and nobody else gets the headers."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from tests.resolving import ScriptedResolver

from babysea_server.kit.connections import Allowance
from babysea_server.providers.base import (
    Answer,
    AnswerLostError,
    AnswerTooLargeError,
    NeverSentError,
    Request,
)
from babysea_server.providers.files import FileTransport

SECRET = "sk-live-do-not-tell"
LIMIT = 1000


@dataclass
class Host:
    """A host of files on loopback. `Location` of its redirects is the query's `to`."""

    port: int = 0
    requests: list[web.Request] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{path}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        kind, _, rest = request.path.removeprefix("/").partition("/")
        match kind:
            case "redirect":
                headers = {"Location": request.query["to"]} if "to" in request.query else {}
                return web.Response(status=int(rest), headers=headers, body=b"x" * (LIMIT + 1))
            case "chain":
                left = int(rest)
                to = f"/chain/{left - 1}" if left else "/file"
                return web.Response(status=302, headers={"Location": to})
            case "compressed":
                return web.Response(body=gzip.compress(b"svg"), headers={"Content-Encoding": "gzip"})
            case "large":
                return web.Response(body=b"x" * (LIMIT + 1))
            case "endless":
                stream = web.StreamResponse()
                await stream.prepare(request)
                while True:
                    await stream.write(b"x" * 500)
            case "claims":
                stream = web.StreamResponse(headers={"Content-Length": str(LIMIT + 1)})
                await stream.prepare(request)
                await asyncio.Event().wait()
            case "slow":
                await asyncio.Event().wait()
            case "missing":
                return web.Response(status=404, text="no such file")
        return web.Response(body=b"bytes of a file", content_type="image/png")


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    one = Host()
    app = web.Application()
    app.router.add_get("/{path:.*}", one.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.port = runner.addresses[0][1]
    yield one
    await runner.cleanup()


@pytest.fixture
async def files(host: Host) -> AsyncIterator[FileTransport]:
    one = FileTransport(
        allowed=[Allowance("127.0.0.1", host.port), Allowance("cdn.test", host.port)],
        resolver=ScriptedResolver({"cdn.test": [["127.0.0.1"]], "inside.test": [["127.0.0.1"]]}),
    )
    yield one
    await one.close()


async def _fetch(files: FileTransport, url: str, *, timeout_s: float = 10.0) -> Answer:
    request = Request("GET", url, {"X-Goog-Api-Key": SECRET})
    return await files.send(request, timeout_s=timeout_s, body_max=LIMIT)


async def test_a_file_is_fetched_as_it_is(files: FileTransport, host: Host) -> None:
    answer = await _fetch(files, host.url("file?sig=a%2Fb%2B"))
    assert (answer.status, answer.body) == (200, b"bytes of a file")
    assert answer.headers["content-type"] == "image/png"
    [request] = host.requests
    assert request.raw_path == "/file?sig=a%2Fb%2B"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["x-goog-api-key"] == SECRET


async def test_a_file_that_is_compressed_all_the_same_is_decompressed(
    files: FileTransport, host: Host
) -> None:
    assert (await _fetch(files, host.url("compressed"))).body == b"svg"


async def test_other_statuses_are_answers(files: FileTransport, host: Host) -> None:
    answer = await _fetch(files, host.url("missing"))
    assert (answer.status, answer.body) == (404, b"no such file")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(files: FileTransport, host: Host, status: int) -> None:
    answer = await _fetch(files, host.url(f"redirect/{status}?to=/file"))
    assert (answer.status, answer.body) == (200, b"bytes of a file")
    assert host.requests[1].headers["x-goog-api-key"] == SECRET


async def test_another_host_does_not_get_the_headers(files: FileTransport, host: Host) -> None:
    back = host.url("file")
    there = host.url(f"redirect/302?to={back}", "cdn.test")
    answer = await _fetch(files, host.url(f"redirect/302?to={there}"))
    assert answer.status == 200
    assert [request.host for request in host.requests] == [
        f"127.0.0.1:{host.port}",
        f"cdn.test:{host.port}",
        f"127.0.0.1:{host.port}",
    ]
    assert ["x-goog-api-key" in request.headers for request in host.requests] == [True, False, False]
    assert all(request.headers["accept-encoding"] == "identity" for request in host.requests)


async def test_three_redirects_are_followed_and_a_fourth_is_the_answer(
    files: FileTransport, host: Host
) -> None:
    assert (await _fetch(files, host.url("chain/2"))).status == 200
    host.requests.clear()
    answer = await _fetch(files, host.url("chain/3"))
    assert (answer.status, answer.body) == (302, b"")
    assert host.paths == ["/chain/3", "/chain/2", "/chain/1", "/chain/0"]


async def test_a_redirect_to_nowhere_and_other_3xx_are_answers(files: FileTransport, host: Host) -> None:
    assert (await _fetch(files, host.url("redirect/302"))).status == 302
    answer = await files.send(
        Request("GET", host.url("redirect/300?to=/file")), timeout_s=10, body_max=LIMIT + 1
    )
    assert answer.status == 300
    assert host.paths == ["/redirect/302", "/redirect/300"]


@pytest.mark.parametrize(
    "target",
    [
        "http://inside.test:{port}/file",
        "http://localhost:{port}/file",
        "http://[::ffff:127.0.0.1]:{port}/file",
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/",
        "http://user:secret@127.0.0.1:{port}/file",
        "file:///etc/passwd",
        "data:text/plain,x",
        "ftp://127.0.0.1:{port}/file",
        "http:////",
        "http://nowhere.test/",
    ],
)
async def test_a_redirect_inwards_is_not_followed(files: FileTransport, host: Host, target: str) -> None:
    to = target.format(port=host.port)
    with pytest.raises(AnswerLostError, match="after a redirect") as caught:
        await _fetch(files, host.url(f"redirect/302?to={to}"))
    assert "secret" not in str(caught.value)
    assert host.paths == ["/redirect/302"]


@pytest.mark.parametrize(
    "url", ["http://inside.test:{port}/file", "http://localhost:{port}/", "ftp://127.0.0.1/", "data:,x", "x"]
)
async def test_an_address_that_is_not_allowed_was_never_sent(
    files: FileTransport, host: Host, url: str
) -> None:
    with pytest.raises(NeverSentError):
        await _fetch(files, url.format(port=host.port))
    assert host.requests == []


async def test_only_get_is_sent(files: FileTransport, host: Host) -> None:
    with pytest.raises(NeverSentError):
        await files.send(Request("POST", host.url("file"), {}, b"{}"), timeout_s=10, body_max=LIMIT)
    assert host.requests == []


@pytest.mark.parametrize("path", ["large", "claims", "endless"])
async def test_a_file_that_is_too_large_is_given_up(files: FileTransport, host: Host, path: str) -> None:
    with pytest.raises(AnswerTooLargeError, match="larger than 1000 bytes"):
        await _fetch(files, host.url(path))


async def test_the_deadline_holds_for_all_redirects_together(files: FileTransport, host: Host) -> None:
    with pytest.raises(AnswerLostError):
        await _fetch(files, host.url("redirect/302?to=/slow"), timeout_s=0.5)
    assert host.paths == ["/redirect/302", "/slow"]
