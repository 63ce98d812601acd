"""The files application, called as a server calls it, over a real directory."""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.outputs.samples import TurnedClock

from babysea_server.outputs.links import QUANTUM_S, LinkSigner
from babysea_server.outputs.routes import FilesApp, Message
from babysea_server.outputs.store import CHUNK_BYTES, ObjectStore, StorageError, open_store

KEY = "outputs/2026/04/28/0190a5b0/abcdef-0.png"
DATA = bytes(index % 251 for index in range(1000))


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def error(self) -> str:
        assert self.headers["content-type"] == "application/json"
        return str(json.loads(self.body)["error"])


class Reader:
    """A client: asks the application, collects what it sends, and may hang up in the middle."""

    def __init__(self, app: FilesApp) -> None:
        self.app = app

    async def ask(
        self,
        url: str,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        host: str = "us.test",
        hang_up_after: int | None = None,
    ) -> Answer:
        path, _, query = url.removeprefix("http://us.test").partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", host.encode())]
            + [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        answer, gone, requests = Answer(), asyncio.Event(), [{"type": "http.request", "body": b""}]

        async def receive() -> Message:
            if requests:
                return requests.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            assert not answer.complete
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
                assert len(answer.headers) == len(message["headers"])
            else:
                answer.pieces.append(message["body"])
                answer.complete = not message.get("more_body", False)
                if hang_up_after is not None and len(answer.pieces) >= hang_up_after:
                    gone.set()
            await asyncio.sleep(0)

        await self.app(scope, receive, send)
        return answer


@pytest.fixture
def reader(store: ObjectStore, signer: LinkSigner) -> Reader:
    hosts = {"us.test": "us", "eu.test": "eu", "jp.test": "jp"}
    stores = {"us": store, "eu": store}
    return Reader(FilesApp(stores.get, hosts.get, signer))


@pytest.fixture
async def url(store: ObjectStore, signer: LinkSigner) -> str:
    await store.put(KEY, DATA, "image/png")
    return signer.sign("http://us.test", "us", KEY)


async def test_get_200_whole_file(reader: Reader, url: str) -> None:
    answer = await reader.ask(url)
    assert (answer.status, answer.body, answer.complete) == (200, DATA, True)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == "1000"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == 'inline; filename="0190a5b0-0.png"'


async def test_get_200_headers_keep_the_file_harmless(reader: Reader, url: str) -> None:
    headers = (await reader.ask(url)).headers
    assert headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert headers["access-control-allow-origin"] == "*"


async def test_get_200_may_be_cached_until_the_link_expires(
    reader: Reader, url: str, clock: TurnedClock
) -> None:
    def max_age(answer: Answer) -> int:
        return int(answer.headers["cache-control"].removeprefix("private, max-age="))

    first = max_age(await reader.ask(url))
    assert 3600 <= first <= 3600 + QUANTUM_S
    clock.turn(100)
    assert max_age(await reader.ask(url)) == first - 100


async def test_head_200_headers_of_get_without_body(reader: Reader, url: str) -> None:
    whole = await reader.ask(url)
    answer = await reader.ask(url, "HEAD", {"Range": "bytes=0-1"})
    assert (answer.status, answer.body, answer.headers) == (200, b"", whole.headers)


async def test_large_file_comes_in_pieces(reader: Reader, store: ObjectStore, signer: LinkSigner) -> None:
    data = os.urandom(CHUNK_BYTES * 4 + 5)
    await store.put(KEY, data, "video/mp4")
    answer = await reader.ask(signer.sign("http://us.test", "us", KEY))
    assert answer.body == data
    assert max(len(piece) for piece in answer.pieces) <= CHUNK_BYTES


@pytest.mark.parametrize(
    ("range", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=990-", 990, 1000),
        ("bytes=-5", 995, 1000),
        ("bytes=-5000", 0, 1000),
        ("bytes=500-5000", 500, 1000),
    ],
)
async def test_get_206_part(reader: Reader, url: str, range: str, start: int, end: int) -> None:
    answer = await reader.ask(url, headers={"Range": range})
    assert (answer.status, answer.body) == (206, DATA[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/1000"
    assert answer.headers["content-length"] == str(end - start)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 999), length=st.integers(1, 1000))
async def test_get_206_any_part_is_byte_exact(reader: Reader, url: str, start: int, length: int) -> None:
    answer = await reader.ask(url, headers={"Range": f"bytes={start}-{start + length - 1}"})
    assert (answer.status, answer.body) == (206, DATA[start : start + length])


@pytest.mark.parametrize("range", ["bytes=0-1,5-6", "items=0-1", "bytes=5-4", "bytes=x"])
async def test_get_200_range_that_is_not_served(reader: Reader, url: str, range: str) -> None:
    answer = await reader.ask(url, headers={"Range": range})
    assert (answer.status, answer.body) == (200, DATA)
    assert "content-range" not in answer.headers


@pytest.mark.parametrize("range", ["bytes=1000-", "bytes=2000-3000", "bytes=-0"])
async def test_get_416_range_outside(reader: Reader, url: str, range: str) -> None:
    answer = await reader.ask(url, headers={"Range": range})
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */1000"
    assert "1000 bytes" in answer.error


async def test_if_range_decides_between_part_and_whole(reader: Reader, url: str) -> None:
    etag = (await reader.ask(url)).headers["etag"]
    for condition, status in [
        (etag, 206),
        ('"other"', 200),
        (f"W/{etag}", 200),
        ("Tue, 28 Apr 2026 12:00:00 GMT", 200),
    ]:
        answer = await reader.ask(url, headers={"Range": "bytes=0-9", "If-Range": condition})
        assert answer.status == status


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_if_none_match_304(reader: Reader, url: str, method: str) -> None:
    etag = (await reader.ask(url)).headers["etag"]
    assert not etag.startswith("W/")
    for known in (etag, f'"x", W/{etag}', "*"):
        answer = await reader.ask(url, method, {"If-None-Match": known, "Range": "bytes=0-1"})
        assert (answer.status, answer.body, answer.complete) == (304, b"", True)
        assert answer.headers["etag"] == etag
        assert "cache-control" in answer.headers
    assert (await reader.ask(url, method, {"If-None-Match": '"x"'})).status == 200


async def test_signed_link_to_nothing_404(reader: Reader, signer: LinkSigner) -> None:
    answer = await reader.ask(signer.sign("http://us.test", "us", KEY), headers={"If-None-Match": "*"})
    assert answer.status == 404
    assert answer.error == "no such file"
    assert answer.headers["cache-control"] == "no-store"


async def test_expired_link_403_says_so(reader: Reader, url: str, clock: TurnedClock) -> None:
    clock.turn(3600 + QUANTUM_S)
    answer = await reader.ask(url)
    assert (answer.status, answer.error) == (403, "the link has expired")


TAMPERED: dict[str, Callable[[str], str]] = {
    "no parameters": lambda url: url.partition("?")[0],
    "empty query": lambda url: url.partition("?")[0] + "?",
    "no signature": lambda url: url.partition("&")[0],
    "other signature": lambda url: url[:-2] + ("AA" if url[-2:] != "AA" else "BB"),
    "later expiry": lambda url: url.replace("expires=1", "expires=2"),
    "expiry twice": lambda url: url + "&expires=1",
    "one more parameter": lambda url: url + "&download=1",
    "parameter instead of signature": lambda url: url.replace("signature", "sig"),
    "encoded parameter": lambda url: url.replace("expires=", "expires=%31"),
    "endless query": lambda url: url + "A" * 10_000,
    "other key": lambda url: url.replace("-0.png", "-1.png"),
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED.keys())
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_tampered_link_403(reader: Reader, url: str, change: Callable[[str], str], method: str) -> None:
    answer = await reader.ask(change(url), method)
    assert answer.status == 403
    assert answer.body == b"" if method == "HEAD" else answer.error


async def test_parameters_in_the_other_order_are_as_good(reader: Reader, url: str) -> None:
    path, _, query = url.partition("?")
    assert (await reader.ask(f"{path}?{'&'.join(reversed(query.split('&')))}")).status == 200


async def test_link_of_one_region_403_at_another(reader: Reader, url: str) -> None:
    assert (await reader.ask(url, host="eu.test")).status == 403


async def test_unknown_host_404_and_region_without_store_404(reader: Reader, url: str) -> None:
    assert (await reader.ask(url, host="evil.test")).status == 404
    assert (await reader.ask(url, host="jp.test")).status == 404
    assert (await reader.ask(url, headers={"Host": "us.test"})).status == 404  # sent twice


@pytest.mark.parametrize(
    "path",
    [
        "/files/",
        "/files",
        "/",
        "/other/" + KEY,
        "/files/../secret",
        "/files/outputs/../../secret",
        "/files/outputs/..%2f..%2fsecret",
        "/files/%2e%2e/secret",
        "/files/outputs%2f2026",
        "/files/secret%00.png",
        "/files//etc/passwd",
        "/files/outputs/",
        "/files/outputs\\..\\secret",
        "/files/.secret",
    ],
)
async def test_path_that_is_no_key_404(reader: Reader, url: str, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    answer = await reader.ask(f"{path}?{url.partition('?')[2]}")
    assert answer.status == 404
    assert b"secret" not in answer.body


async def test_directory_404_even_with_a_valid_signature(
    reader: Reader, url: str, signer: LinkSigner
) -> None:
    assert (await reader.ask(signer.sign("http://us.test", "us", "outputs/2026"))).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
async def test_other_method_405(reader: Reader, url: str, store: ObjectStore, method: str) -> None:
    answer = await reader.ask(url, method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert await store.size(KEY) == len(DATA)


async def test_sending_stops_when_the_reader_hangs_up(
    reader: Reader, store: ObjectStore, signer: LinkSigner
) -> None:
    await store.put(KEY, bytes(CHUNK_BYTES * 20), "video/mp4")
    answer = await reader.ask(signer.sign("http://us.test", "us", KEY), hang_up_after=2)
    assert not answer.complete
    assert len(answer.pieces) < 6


class Failing:
    """A backend that answers the head, then fails at the get or in the middle of the stream."""

    def __init__(self, gone: bool, pieces: int) -> None:
        self.gone = gone
        self.pieces = pieces

    async def head_async(self, _key: str) -> dict[str, int]:
        return {"size": 100}

    async def get_async(self, _key: str, **_: object) -> "Failing":
        if self.gone:
            raise FileNotFoundError
        return self

    def stream(self, **_: object) -> "Failing":
        return self

    async def __anext__(self) -> bytes:
        if self.pieces == 0:
            raise OSError("connection reset")
        self.pieces -= 1
        return bytes(10)


def failing_reader(signer: LinkSigner, gone: bool = False, pieces: int = 0) -> Reader:
    backend: Any = Failing(gone, pieces)
    store = ObjectStore(backend, name="x")
    return Reader(FilesApp(lambda _: store, lambda _: "us", signer))


async def test_file_deleted_in_between_404(signer: LinkSigner) -> None:
    url = signer.sign("http://us.test", "us", KEY)
    assert (await failing_reader(signer, gone=True).ask(url)).status == 404


async def test_store_that_fails_502(signer: LinkSigner) -> None:
    url = signer.sign("http://us.test", "us", KEY)
    answer = await failing_reader(signer).ask(url)
    assert answer.status == 502
    assert "reset" not in answer.error


async def test_answer_is_never_completed_when_the_store_fails_in_the_middle(signer: LinkSigner) -> None:
    url = signer.sign("http://us.test", "us", KEY)
    with pytest.raises(StorageError):
        await failing_reader(signer, pieces=3).ask(url)


async def test_other_protocols_are_an_error_of_the_composition(reader: Reader) -> None:
    async def nothing(*_: Any) -> Any:
        return None

    with pytest.raises(RuntimeError, match="websocket"):
        await reader.app({"type": "websocket"}, nothing, nothing)


async def test_regions_with_separate_prefixes_do_not_see_each_other(
    tmp_path: Path, signer: LinkSigner
) -> None:
    stores = {region: open_store(None, tmp_path, prefix=region) for region in ("us", "eu")}
    await stores["us"].put(KEY, DATA, "image/png")
    reader = Reader(FilesApp(stores.get, lambda host: host.partition(".")[0], signer))
    assert (await reader.ask(signer.sign("http://us.test", "us", KEY))).status == 200
    foreign = signer.sign("http://us.test", "eu", KEY)
    assert (await reader.ask(foreign, host="eu.test")).status == 404
