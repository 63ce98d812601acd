"""HTTP/1.1 below the application: uvicorn's protocol, and bounds on what a client may leave open.

uvicorn with httptools waits for the rest of a head as long as the client likes and keeps any amount of it, takes
trailers for headers, and answers what is no HTTP at once, even when a complete request before it is still being served:
the client would take that refusal for the answer to a request that was accepted.
"""

import contextlib
import logging
from asyncio import TimerHandle, Transport
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from babysea_server.contract.envelope import error_body
from babysea_server.contract.rejection import rejection
from babysea_server.contract.security import security_headers
from babysea_server.errors import ApiError
from babysea_server.kit.ids import request_id

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 128


class Server(uvicorn.Server):
    """uvicorn without its own signal handling: one place decides when this process stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing is captured."""
        yield


class _HeadTooLargeError(Exception):
    """Raised through the parser, which then goes no further."""


class _Outgoing:
    """A transport that drops what is written when the client is gone, as asyncio's own do.

    uvloop's raises, in the moment between a reset and the news of it: a traceback for every client that leaves early.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send, if there still is somebody."""
        if not self.is_closing():
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    A client that owes the rest of a request, while nothing of its own is being answered, gets as long as an idle
    one (`timeout_keep_alive`). A body that is awaited has the request's own deadline.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # What a client sends wrong it is told; a line of log for each would only be a way to fill the log.
        self.logger = logging.getLogger("uvicorn.error.client")
        self.logger.setLevel(logging.ERROR)
        self._in_head = self._in_body = False
        self._parsed = False
        """Whether the parser gave away anything of the bytes that it was last fed."""
        self._kept_bytes = 0
        """How many it may be keeping for itself."""
        self._measuring = False
        """Whether a head that ends now may be too large: it is in a large piece, or in several. Most are in neither."""
        self._too_large = False
        self._refused = False
        self._patience: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(cast(Transport, _Outgoing(transport)))
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse what is no HTTP and what is too much of it."""
        if not self._refused:
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._parsed, self._measuring = False, self._in_head or len(data) > MAX_HEAD_BYTES
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        self._kept_bytes = 0 if self._parsed else self._kept_bytes + len(data)
        if self._kept_bytes > MAX_HEAD_BYTES:
            self._refuse(_head_too_large())
        elif not self._answering():
            self._wait()

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer; those are dropped, because nothing here is defined as one (RFC 9110, 6.5.1)."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: the request is served."""
        self._in_head, self._parsed = False, True
        if len(self.headers) > MAX_HEADERS or (self._measuring and self._head_bytes() > MAX_HEAD_BYTES):
            self._too_large = True
            raise _HeadTooLargeError
        self._in_body = True
        self._stop_waiting()
        super().on_headers_complete()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._parsed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of the body."""
        self._in_body, self._parsed = False, True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is complete; after a refusal the last one closes the connection."""
        last = self._refused and not self.pipeline
        super().on_response_complete()
        if last:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's word for: the parser failed, or a callback of it."""
        self._refuse(_head_too_large() if self._too_large else _malformed())

    def _refuse(self, error: ApiError) -> None:
        """Take nothing more, let what is complete be answered, then close; `error` answers what is not."""
        self._refused = True
        self._stop_waiting()
        cycle, answering = self.cycle, self._answering()
        if answering and self._in_body:  # what is wrong is in the body of the last request
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
            else:
                answering = False
                cycle.disconnected = True
                cycle.message_event.set()
                self.transport.write(_refusal_bytes(error))
        elif not answering and not self._in_body:  # a request whose body is still coming has its answer
            self.transport.write(_refusal_bytes(error))
        if not answering:
            self.transport.close()

    def _answering(self) -> bool:
        return not getattr(self.cycle, "response_complete", True)  # there is none before the first request

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def _malformed() -> ApiError:
    return rejection("malformed_http", "request", "This is not a well-formed HTTP/1.1 request.", [])


def _head_too_large() -> ApiError:
    return rejection(
        "head_too_large",
        "headers",
        f"The head of a request has at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers.",
        {"max_bytes": MAX_HEAD_BYTES, "max_headers": MAX_HEADERS},
    )


def _refusal_bytes(error: ApiError) -> bytes:
    identifier = request_id()
    body = error_body(identifier, error)
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", identifier.encode()),
        (b"connection", b"close"),
        *security_headers("http"),
    ]
    status = HTTPStatus(error.spec.status)
    head = b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode())
    return head + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n" + body
