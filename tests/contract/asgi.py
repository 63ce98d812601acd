"""Asking an ASGI app directly: one request in, one answer out, no sockets."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Scope

HOST = "api.us.example.com"
UUID = "0198f6b4-5d18-7f02-a6c9-83e1b4d7f265"
JSON = ("content-type", "application/json")
Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


def http_scope(
    method: str = "GET",
    target: str | bytes = "/v1/status",
    headers: Sequence[Header] = (),
    *,
    host: str | None = HOST,
) -> Scope:
    """A scope as uvicorn builds it: the raw path as sent, header names in lower case."""
    raw = target.encode() if isinstance(target, str) else target
    path, _, query = raw.partition(b"?")
    hosts = [] if host is None else [("host", host)]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in [*hosts, *headers]],
        "client": ("203.0.113.7", 40000),
        "server": ("127.0.0.1", 8000),
    }


class Exchange:
    """The two ends of one request; records how many messages of the body were taken."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)
        self.taken = 0
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self.taken == len(self._messages):
            return {"type": "http.disconnect"}
        self.taken += 1
        return self._messages[self.taken - 1]

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def answer(self) -> Answer:
        start, body = self.sent
        headers = [(name.decode(), value.decode("latin-1")) for name, value in start["headers"]]
        assert len(dict(headers)) == len(headers), "a header is sent twice"
        return Answer(start["status"], dict(headers), body["body"])


def chunked(*chunks: bytes) -> list[Message]:
    """Body messages, one for each chunk."""
    last = len(chunks) - 1
    return [
        {"type": "http.request", "body": chunk, "more_body": index < last}
        for index, chunk in enumerate(chunks)
    ]


async def ask(app: ASGIApp, scope: Scope, *chunks: bytes) -> Answer:
    """The app's answer to one request with the given body."""
    exchange = Exchange(chunked(*(chunks or (b"",))))
    await app(scope, exchange.receive, exchange.send)
    return exchange.answer
