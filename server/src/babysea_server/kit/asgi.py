"""What small endpoints outside of `/v1` share: a bounded body in, a JSON document out."""

from collections.abc import Mapping

from starlette.types import Receive, Send

from babysea_server.kit import json


async def read_body(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None where it has more than `limit` bytes, or the sender left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body"):
            return bytes(body)


async def send_json(
    send: Send, status: int, document: Mapping[str, object], *headers: tuple[bytes, bytes]
) -> None:
    """Answer with a JSON document."""
    body = json.dumps(document)
    kind, length = (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [kind, length, *headers]})
    await send({"type": "http.response.body", "body": body})
