"""Stored files over HTTP: `GET` and `HEAD /files/<key>` with a signed link, and nothing else."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import aclosing, suppress
from typing import Any

from babysea_server.kit import json
from babysea_server.outputs.keys import content_type, download_name, is_key
from babysea_server.outputs.links import BadLinkError, LinkSigner
from babysea_server.outputs.ranges import UnsatisfiableRangeError, lists_etag, parse_range
from babysea_server.outputs.store import ObjectMissingError, ObjectStore, StorageError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PREFIX = "/files/"

#: Seconds a reader may take for one piece of 256 KiB before it counts as gone.
_SEND_DEADLINE_S = 60.0

# Links stand in web pages of any origin; they carry their own permission and never a cookie. A file is
# somebody else's work and may be an SVG with scripts: opened by itself it runs in an empty sandbox.
_ALWAYS: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"accept-ranges, content-length, content-range, etag"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox"),
]


class _RefusedError(Exception):
    """An answer other than the file, on its way to where it is sent."""

    def __init__(self, status: int, message: str, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or []


class FilesApp:
    """An ASGI application that serves stored files to whoever holds a valid link.

    A key is looked up only after its signature was found right, so answers tell strangers nothing about
    which files exist.

    Args:
        store_for: the store of a region, or None.
        region_for_host: the region that a Host header stands for, or None.
        signer: checks links.
    """

    def __init__(
        self,
        store_for: Callable[[str], ObjectStore | None],
        region_for_host: Callable[[str], str | None],
        signer: LinkSigner,
    ) -> None:
        self._store_for = store_for
        self._region_for_host = region_for_host
        self._signer = signer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the files application serves http, not {scope['type']}")
        try:
            await self._serve(scope, receive, send)
        except _RefusedError as refusal:
            await _send_refusal(refusal, scope["method"], send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise _RefusedError(405, "files are read with GET or HEAD", [(b"allow", b"GET, HEAD")])
        store, key, seconds_left = self._admit(scope)
        try:
            size = await store.size(key)
        except StorageError as error:
            raise _RefusedError(502, "the file store does not answer; try again") from error
        if size is None:
            raise _RefusedError(404, "no such file")
        etag = f'"{hashlib.sha256(key.encode()).hexdigest()[:32]}"'
        headers: Headers = [
            *_ALWAYS,
            (b"etag", etag.encode()),
            (b"cache-control", f"private, max-age={seconds_left}".encode()),
        ]
        known = _header(scope, b"if-none-match")
        if known is not None and lists_etag(known, etag):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        start, end, partial = _part(scope, size, etag)
        headers += [
            (b"accept-ranges", b"bytes"),
            (b"content-type", content_type(key).encode()),
            (b"content-length", str(end - start).encode()),
            (b"content-disposition", f'inline; filename="{download_name(key)}"'.encode()),
        ]
        if partial:
            headers.append((b"content-range", f"bytes {start}-{end - 1}/{size}".encode()))
        opening = {"type": "http.response.start", "status": 206 if partial else 200, "headers": headers}
        if scope["method"] == "HEAD" or start == end:
            await send(opening)
            await send({"type": "http.response.body", "body": b""})
            return
        await _stream(store.stream(key, start, end), opening, receive, send)

    def _admit(self, scope: Scope) -> tuple[ObjectStore, str, int]:
        """The store and key that a request may read, and the seconds for which it may."""
        # The path as it was sent: decoded, an encoded slash or dot could not be told from a plain one.
        raw = scope.get("raw_path") or scope["path"].encode()
        path = raw.decode("latin-1").partition("?")[0]
        key = path.removeprefix(PREFIX)
        if key == path or not is_key(key):
            raise _RefusedError(404, "no such file")
        region = self._region_for_host(_header(scope, b"host") or "")
        store = None if region is None else self._store_for(region)
        if region is None or store is None:
            raise _RefusedError(404, "this host serves no files")
        expires, signature = _parameters(scope)
        try:
            return store, key, self._signer.verify(region, key, expires, signature)
        except BadLinkError as error:
            raise _RefusedError(403, str(error)) from error


def _header(scope: Scope, name: bytes) -> str | None:
    """A request header that was sent once; sent twice it counts as absent, since either could be meant."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else None


def _parameters(scope: Scope) -> tuple[str, str]:
    """`expires` and `signature`: exactly these two, once each, unencoded, in either order."""
    query = scope.get("query_string", b"").decode("latin-1")
    pairs = [part.partition("=") for part in query.split("&")] if len(query) <= 256 else []
    values = {name: value for name, _, value in pairs}
    if len(pairs) != 2 or values.keys() != {"expires", "signature"}:
        raise _RefusedError(403, "the link needs the parameters expires and signature, and no others")
    return values["expires"], values["signature"]


def _part(scope: Scope, size: int, etag: str) -> tuple[int, int, bool]:
    """Start, exclusive end, and whether that is an answer to a Range header."""
    asked, condition = _header(scope, b"range"), _header(scope, b"if-range")
    # Ranges belong to GET. If-Range compares strongly; a date never matches, because none was ever sent.
    if asked is None or scope["method"] != "GET" or condition not in (None, etag):
        return 0, size, False
    try:
        part = parse_range(asked, size)
    except UnsatisfiableRangeError as error:
        headers = [(b"content-range", f"bytes */{size}".encode())]
        raise _RefusedError(416, f"the range holds nothing of the file's {size} bytes", headers) from error
    return (0, size, False) if part is None else (*part, True)


async def _stream(
    chunks: AsyncGenerator[bytes, None], opening: Message, receive: Receive, send: Send
) -> None:
    """Send a file piece by piece, until its end or until nobody listens any more."""
    async with aclosing(chunks):
        # The first piece before the status: a file that went away in between is still a proper 404.
        try:
            chunk = await anext(chunks)
        except ObjectMissingError as error:
            raise _RefusedError(404, "no such file") from error
        except StorageError as error:
            raise _RefusedError(502, "the file store does not answer; try again") from error
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await _send_piece(opening, send)
            await _send_piece({"type": "http.response.body", "body": chunk, "more_body": True}, send)
            async for chunk in chunks:
                if gone.done():
                    return
                await _send_piece({"type": "http.response.body", "body": chunk, "more_body": True}, send)
            await _send_piece({"type": "http.response.body", "body": b""}, send)
        except OSError:
            # The connection ended, or the reader stalled (a TimeoutError is one of these). The answer is left
            # unfinished on purpose: the server then closes the connection, and the reader sees the cut.
            return
        finally:
            gone.cancel()
            await asyncio.wait([gone])


async def _send_piece(message: Message, send: Send) -> None:
    async with asyncio.timeout(_SEND_DEADLINE_S):
        await send(message)


async def _disconnected(receive: Receive) -> None:
    with suppress(OSError):  # a broken connection is one that ended
        while (await receive())["type"] != "http.disconnect":
            pass


async def _send_refusal(refusal: _RefusedError, method: str, send: Send) -> None:
    body = json.dumps({"error": refusal.message})
    headers: Iterable[tuple[bytes, bytes]] = [
        *_ALWAYS,
        *refusal.headers,
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})
