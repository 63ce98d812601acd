"""The store over the S3 protocol, against a server that speaks as much of it as is used and checks signatures."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.emulators import s3
from tests.emulators.s3 import Bucket, environment, serving

from babysea_server.outputs.store import (
    CHUNK_BYTES,
    ObjectMissingError,
    ObjectStore,
    StorageError,
    open_store,
)


@pytest.fixture
async def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Bucket]:
    bucket = Bucket(tmp_path / "s3", page_keys=3)
    async with serving(bucket) as address:
        for name, value in environment(address).items():
            monkeypatch.setenv(name, value)
        yield bucket


@pytest.fixture
def remote(bucket: Bucket, tmp_path: Path) -> ObjectStore:
    return open_store("s3://files/base", tmp_path, prefix="us")


async def test_bucket_takes_type_and_prefix_and_gives_the_bytes_back(
    bucket: Bucket, remote: ObjectStore
) -> None:
    data = bytes(range(256)) * (CHUNK_BYTES // 128)
    await remote.put("a/b.png", data, "image/png")
    assert bucket.keys() == ["base/us/a/b.png"]
    assert bucket.read("base/us/a/b.png").content_type == "image/png"
    assert await remote.size("a/b.png") == len(data)
    pieces = [piece async for piece in remote.stream("a/b.png", 5, len(data) - 5)]
    assert b"".join(pieces) == data[5:-5]
    assert max(len(piece) for piece in pieces) <= CHUNK_BYTES


async def test_bucket_takes_a_large_file_in_parts(bucket: Bucket, remote: ObjectStore) -> None:
    data = bytes(range(256)) * 4096 * 11
    await remote.put("a/large.mp4", data, "video/mp4")
    stored = bucket.read("base/us/a/large.mp4")
    assert stored.data == data
    assert stored.content_type == "video/mp4"
    assert stored.etag.endswith('-3"')


async def test_bucket_without_the_object(bucket: Bucket, remote: ObjectStore) -> None:
    assert await remote.size("nothing") is None
    with pytest.raises(ObjectMissingError):
        await anext(remote.stream("nothing", 0, 1))


async def test_bucket_delete_and_probe_leave_nothing(bucket: Bucket, remote: ObjectStore) -> None:
    await remote.put("a/b.png", b"x", "image/png")
    await remote.delete(["a/b.png", "a/missing.png"])
    assert bucket.keys() == []
    assert await remote.probe() > 0
    assert bucket.keys() == []


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


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_REGION"])
async def test_bucket_lets_nobody_in_who_signs_wrong(
    bucket: Bucket, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, "another")
    with pytest.raises(StorageError):
        await open_store("s3://files/base", tmp_path, prefix="us").put("a/b.png", b"x", "image/png")
    assert bucket.keys() == []


async def test_bucket_that_is_full_refuses(
    bucket: Bucket, remote: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise s3.S3Error(507, "InsufficientStorage")

    monkeypatch.setattr(bucket, "write", full)
    with pytest.raises(StorageError):
        await remote.put("a/b.png", b"x", "image/png")
