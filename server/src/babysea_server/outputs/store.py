"""Where files are kept: a local directory or a bucket, behind the same few calls with deadlines."""

import asyncio
import heapq
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from babysea_server.kit import ids
from babysea_server.outputs.disk import DiskSync
from babysea_server.outputs.keys import check_key

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Backend

#: Bytes per piece of a streamed object.
CHUNK_BYTES = 256 * 1024

_BUCKET_SCHEMES = frozenset({"s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"})
_DELETE_BATCH = 256
_LIST_BATCH = 1000
_PROBE_CLEANUP_S = 1.0
# Beyond the fixed deadline, a put gets time for its bytes at this rate; 1 GiB takes about two minutes.
_SLOWEST_UPLOAD_BYTES_PER_S = 8 * 1024 * 1024


class StorageError(Exception):
    """The store failed, refused, or did not answer in time; the message is for the operator."""


class ObjectMissingError(StorageError):
    """The store holds no object under the key."""


class ObjectStore:
    """Objects by key, in one directory or bucket prefix.

    A put is atomic and durable: readers see nothing or the whole object, and once `put` returned, the object
    outlives a kill of this process and a power cut (locally it is renamed into place and synced to the disk;
    buckets answer only when they hold it). The customer is charged for it right after.

    Args:
        backend: an obstore store.
        name: what health answers show as the bucket.
        directory: where a local backend keeps its files.
        deadline_s: seconds until a call is given up.
        probe_deadline_s: the same for a whole probe.
    """

    def __init__(
        self,
        backend: "Backend",
        *,
        name: str,
        directory: Path | None = None,
        deadline_s: float = 30.0,
        probe_deadline_s: float = 3.0,
    ) -> None:
        self.name = name
        self._backend = backend
        self._disk = None if directory is None else DiskSync(directory)
        self._deadline_s = deadline_s
        self._probe_deadline_s = probe_deadline_s
        # Local file systems keep no content type; it is read off the key when the file is served.
        self._keeps_attributes = not isinstance(backend, LocalStore)
        self._lists_in_order = not isinstance(backend, LocalStore)

    async def put(self, key: str, data: bytes, content_type: str) -> None:
        """Store one object, replacing what is there.

        Raises:
            InvalidKeyError: not a key.
            StorageError: it is unknown whether the object is stored; putting it again is safe.
        """
        check_key(key)
        deadline_s = self._deadline_s + len(data) / _SLOWEST_UPLOAD_BYTES_PER_S
        async with _guarded("put", deadline_s):
            if self._keeps_attributes:
                await self._backend.put_async(key, data, attributes={"Content-Type": content_type})
            else:
                await self._backend.put_async(key, data)
            if self._disk is not None:
                await self._disk.sync(key)

    async def size(self, key: str) -> int | None:
        """The object's length in bytes, or None when there is none.

        Raises:
            InvalidKeyError: not a key.
            StorageError: the store failed.
        """
        check_key(key)
        try:
            async with _guarded("head", self._deadline_s):
                return int((await self._backend.head_async(key))["size"])
        except ObjectMissingError:
            return None

    async def stream(self, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to and without `end`, in pieces of at most 256 KiB.

        The deadline holds for each piece, not for the whole, because the reader may be slow.

        Raises:
            InvalidKeyError: not a key.
            ObjectMissingError: no such object.
            StorageError: the store failed, or the object is shorter than `end`.
        """
        check_key(key)
        if not 0 <= start <= end:
            raise ValueError(f"not a range: {start} to {end}")
        if start == end:
            return
        async with _guarded("get", self._deadline_s):
            result = await self._backend.get_async(key, options={"range": (start, end)})
        chunks = result.stream(min_chunk_size=CHUNK_BYTES)
        missing = end - start
        while True:
            async with _guarded("get", self._deadline_s):
                try:
                    buffer = await anext(chunks)
                except StopAsyncIteration:
                    break
            view = memoryview(buffer)
            missing -= len(view)
            for offset in range(0, len(view), CHUNK_BYTES):
                yield bytes(view[offset : offset + CHUNK_BYTES])
        if missing:
            raise StorageError(f"get: the object ended {missing} bytes early")

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is not there counts as deleted.

        Raises:
            InvalidKeyError: one of them is not a key; nothing is deleted.
            StorageError: some may be left; deleting again is safe.
        """
        paths = [check_key(key) for key in keys]
        for begin in range(0, len(paths), _DELETE_BATCH):
            batch = paths[begin : begin + _DELETE_BATCH]
            try:
                async with _guarded("delete", self._deadline_s):
                    await self._backend.delete_async(batch)
            except ObjectMissingError:
                # Some stores stop at the first that is missing, so the rest of the batch goes one by one.
                await self._delete_each(batch)

    async def _delete_each(self, paths: Sequence[str]) -> None:
        for path in paths:
            with suppress(ObjectMissingError):
                async with _guarded("delete", self._deadline_s):
                    await self._backend.delete_async(path)

    async def page(self, prefix: str, after: str, *, limit: int) -> list[str]:
        """The next keys below a prefix, in order.

        Args:
            prefix: whole segments, e.g. `outputs/2026/04/28`.
            after: the last key of the page before, or empty.
            limit: keys at most; fewer mean that there are no more.

        Raises:
            InvalidKeyError: the prefix is not a key.
            StorageError: the store failed.
        """
        check_key(prefix)
        with _translated("list"):
            batches = self._backend.list(prefix, offset=after or None, chunk_size=min(limit, _LIST_BATCH))
        smallest: list[str] = []
        try:
            while True:
                async with _guarded("list", self._deadline_s):
                    batch = await anext(batches)
                smallest += [meta["path"] for meta in batch]
                if self._lists_in_order and len(smallest) >= limit:
                    break
                if (
                    len(smallest) >= 10 * limit
                ):  # a directory comes as it likes, so all of it is looked through
                    smallest = heapq.nsmallest(limit, smallest)
        except StopAsyncIteration:
            pass
        return heapq.nsmallest(limit, smallest)

    async def probe(self) -> float:
        """Write, read back and delete one small object; the round trip in milliseconds.

        Raises:
            StorageError: a step failed, read back something else, or all took longer than the deadline.
        """
        key, written = f"probe-{ids.token(18)}", ids.token(48).encode()
        began = time.perf_counter()
        try:
            async with _guarded("probe", self._probe_deadline_s):
                await self.put(key, written, "application/octet-stream")
                async with aclosing(self.stream(key, 0, len(written))) as chunks:
                    read = b"".join([chunk async for chunk in chunks])
                await self.delete([key])
        except BaseException:
            with suppress(StorageError):
                async with _guarded("probe", _PROBE_CLEANUP_S):
                    await self.delete([key])
            raise
        if read != written:
            raise StorageError("probe: the store returned other bytes than were written")
        return (time.perf_counter() - began) * 1000


def open_store(url: str | None, data_dir: Path, *, prefix: str = "") -> ObjectStore:
    """The store that a `STORAGE_URL` names.

    Args:
        url: None or empty for `<data_dir>/files`, else `file:///path`, `s3://bucket/prefix`,
            `gs://bucket/prefix` or `az://container/prefix`. Credentials and endpoints come from the
            provider's usual environment variables.
        data_dir: the server's own directory.
        prefix: a key that goes before all others, such as the region.

    Raises:
        StorageError: the URL names no store that files could be kept in, or the directory cannot be made.
    """
    if prefix:
        check_key(prefix)
    directory = local_directory(url, data_dir)
    if directory is not None:
        return _open_directory(directory, prefix)
    assert url is not None
    parts = urlsplit(url)
    if parts.scheme not in _BUCKET_SCHEMES or not parts.netloc:
        # memory:// would lose files at the next restart, and https:// is a web server, not a bucket.
        raise StorageError("STORAGE_URL starts with file:///, s3://, gs:// or az:// and names a bucket")
    return _open_bucket(f"{url.rstrip('/')}/{prefix}" if prefix else url, parts.netloc)


def local_directory(url: str | None, data_dir: Path) -> Path | None:
    """Where the files of all regions are, each region in a folder of its own; None where a bucket keeps them.

    Args:
        url, data_dir: as for `open_store`.

    Raises:
        StorageError: the URL names no store that files could be kept in.
    """
    if not url:
        return data_dir / "files"
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise StorageError("STORAGE_URL is scheme://bucket/prefix, without credentials, query or fragment")
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise StorageError("a file STORAGE_URL is file:///path, with three slashes")
    return Path(unquote(parts.path))


def _open_directory(path: Path, prefix: str) -> ObjectStore:
    root = path / prefix
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        return ObjectStore(LocalStore(root, automatic_cleanup=True), name="local", directory=root)
    except (BaseError, OSError) as error:
        raise StorageError(f"the directory {root} cannot be used: {_summary(error)}") from error


def _open_bucket(url: str, name: str) -> ObjectStore:
    # The client's own limits: the deadlines of each call stand above them. The whole-request timeout must
    # outlast the slowest download, since a body is read at the pace of whoever asked for it.
    client: ClientConfig = {
        "connect_timeout": "5s",
        "read_timeout": "30s",
        "timeout": "2h",
        # Options given here replace those of the environment, and buckets on one's own machine need this one.
        "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true"),
    }
    retry: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
    try:
        return ObjectStore(from_url(url, client_options=client, retry_config=retry), name=name)
    except (BaseError, ValueError) as error:
        raise StorageError(f"STORAGE_URL cannot be used: {_summary(error)}") from error


@asynccontextmanager
async def _guarded(what: str, deadline_s: float) -> AsyncIterator[None]:
    with _translated(what):
        async with asyncio.timeout(deadline_s):
            yield


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise ObjectMissingError(f"{what}: no such object") from error
    except TimeoutError as error:
        raise StorageError(f"{what}: no answer in time") from error
    except (BaseError, OSError, ValueError, NotImplementedError) as error:
        raise StorageError(f"{what}: {_summary(error)}") from error


def _summary(error: Exception) -> str:
    """The first line: the backend appends a dump of its internals after it."""
    return str(error).partition("\n")[0] or type(error).__name__
