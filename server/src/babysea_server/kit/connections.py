"""Connections to the outside world that cannot be turned inwards.

Whoever names an address to the server (a customer, a provider's answer, a redirect, a name server) must not get it
to call what only the server can reach. A URL's text proves nothing, since a name may resolve to anything and to
something else a moment later. So each address is judged where its socket is made, and the socket is connected to
that very address.
"""

import errno
import ipaddress
import re
import socket
import ssl
from collections.abc import Collection
from contextvars import ContextVar

import aiohttp
import msgspec
from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from babysea_server.kit.urls import is_public_address

_SCHEMES = frozenset({"http", "https"})
_PORTS = {"http": 80, "https": 443}
#: Signed URLs are long; beyond this a URL is taken for an attack.
MAX_URL_LENGTH = 16 * 1024
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\x9f\\\u2028\u2029\ud800-\udfff]")

# What an allowance opens: this machine, its networks, and overlay networks.
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)
# Clouds hand out credentials there. Their link-local addresses are in none of the networks above.
_METADATA = frozenset(ipaddress.ip_address(address) for address in ("100.100.100.200", "fd00:ec2::254"))


class ForbiddenAddressError(aiohttp.ClientConnectorError):
    """A connection was refused before a socket was made, because of the address; also an `OSError`.

    Its text is a reason without names, addresses or parts of the URL.
    """

    def __init__(self, connection_key: ConnectionKey, reason: str) -> None:
        super().__init__(connection_key, OSError(errno.EACCES, reason))
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Allowance(msgspec.Struct, frozen=True):
    """An exception for one host and port: it may be on this machine or a private network.

    `host` is the name or address as URLs write it, in lower case, IPv6 without brackets.
    """

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Allowance":
        """The host and port of an http(s) URL.

        Raises:
            ValueError: see `parse_url`.
        """
        parsed = parse_url(url)
        return cls(_plain(parsed.raw_host or ""), parsed.port or _PORTS[parsed.scheme])


def parse_url(url: str, *, base: URL | None = None) -> URL:
    """A plain http(s) URL, its escapes exactly as written, since signatures of URLs depend on them.

    Args:
        base: what a relative reference is relative to.

    Raises:
        ValueError: not http(s), not well-formed, too long, with spaces or control characters, without a host, or
            with a user name or password. The sentence holds no part of the URL.
    """
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"a URL has at most {MAX_URL_LENGTH} characters")
    if _FORBIDDEN.search(url):
        raise ValueError("a URL has no spaces, control characters or backslashes")
    try:
        parsed = URL(url, encoded=url.isascii())
        if base is not None and not parsed.scheme:
            parsed = base.join(parsed)
        host = parsed.raw_host
        well_formed = parsed.port is None or parsed.port > 0
    except ValueError:
        raise ValueError("this is not a well-formed URL") from None
    if parsed.scheme.lower() not in _SCHEMES:
        raise ValueError("a URL starts with https:// or http://")
    if not host or not well_formed:
        raise ValueError("this is not a well-formed URL")
    if "@" in parsed.raw_authority:
        raise ValueError("a URL carries no user name or password")
    return parsed


def refusal_of(address: str, *, private: bool = False) -> str | None:
    """Why an address must not be connected to, in a few words; None when it may.

    Args:
        address: as a name server gives it.
        private: whether this machine and private networks are allowed. Link-local, metadata, multicast and
            reserved addresses are not even then, nor those that carry another.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        # Connecting would resolve it once more, unseen.
        return "the name does not resolve to an address"
    if "%" in address:
        return "the address is of one network only"
    if is_public_address(parsed):
        return None
    if not private:
        return "the address is not public"
    if parsed in _METADATA or not any(parsed in network for network in _PRIVATE):
        return "the address is neither public nor of a private network"
    return None


def public_connector(
    *,
    limit: int,
    allowed: Collection[Allowance] = (),
    private_networks: bool = False,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
    idle_s: float = 4.0,
) -> "PublicConnector":
    """A connector for one `aiohttp.ClientSession` that connects to public addresses only.

    Must be called in a running event loop.

    Args:
        limit: connections at once.
        allowed: hosts that may be on this machine or a private network.
        private_networks: the same for every host; for development only.
        resolver: instead of the system's.
        tls: instead of the usual checks against the system's authorities.
        idle_s: seconds for which an unused connection is kept. Shorter than servers keep theirs (from 5 s on), so
            that a request is not sent into a connection that is being closed.
    """
    return PublicConnector(
        limit=limit,
        allowed=frozenset(allowed),
        private_networks=private_networks,
        resolver=resolver,
        tls=tls,
        idle_s=idle_s,
    )


class _Attempt(msgspec.Struct):
    """One connection being made: for which host, and what became of its addresses."""

    host: str
    sockets: int = 0
    refusal: str | None = None


#: Which connection the sockets are for: makers of sockets are told an address and nothing else.
_attempt: ContextVar[_Attempt] = ContextVar("outbound_attempt")


class PublicConnector(aiohttp.TCPConnector):
    """See `public_connector`."""

    allowed_protocol_schema_set = _SCHEMES

    def __init__(
        self,
        *,
        limit: int,
        allowed: frozenset[Allowance],
        private_networks: bool,
        resolver: AbstractResolver | None,
        tls: ssl.SSLContext | None,
        idle_s: float,
    ) -> None:
        super().__init__(
            limit=limit,
            resolver=resolver,
            ssl=True if tls is None else tls,
            keepalive_timeout=idle_s,
            ttl_dns_cache=30,
            socket_factory=self._make_socket,
        )
        self._allowed = allowed
        self._private_networks = private_networks

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """A connection from the pool, or a new one.

        Raises:
            ForbiddenAddressError: the host has no address that may be connected to.
        """
        if req.proxy is not None:
            raise ForbiddenAddressError(req.connection_key, "proxies are not used")
        attempt = _Attempt(_plain(req.url.raw_host or ""))
        token = _attempt.set(attempt)
        try:
            return await super().connect(req, traces, timeout)
        except aiohttp.ClientConnectorError:
            if attempt.refusal is not None and not attempt.sockets:
                raise ForbiddenAddressError(req.connection_key, attempt.refusal) from None
            raise
        finally:
            _attempt.reset(token)

    def _make_socket(self, info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        attempt = _attempt.get()
        text, port = str(address[0]), int(address[1])
        private = self._private_networks or Allowance(attempt.host, port) in self._allowed
        refusal = refusal_of(text, private=private)
        if refusal is not None:
            attempt.refusal = refusal
            raise OSError(errno.EACCES, refusal)
        attempt.sockets += 1
        return socket.socket(family, kind, protocol)


def _plain(host: str) -> str:
    return host.lower().rstrip(".")
