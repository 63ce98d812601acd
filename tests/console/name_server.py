"""A name server on loopback that really speaks DNS, over UDP, with records that tests set."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


@dataclass
class NameServer(asyncio.DatagramProtocol):
    """Answers from `records`; names that are not in it do not exist."""

    records: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """Values by name and type, e.g. `("api.example.com", "CNAME"): ["api.us.localhost."]`."""
    refuses: bool = False
    """Whether it answers that it cannot answer."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""
    _transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if self.refuses:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif values := self.records.get((name, kind)):
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *values))
        elif not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        assert self._transport is not None
        self._transport.sendto(answer.to_wire(), addr)

    def set(self, name: str, kind: str, *values: str) -> None:
        """Set a record; without values it is taken away."""
        if values:
            quoted = (
                [f'"{value}"' for value in values] if kind == "TXT" else [f"{value}." for value in values]
            )
            self.records[name, kind] = quoted
        else:
            self.records.pop((name, kind), None)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """A running name server; its `address` is what the setting `dns_resolver` takes."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    server.address = "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
    try:
        yield server
    finally:
        transport.close()
