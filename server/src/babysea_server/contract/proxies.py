"""Who calls, behind proxies: what trusted ones say of the client, the host and the scheme."""

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from starlette.types import Scope

from babysea_server.keys.allowlist import allows, networks

_HOPS_MAX = 32
_PORT = re.compile(r":[0-9]{1,5}")
_AUTHORITY = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_SCHEMES = (b"http", b"https")


class TrustedProxies:
    """Reads `X-Forwarded-For`, `-Host` and `-Proto` of requests whose peer is a trusted proxy.

    Of a repeated header or a list the last counts, because that is what the nearest proxy has written; only the
    client is found by going back over all trusted hops. What cannot be understood is as if it were not there.

    Args:
        trusted: addresses and networks.

    Raises:
        ValueError: one of them is neither.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = networks(trusted)

    def resolve(self, scope: Scope) -> Scope:
        """The scope as if the client itself had connected; the same one when its peer is not trusted."""
        peer = scope.get("client")
        if peer is None or not allows(peer[0], self._trusted):
            return scope
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        seen = {**scope, "client": (self._client(peer[0], headers), 0)}
        if (host := _last(headers, b"x-forwarded-host")) and _AUTHORITY.fullmatch(host):
            seen["headers"] = [(b"host", host), *(pair for pair in headers if pair[0] != b"host")]
        if (scheme := _last(headers, b"x-forwarded-proto").lower()) in _SCHEMES:
            seen["scheme"] = scheme.decode()
        return seen

    def _client(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        client = peer
        for _, entry in zip(range(_HOPS_MAX), _from_the_right(headers, b"x-forwarded-for"), strict=False):
            address = _address(entry)
            if address is None:
                break
            client = address
            if not allows(client, self._trusted):
                break
        return client


def _from_the_right(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> Iterator[bytes]:
    """The entries of a list header, last first."""
    for key, value in reversed(headers):
        rest = value if key == name else None
        while rest is not None:
            rest, comma, entry = rest.rpartition(b",")
            yield entry.strip()
            if not comma:
                break


def _last(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next(_from_the_right(headers, name), b"")


def _address(entry: bytes) -> str | None:
    """The address in `1.2.3.4`, `1.2.3.4:5`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:5`."""
    text = entry.decode("latin-1")
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and _PORT.fullmatch(port) is None):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if _PORT.fullmatch(f":{port}") is None:
            return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A zone is a name on the proxy's own machine.
    if address.version == 6 and address.scope_id is not None:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return str(mapped or address)
