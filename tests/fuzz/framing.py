"""How many answers a stream of bytes is owed, and reading answers off a stream.

The requests in a stream are counted by a second instance of the parser that the server uses: how bytes become requests
is its word, so that the fuzz knows when to stop waiting. What an answer may say is judged elsewhere, without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import httptools

from babysea_server.processes.http import MAX_HEAD_BYTES, MAX_HEADERS

_BODILESS = frozenset((204, 304))


class Rest(Enum):
    """What follows the last complete request."""

    NOTHING = "nothing"
    HEAD = "part of a head"
    BODY = "part of a body"
    GARBAGE = "what is no HTTP"
    UPGRADE = "another protocol"


@dataclass(slots=True)
class Owed:
    """The answers that a stream is owed: one for each method."""

    methods: list[str] = field(default_factory=list)
    """Of the complete requests; what follows one that ends the connection is not counted."""
    rest: Rest = Rest.NOTHING
    closes: bool = False
    """Whether the server closes after the last of them."""


class FramingError(Exception):
    """What came from the server is no HTTP/1.1 answer."""


class _Requests:
    """httptools calls the `on_` methods."""

    def __init__(self, stream: bytes) -> None:
        self.owed = Owed()
        self._url = b""
        self._headers = self._head_bytes = 0
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self._parser.feed_data(stream)
        except httptools.HttpParserUpgrade:
            self.owed.rest = Rest.UPGRADE
        except httptools.HttpParserError:
            self.owed.rest = Rest.GARBAGE

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = self._head_bytes = 0
        self.owed.rest = Rest.HEAD

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        self._head_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        if self._headers > MAX_HEADERS or len(self._url) + self._head_bytes > MAX_HEAD_BYTES:
            raise FramingError("too large")
        httptools.parse_url(self._url).path.decode("ascii")  # as the server does; what fails is garbage
        self.owed.rest = Rest.BODY

    def on_message_complete(self) -> None:
        self.owed.rest = Rest.NOTHING
        if self.owed.closes:
            return
        self.owed.methods.append(self._parser.get_method().decode("latin-1"))
        version = self._parser.get_http_version()
        self.owed.closes = version == "1.0" or not self._parser.should_keep_alive()


def owed_answers(stream: bytes) -> Owed:
    """What the server owes for this stream."""
    owed = _Requests(stream).owed
    if owed.closes:
        owed.rest = Rest.NOTHING
    return owed


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; names of headers are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def read_answers(received: bytes, methods: Sequence[str]) -> list[Answer]:
    """The complete answers in what was received; `methods` are those of the requests, in order.

    Raises:
        FramingError: what was received is no HTTP/1.1.
    """
    answers: list[Answer] = []
    at = 0
    while at < len(received):
        end = received.find(b"\r\n\r\n", at)
        if end < 0:
            break
        status, headers = _head(received[at:end])
        at = end + 4
        if status == 100:
            continue
        method = methods[len(answers)] if len(answers) < len(methods) else "GET"
        size = 0 if method == "HEAD" or status in _BODILESS else _length(headers)
        if len(received) < at + size:
            break
        answers.append(Answer(status, headers, received[at : at + size]))
        at += size
    return answers


def _head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version != "HTTP/1.1" or not rest[:3].isdigit():
        raise FramingError(f"not a status line: {first[:100]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise FramingError(f"not a header: {line[:100]!r}")
        headers[name.lower()] = value.strip()
    return int(rest[:3]), headers


def _length(headers: dict[str, str]) -> int:
    text = headers.get("content-length", "")
    if not text.isdigit():
        raise FramingError("an answer without Content-Length")
    return int(text)
