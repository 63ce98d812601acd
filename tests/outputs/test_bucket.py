"""The store over the S3 protocol, against a bucket of a few lines that speaks as much of it as is used."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from xml.sax.saxutils import unescape

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from babysea_server.outputs.store import CHUNK_BYTES, ObjectMissingError, ObjectStore, open_store


class Bucket:
    """Path-style S3: whole and multipart puts, heads, ranged gets, bulk deletes, listings of a few keys at a time."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.content_types: dict[str, str] = {}
        self.parts: dict[int, bytes] = {}
        self.listings = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info.get("key", "")
        if request.method == "POST":
            return await self._post(key, request)
        if request.method == "PUT":
            if "partNumber" in request.query:
                self.parts[int(request.query["partNumber"])] = await request.read()
            else:
                self._keep(key, await request.read(), request)
            return web.Response(headers={"ETag": '"e"'})
        if request.query.get("list-type") == "2":
            return self._list(request)
        if request.method not in ("GET", "HEAD") or key not in self.objects:
            return web.Response(status=404)
        return self._get(key, request)

    def _keep(self, key: str, data: bytes, request: web.Request) -> None:
        self.objects[key] = data
        self.content_types.setdefault(key, request.headers.get("Content-Type", ""))

    async def _post(self, key: str, request: web.Request) -> web.StreamResponse:
        body = (await request.read()).decode()
        if "delete" in request.query:
            keys = [unescape(found) for found in re.findall(r"<Key>(.*?)</Key>", body)]
            for found in keys:
                self.objects.pop(found, None)
            deleted = "".join(f"<Deleted><Key>{found}</Key></Deleted>" for found in keys)
            return web.Response(text=f"<DeleteResult>{deleted}</DeleteResult>", content_type="text/xml")
        if "uploads" in request.query:
            self.content_types[key] = request.headers.get("Content-Type", "")
            name = "InitiateMultipartUploadResult"
            return web.Response(text=f"<{name}><UploadId>1</UploadId></{name}>", content_type="text/xml")
        self._keep(key, b"".join(self.parts[number] for number in sorted(self.parts)), request)
        name = "CompleteMultipartUploadResult"
        return web.Response(text=f"<{name}><ETag>e</ETag></{name}>", content_type="text/xml")

    def _list(self, request: web.Request) -> web.Response:
        self.listings += 1
        query = request.query
        after = query.get("continuation-token") or query.get("start-after", "")
        keys = sorted(key for key in self.objects if key.startswith(query["prefix"]) and key > after)
        items = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2026-04-28T12:00:00.000Z</LastModified><ETag>e</ETag>"
            f"<Size>{len(self.objects[key])}</Size></Contents>"
            for key in keys[:3]
        )
        more = f"<NextContinuationToken>{keys[2]}</NextContinuationToken>" if len(keys) > 3 else ""
        truncated = str(bool(more)).lower()
        body = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{items}{more}</ListBucketResult>"
        return web.Response(text=body, content_type="text/xml")

    def _get(self, key: str, request: web.Request) -> web.StreamResponse:
        data, status = self.objects[key], 200
        headers = {"ETag": '"e"', "Last-Modified": "Tue, 28 Apr 2026 12:00:00 GMT"}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", "")):
            start, end = int(asked[1]), min(int(asked[2]) + 1, len(data))
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            data, status = data[start:end], 206
        return web.Response(status=status, body=data, headers=headers)


@pytest.fixture
async def bucket(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bucket]:
    bucket = Bucket()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/files/{key:.*}", bucket.handle)
    app.router.add_route("*", "/files", bucket.handle)
    async with TestServer(app) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", str(server.make_url("")).rstrip("/"))
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield bucket


@pytest.fixture
def remote(bucket: Bucket, tmp_path: Path) -> ObjectStore:
    return open_store("s3://files/base", tmp_path, prefix="us")


async def test_bucket_takes_type_and_prefix_and_gives_the_bytes_back(
    bucket: Bucket, remote: ObjectStore
) -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 128)
    await remote.put("a/b.png", data, "image/png")
    assert bucket.content_types == {"base/us/a/b.png": "image/png"}
    assert await remote.size("a/b.png") == len(data)
    pieces = [piece async for piece in remote.stream("a/b.png", 5, len(data) - 5)]
    assert b"".join(pieces) == data[5:-5]
    assert max(len(piece) for piece in pieces) <= CHUNK_BYTES


async def test_bucket_takes_a_large_file_in_parts(bucket: Bucket, remote: ObjectStore) -> None:
    data = bytes(range(256)) * 4096 * 11
    await remote.put("a/large.mp4", data, "video/mp4")
    assert bucket.objects == {"base/us/a/large.mp4": data}
    assert bucket.content_types == {"base/us/a/large.mp4": "video/mp4"}
    assert len(bucket.parts) > 1


async def test_bucket_without_the_object(bucket: Bucket, remote: ObjectStore) -> None:
    assert await remote.size("nothing") is None
    with pytest.raises(ObjectMissingError):
        await anext(remote.stream("nothing", 0, 1))


async def test_bucket_delete_and_probe_leave_nothing(bucket: Bucket, remote: ObjectStore) -> None:
    await remote.put("a/b.png", b"x", "image/png")
    await remote.delete(["a/b.png", "a/missing.png"])
    assert bucket.objects == {}
    assert await remote.probe() > 0
    assert bucket.objects == {}


async def test_bucket_is_listed_in_pages_and_no_further_than_asked(
    bucket: Bucket, remote: ObjectStore
) -> None:
    keys = [f"outputs/2026/04/28/{n:02}/a.png" for n in range(20)]
    for key in reversed(keys):
        await remote.put(key, b"x", "image/png")
    await remote.put("outputs/2026/04/280/a.png", b"x", "image/png")
    first = await remote.page("outputs/2026/04/28", "", limit=5)
    assert first == keys[:5]
    assert bucket.listings <= 3
    assert await remote.page("outputs/2026/04/28", first[-1], limit=5) == keys[5:10]
    assert await remote.page("outputs/2026/04/28", keys[17], limit=5) == keys[18:]
    assert await remote.page("outputs/2026/04/29", "", limit=5) == []
