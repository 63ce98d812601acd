"""Looks at the DNS records of a custom domain."""

import ipaddress
from typing import Any, Literal

#: For one question.
DEADLINE_S = 5.0
_CHAIN_MAX = 8
_TEXTS_MAX = 50
_PORT = 53


class DnsUnavailableError(Exception):
    """The name server did not answer, or did not know: it says nothing about the records."""


class DomainCheck:
    """Asks a name server for what stands in DNS.

    Args:
        resolver: address and port of the name server, e.g. `192.0.2.53`, `192.0.2.53:5353` or `[2001:db8::1]:53`;
            None: the machine's own.

    Raises:
        ValueError: it is none.
    """

    def __init__(self, resolver: str | None = None, *, deadline_s: float = DEADLINE_S) -> None:
        self._server = None if resolver is None else _address(resolver)
        self._deadline_s = deadline_s
        self._resolver: Any = None

    async def leads_to(self, hostname: str) -> list[str]:
        """The names that CNAME records lead to from a host name, nearest first; none: it has no such record.

        Raises:
            DnsUnavailableError
        """
        chain: list[str] = []
        name = hostname
        while len(chain) < _CHAIN_MAX:
            found = [record.target for record in await self._ask(name, "CNAME")]
            if not found:
                break
            name = found[0].to_text(omit_final_dot=True).lower()
            if name in chain:
                break
            chain.append(name)
        return chain

    async def texts(self, name: str) -> list[str]:
        """The TXT records of a name.

        Raises:
            DnsUnavailableError
        """
        records = (await self._ask(name, "TXT"))[:_TEXTS_MAX]
        return [b"".join(record.strings).decode("utf-8", "replace").strip() for record in records]

    async def _ask(self, name: str, kind: Literal["CNAME", "TXT"]) -> list[Any]:
        # Here: loading it takes a third of a second, and most processes never look.
        import dns.asyncbackend
        import dns.asyncresolver
        import dns.exception
        import dns.rdatatype
        import dns.resolver

        try:
            if self._resolver is None:
                self._resolver = dns.asyncresolver.Resolver(configure=self._server is None)
                if self._server is not None:
                    self._resolver.nameservers = [self._server[0]]
                    self._resolver.port = self._server[1]
            answer = await self._resolver.resolve(
                name + ".",
                kind,
                search=False,
                lifetime=self._deadline_s,
                backend=dns.asyncbackend.get_backend("asyncio"),
            )
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise DnsUnavailableError(f"{type(error).__name__} for {name}") from error
        return [record for record in answer if record.rdtype == dns.rdatatype.from_text(kind)]


def _address(text: str) -> tuple[str, int]:
    host, port = text, str(_PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        host = host if bracket else text
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
        raise ValueError("dns_resolver has a port that is none")
    try:
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        raise ValueError(
            "dns_resolver is an address, perhaps with a port: 192.0.2.53 or 192.0.2.53:5353"
        ) from None
