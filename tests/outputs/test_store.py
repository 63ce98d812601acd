import asyncio
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from babysea_server.outputs.keys import InvalidKeyError
from babysea_server.outputs.store import (
    CHUNK_BYTES,
    ObjectMissingError,
    ObjectStore,
    StorageError,
    open_store,
)


async def read(store: ObjectStore, key: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in store.stream(key, start, end)])


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_object_comes_back_byte_for_byte(store: ObjectStore) -> None:
    data = os.urandom(CHUNK_BYTES * 3 + 7)
    await store.put("a/b/c.png", data, "image/png")
    assert await store.size("a/b/c.png") == len(data)
    assert await read(store, "a/b/c.png", 0, len(data)) == data
    assert all([0 < len(chunk) <= CHUNK_BYTES async for chunk in store.stream("a/b/c.png", 0, len(data))])


async def test_large_object_in_parts_comes_back_byte_for_byte(store: ObjectStore, tmp_path: Path) -> None:
    data = os.urandom(11 * 1024 * 1024)
    await store.put("a/large.mp4", data, "video/mp4")
    assert await read(store, "a/large.mp4", 0, len(data)) == data
    assert files_below(tmp_path) == ["files/a/large.mp4"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1000), st.integers(0, 1000))
async def test_stream_gives_exactly_the_range(store: ObjectStore, one: int, other: int) -> None:
    data = bytes(index % 251 for index in range(1000))
    await store.put("k", data, "application/octet-stream")
    start, end = sorted((one, other))
    assert await read(store, "k", start, end) == data[start:end]


async def test_put_replaces_whole(store: ObjectStore) -> None:
    await store.put("k", b"long before", "text/plain")
    await store.put("k", b"short", "text/plain")
    assert await store.size("k") == 5


async def test_missing_object_has_no_size_and_no_bytes(store: ObjectStore) -> None:
    assert await store.size("nothing/here") is None
    with pytest.raises(ObjectMissingError):
        await read(store, "nothing/here", 0, 1)


async def test_object_shorter_than_the_range_is_an_error(store: ObjectStore) -> None:
    await store.put("k", b"12345", "text/plain")
    with pytest.raises(StorageError):
        await read(store, "k", 0, 6)
    with pytest.raises(StorageError):
        await read(store, "k", 5, 6)
    with pytest.raises(ValueError, match="not a range"):
        await read(store, "k", 3, 2)


async def test_delete_is_idempotent_and_leaves_no_empty_directories(
    store: ObjectStore, tmp_path: Path
) -> None:
    keys = [f"a/{index}/x.png" for index in range(300)]
    for key in keys[::2]:
        await store.put(key, b"x", "image/png")
    await store.delete(keys)
    await store.delete(keys)
    await store.delete([])
    assert list((tmp_path / "files").iterdir()) == []
    await store.put("a/1/x.png", b"x", "image/png")
    assert await store.size("a/1/x.png") == 1


@pytest.mark.parametrize("key", ["../outside", "a/../../outside", "/etc/passwd", "a\0b", "a//b", ""])
async def test_no_call_takes_a_key_that_could_leave_the_root(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidKeyError):
        await store.put(key, b"x", "text/plain")
    with pytest.raises(InvalidKeyError):
        await store.size(key)
    with pytest.raises(InvalidKeyError):
        await read(store, key, 0, 1)
    await store.put("kept", b"x", "text/plain")
    with pytest.raises(InvalidKeyError):
        await store.delete(["kept", key])
    assert await store.size("kept") == 1


async def test_readers_see_the_old_object_or_the_new_and_never_a_part(store: ObjectStore) -> None:
    versions = [bytes([value]) * 700_000 for value in range(8)]
    await store.put("k", versions[0], "text/plain")

    async def write() -> None:
        for version in versions:
            await store.put("k", version, "text/plain")

    writing = asyncio.create_task(write())
    while not writing.done():
        seen = await read(store, "k", 0, 700_000)
        assert seen == seen[:1] * 700_000
    await writing


async def test_write_that_failed_half_way_is_not_an_object(store: ObjectStore, tmp_path: Path) -> None:
    # A directory where the object should go makes the last step, the rename, fail.
    (tmp_path / "files" / "a" / "k").mkdir(parents=True)
    (tmp_path / "files" / "a" / "k" / "child").touch()
    with pytest.raises(StorageError):
        await store.put("a/k", b"x" * 1000, "text/plain")
    assert await store.size("a/k") is None


KILLED_AFTER_PUT = """
import asyncio, os, pathlib, signal, sys
from babysea_server.outputs.store import open_store

async def main():
    await open_store(None, pathlib.Path(sys.argv[1])).put("a/k", b"x" * 7_000_000, "video/mp4")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_acknowledged_put_survives_a_kill(store: ObjectStore, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED_AFTER_PUT, str(tmp_path))
    assert await process.wait() == -signal.SIGKILL
    assert await read(store, "a/k", 0, 7_000_000) == b"x" * 7_000_000
    assert files_below(tmp_path) == ["files/a/k"]


async def test_probe_measures_a_round_trip_and_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    assert await store.probe() > 0
    assert files_below(tmp_path) == []


class Unwilling:
    """A backend that hangs or fails in every call."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def _answer(self, *_: object, **__: object) -> None:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()

    put_async = head_async = get_async = delete_async = __anext__ = _answer

    def list(self, *_: object, **__: object) -> "Unwilling":
        return self


@pytest.mark.parametrize("error", [None, OSError("disk"), PermissionError("no"), ValueError("odd")])
async def test_hanging_or_failing_backend_is_a_storage_error(error: Exception | None) -> None:
    backend: Any = Unwilling(error)
    store = ObjectStore(backend, name="x", deadline_s=0.001, probe_deadline_s=0.001)
    with pytest.raises(StorageError):
        await store.put("k", b"x", "text/plain")
    with pytest.raises(StorageError):
        await store.size("k")
    with pytest.raises(StorageError):
        await read(store, "k", 0, 1)
    with pytest.raises(StorageError):
        await store.delete(["k"])
    with pytest.raises(StorageError):
        await store.page("k", "", limit=1)
    with pytest.raises(StorageError):
        await store.probe()


async def test_default_store_is_a_private_directory(tmp_path: Path) -> None:
    store = open_store(None, tmp_path / "data", prefix="us")
    await store.put("k", b"x", "text/plain")
    assert (tmp_path / "data" / "files" / "us" / "k").read_bytes() == b"x"
    assert stat.S_IMODE((tmp_path / "data" / "files").stat().st_mode) == 0o700
    assert store.name == "local"


async def test_file_url_names_a_directory(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/with%20space", tmp_path, prefix="eu")
    await store.put("k", b"x", "text/plain")
    assert (tmp_path / "with space" / "eu" / "k").read_bytes() == b"x"


async def test_prefixes_keep_regions_apart(tmp_path: Path) -> None:
    us, eu = (open_store(None, tmp_path, prefix=region) for region in ("us", "eu"))
    await us.put("k", b"x", "text/plain")
    assert await eu.size("k") is None


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "ftp://host/x",
        "https://example.com/x",
        "memory:///",
        "s3://",
        "s3://key:secret@bucket/x",
        "s3://bucket/x?region=us",
        "file://host/x",
        "file:",
    ],
)
def test_url_that_names_no_store_is_refused_with_a_reason(url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="STORAGE_URL"):
        open_store(url, tmp_path)


def test_directory_that_is_a_file_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "files").touch()
    with pytest.raises(StorageError, match="cannot be used"):
        open_store(None, tmp_path)


async def test_keys_come_in_pages_and_in_order(store: ObjectStore) -> None:
    keys = sorted(f"outputs/2026/04/28/{n * 7919 % 97:02}-{n}/a.png" for n in range(45))
    for key in (*keys, "outputs/2026/04/29/x/a.png", "outputs/2026/04/28x/a.png"):
        await store.put(key, b"x", "image/png")
    found, after = [], ""
    while page := await store.page("outputs/2026/04/28", after, limit=4):
        assert len(page) <= 4
        found += page
        after = page[-1]
    assert found == keys
    assert await store.page("outputs/2027", "", limit=4) == []
    with pytest.raises(InvalidKeyError):
        await store.page("../outputs", "", limit=4)


def test_bucket_url_is_named_after_its_bucket(tmp_path: Path) -> None:
    assert open_store("s3://bucket/prefix", tmp_path).name == "bucket"
    assert open_store("gs://bucket", tmp_path, prefix="jp").name == "bucket"


async def test_an_acknowledged_put_is_on_the_disk_with_every_folder_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real_fsync = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        real_fsync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    store = open_store(None, tmp_path, prefix="us")
    root = tmp_path / "files" / "us"
    await store.put("a/b/one.png", b"1", "image/png")
    assert synced == [path.stat().st_ino for path in (root / "a/b/one.png", root / "a/b", root / "a", root)]
    synced.clear()
    await store.put("a/c/two.png", b"2", "image/png")
    assert synced == [path.stat().st_ino for path in (root / "a/c/two.png", root / "a/c", root / "a")]


async def test_many_acknowledged_puts_at_once_are_synced_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real_fsync = os.fsync

    def fsync(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        real_fsync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    store = open_store(None, tmp_path, prefix="us")
    await asyncio.gather(*(store.put(f"a/{number}/one.png", b"1", "image/png") for number in range(100)))
    root = tmp_path / "files" / "us"
    assert sum(1 for _ in root.rglob("one.png")) == 100
    if sys.platform == "linux":
        assert len(synced) < 100  # and not three for each file
