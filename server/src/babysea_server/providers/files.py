"""The transport of files: inputs from wherever customers keep them, outputs from wherever providers do."""

import asyncio
import ssl
from collections.abc import Collection

from aiohttp.abc import AbstractResolver
from yarl import URL

from babysea_server.kit.connections import Allowance, parse_url
from babysea_server.providers.base import Answer, AnswerLostError, NeverSentError, Request
from babysea_server.providers.http import Line, Timeouts

MAX_REDIRECTS = 3

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class FileTransport:
    """Fetches files over HTTP(S) from hosts that nobody vouches for.

    At most three redirects are followed, each over a connection that is checked like the first; a request's headers
    go to no other origin. Statuses are answers, also those of redirects that lead nowhere or are too many, whose
    body comes empty.

    Args:
        connections: connections at once at most, to all hosts together.
        timeouts: for the phases of each hop.
        allowed: hosts that may be on private networks.
        private_networks: every host may be; for development only.
        resolver: instead of the system's.
        tls: instead of the usual checks against the system's authorities.
    """

    def __init__(
        self,
        *,
        connections: int = 100,
        timeouts: Timeouts | None = None,
        allowed: Collection[Allowance] = (),
        private_networks: bool = False,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._line = Line(
            connections=connections,
            timeouts=timeouts or Timeouts(),
            allowed=allowed,
            private_networks=private_networks,
            resolver=resolver,
            tls=tls,
        )

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        """See `Transport.send`; only GET."""
        if request.method != "GET" or request.body is not None:
            raise NeverSentError("files are fetched and nothing else")
        try:
            url = parse_url(request.url)
        except ValueError as error:
            raise NeverSentError(str(error)) from None
        clock = asyncio.get_running_loop().time
        ends_at = clock() + timeout_s
        # What is compressed already gains nothing, and a length that is true can be checked before reading.
        plain = {"accept-encoding": "identity"}
        headers = {**plain, **request.headers}
        followed = 0
        while True:
            try:
                answer = await self._line.exchange(
                    request, url, headers, timeout_s=ends_at - clock(), body_max=body_max, unread=_REDIRECTS
                )
            except NeverSentError as error:
                if followed:
                    raise AnswerLostError(f"after a redirect: {error}") from None
                raise
            if answer.status not in _REDIRECTS or followed == MAX_REDIRECTS:
                return answer
            location = answer.headers.get("location")
            if location is None:
                return answer
            target = _target(url, location)
            if _origin(target) != _origin(url):
                headers = plain
            url, followed = target, followed + 1

    async def close(self) -> None:
        """Close all connections."""
        await self._line.close()


def _target(url: URL, location: str) -> URL:
    try:
        return parse_url(location, base=url)
    except ValueError as error:
        raise AnswerLostError(f"after a redirect: {error}") from None


def _origin(url: URL) -> tuple[str, str, int | None]:
    return url.scheme, (url.raw_host or "").lower(), url.port
