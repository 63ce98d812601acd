"""The provider that all sides call: it answers every request at once, with one small picture.

OpenAI's `POST /v1/images/generations`, answered from memory by a protocol of a few lines, so that it is never what is
measured. Its own rate under the same load stands in the table.
"""

import asyncio
import base64
import io
import json
import sys
from typing import cast

import uvloop
from PIL import Image

_HEAD_MAX = 64 * 1024


def answer() -> bytes:
    """A whole HTTP answer with a PNG of 64 x 64 pixels in Base64."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (24, 96, 160)).save(picture, "PNG")
    document = {
        "created": 1_767_225_600,
        "data": [{"b64_json": base64.b64encode(picture.getvalue()).decode()}],
        "usage": {
            "input_tokens": 1,
            "output_tokens": 1,
            "total_tokens": 2,
            "input_tokens_details": {"text_tokens": 1, "image_tokens": 0},
        },
    }
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Upstream(asyncio.Protocol):
    """Answers each request that has come whole, in order; bodies need a Content-Length."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        # uvloop's transports have the methods without being of the class.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer as many requests as are whole."""
        assert self._transport is not None
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            whole = end + 4 + _content_length(self._received[:end])
            if len(self._received) < whole:
                return
            self._received = self._received[whole:]
            self._transport.write(self._answer)
        if len(self._received) > _HEAD_MAX:
            self._transport.abort()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def _serve() -> None:
    prepared = answer()
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(prepared), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
