"""What a region publishes outside of `/v1`, for everybody: `/openapi.json`, and `/docs` made from it."""

import asyncio
import gzip
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from babysea_server.contract.cors import Headers
from babysea_server.contract.envelope import error_body
from babysea_server.contract.firewall import host_name
from babysea_server.contract.rejection import rejection, shown
from babysea_server.errors import ApiError
from babysea_server.kit.ids import request_id
from babysea_server.kit.json import dumps

OPENAPI_PATH = "/openapi.json"
REFERENCE_PATH = "/docs"

# Any page may read what is published: it holds no secret, and viewers run in the browser.
_ALWAYS: Headers = [
    (b"cache-control", b"no-cache"),
    (b"vary", b"accept-encoding"),
    (b"access-control-allow-origin", b"*"),
]


class _Content(msgspec.Struct, frozen=True):
    """A resource as it is sent, with and without compression."""

    plain: bytes
    headers: Headers
    compressed: bytes
    etag: bytes
    compressed_etag: bytes


def _content(body: bytes, headers: Headers) -> _Content:
    digest = hashlib.sha256(body).hexdigest()[:32]
    return _Content(
        body, headers, gzip.compress(body, mtime=0), f'"{digest}"'.encode(), f'"{digest}-gzip"'.encode()
    )


def _openapi(document: Mapping[str, Any]) -> _Content:
    return _content(dumps(document), [(b"content-type", b"application/json")])


def _reference(document: Mapping[str, Any]) -> _Content:
    # Here: few processes are ever asked for it, and the templates' library takes long to load.
    from babysea_server.contract.reference.page import render_reference

    page = render_reference(document)
    return _content(
        page.html,
        [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-security-policy", page.policy.encode()),
        ],
    )


_RESOURCES: Mapping[str, Callable[[Mapping[str, Any]], _Content]] = {
    OPENAPI_PATH: _openapi,
    REFERENCE_PATH: _reference,
}


class _Shelf(msgspec.Struct):
    """One region's resources, each made when it is first asked for: most processes are never asked."""

    document: Mapping[str, Any]
    made: dict[str, _Content] = {}
    lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)

    async def content(self, path: str) -> _Content:
        async with self.lock:
            if path not in self.made:
                # A tenth of a second of work, away from the requests that are being served.
                self.made[path] = await asyncio.to_thread(_RESOURCES[path], self.document)
        return self.made[path]


class Publisher:
    """An ASGI app that answers GET and HEAD with what the host's region publishes, with an ETag.

    Another method or an unknown host is answered with the error envelope, BSE1010.

    Args:
        documents: the OpenAPI documents by region.
        hosts: the region of each host name.
    """

    PATHS = frozenset(_RESOURCES)

    def __init__(self, documents: Mapping[str, Mapping[str, Any]], hosts: Mapping[str, str]) -> None:
        self._shelves = {region: _Shelf(document) for region, document in documents.items()}
        self._hosts = hosts

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        region = self._hosts.get(host_name(host))
        if region is None:
            problem = f"{shown(host)} is not a host of this API."
            await _refuse(send, rejection("unknown_host", "header.host", problem, list(self._hosts)))
        elif scope["method"] not in ("GET", "HEAD"):
            problem = "What is published can only be read."
            await _refuse(send, rejection("method_not_allowed", "method", problem, ["GET", "HEAD"]))
        else:
            content = await self._shelves[region].content(scope["path"])
            await _serve(content, scope["method"], headers, send)


async def _serve(content: _Content, method: str, request: Mapping[bytes, bytes], send: Send) -> None:
    compressed = _takes_gzip(request.get(b"accept-encoding", b""))
    etag = content.compressed_etag if compressed else content.etag
    headers = [*_ALWAYS, (b"etag", etag)]
    if _matches(request.get(b"if-none-match", b""), etag):
        await _answer(send, 304, b"", headers)
        return
    body = content.compressed if compressed else content.plain
    headers += [*content.headers, (b"content-length", str(len(body)).encode())]
    if compressed:
        headers.append((b"content-encoding", b"gzip"))
    await _answer(send, 200, body if method == "GET" else b"", headers)


def _takes_gzip(accept_encoding: bytes) -> bool:
    for offer in accept_encoding.lower().split(b","):
        coding, _, weight = offer.replace(b" ", b"").partition(b";")
        if coding == b"gzip":
            return not weight or weight.removeprefix(b"q=").strip(b"0.") != b""
    return False


def _matches(if_none_match: bytes, etag: bytes) -> bool:
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return etag in tags or b"*" in tags


async def _refuse(send: Send, error: ApiError) -> None:
    answer_id = request_id()
    body = error_body(answer_id, error)
    headers = [
        *_ALWAYS,
        (b"x-request-id", answer_id.encode()),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await _answer(send, error.spec.status, body, headers)


async def _answer(send: Send, status: int, body: bytes, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
