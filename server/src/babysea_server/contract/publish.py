"""`/openapi.json`: each region's document, chosen by host, outside of `/v1` and without a key."""

import hashlib
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from babysea_server.contract.envelope import error_body
from babysea_server.contract.firewall import host_name
from babysea_server.contract.rejection import rejection, shown
from babysea_server.errors import ApiError
from babysea_server.kit.ids import request_id
from babysea_server.kit.json import dumps


def openapi_app(documents: Mapping[str, Mapping[str, Any]], hosts: Mapping[str, str]) -> ASGIApp:
    """An ASGI app that answers GET and HEAD with the document of the host's region, with an ETag.

    Another method or an unknown host is answered with the error envelope, BSE1010.
    """
    bodies = {region: dumps(document) for region, document in documents.items()}
    etags = {region: f'"{hashlib.sha256(body).hexdigest()[:32]}"'.encode() for region, body in bodies.items()}

    async def serve(scope: Scope, _receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        region = hosts.get(host_name(host))
        method = scope["method"]
        if region is None:
            await _refuse(
                send,
                rejection(
                    "unknown_host", "header.host", f"{shown(host)} is not a host of this API.", list(hosts)
                ),
            )
        elif method not in ("GET", "HEAD"):
            await _refuse(
                send,
                rejection("method_not_allowed", "method", "The document can only be read.", ["GET", "HEAD"]),
            )
        elif _matches(headers.get(b"if-none-match", b""), etags[region]):
            await _answer(send, 304, b"", [(b"etag", etags[region])])
        else:
            body = bodies[region]
            described = [
                (b"etag", etags[region]),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ]
            await _answer(send, 200, body if method == "GET" else b"", described)

    return serve


def _matches(if_none_match: bytes, etag: bytes) -> bool:
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return etag in tags or b"*" in tags


async def _refuse(send: Send, error: ApiError) -> None:
    answer_id = request_id()
    body = error_body(answer_id, error)
    headers = [
        (b"x-request-id", answer_id.encode()),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await _answer(send, error.spec.status, body, headers)


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    # Any page may read the document: it holds no secret, and viewers run in the browser.
    headers += [
        (b"cache-control", b"no-cache"),
        (b"x-content-type-options", b"nosniff"),
        (b"access-control-allow-origin", b"*"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
