"""What both drivers share: requests as httpx takes them, answers and errors as flows do."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from babysea._clock import Clock
from babysea._config import Config
from babysea._effects import Fetch, Response, Send
from babysea._errors import InvalidResponseError, NetworkError, RequestTimeoutError
from babysea._version import __version__

CHUNK_BYTES = 256 * 1024

_CONNECT_S = 5.0
_ANSWER_MAX_BYTES = 64 * 1024 * 1024
_USER_AGENT = f"babysea-python/{__version__}"
_ABOUT_US: Mapping[str, str] = {
    "User-Agent": _USER_AGENT,
    "X-BabySea-SDK-Name": "babysea-python",
    "X-BabySea-SDK-Version": __version__,
    "X-BabySea-SDK-Runtime": "python",
    "X-BabySea-SDK-Runtime-Version": platform.python_version(),
}


@dataclass(frozen=True, slots=True)
class Wire:
    """The way to one server. What httpx is asked for never follows redirects and has no other credentials."""

    config: Config
    clock: Clock

    def request(self, http: httpx.Client | httpx.AsyncClient, effect: Send) -> httpx.Request:
        """A request to the server, with the key."""
        headers = {
            **_ABOUT_US,
            "Accept": "application/json",
            "Authorization": f"Bearer {self.config.api_key}",
            **effect.request.headers,
        }
        if self.config.host is not None:
            headers["Host"] = self.config.host
        return http.build_request(
            effect.request.method,
            f"{self.config.base_url}{effect.request.path}",
            headers=headers,
            content=effect.request.body,
            timeout=_timeout(effect.timeout),
        )

    def file_request(self, effect: Fetch) -> httpx.Request:
        """A request to whoever keeps a file: nothing of the client's own goes there, above all not the key."""
        headers = {"User-Agent": _USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
        if effect.host is not None:
            headers["Host"] = effect.host
        timeout = _timeout(effect.timeout).as_dict()
        return httpx.Request("GET", effect.url, headers=headers, extensions={"timeout": timeout})

    def deadline(self, seconds: float) -> "Deadline":
        """A deadline from now on."""
        return Deadline(self.clock, self.clock.monotonic() + seconds)


@dataclass(frozen=True, slots=True)
class Deadline:
    """The end of an attempt: a server that sends a byte now and then would else hold it for ever."""

    clock: Clock
    at: float

    def check(self) -> None:
        """See that it has not passed.

        Raises:
            RequestTimeoutError: it has.
        """
        if self.clock.monotonic() > self.at:
            raise RequestTimeoutError("The answer did not end in time.")


class Body:
    """An answer's body as it arrives, within bounds."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        """Take a part.

        Raises:
            RequestTimeoutError, InvalidResponseError: the answer takes too long, or is too large.
        """
        self._deadline.check()
        self._size += len(part)
        if self._size > _ANSWER_MAX_BYTES:
            raise InvalidResponseError("the answer is too large to be one of this API")
        self._parts.append(part)

    def response(self, answer: httpx.Response) -> Response:
        """The answer with all parts."""
        return Response(answer.status_code, headers(answer), b"".join(self._parts))


def headers(answer: httpx.Response) -> Mapping[str, str]:
    """By name in lower case."""
    return {name.lower(): value for name, value in answer.headers.items()}


@contextmanager
def translated() -> Iterator[None]:
    """Errors of httpx as ours. Their texts are not taken over where they may quote a header, such as the key's."""
    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise RequestTimeoutError("There was no connection in time.", sent=False) from error
    except httpx.ConnectError as error:
        raise NetworkError(f"There is no connection to the server: {error}", sent=False) from error
    except httpx.TimeoutException as error:
        raise RequestTimeoutError("There was no answer in time.") from error
    except (httpx.RequestError, httpx.StreamError) as error:
        raise NetworkError(f"The connection broke ({type(error).__name__}).") from error
    except httpx.InvalidURL as error:
        raise InvalidResponseError("a link makes no sense") from error


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(_CONNECT_S, seconds))
