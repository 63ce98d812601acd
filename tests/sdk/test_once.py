"""Whatever becomes of answers on the way, a request buys one generation, is canceled once and deleted once."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from tests.sdk.clients import KINDS, Side
from tests.sdk.conftest import Live
from tests.support import Customer, make_customer

from babysea import AsyncBabySea, BabySea, RetriesExhaustedError
from babysea._clock import Clock

AT_ONCE = Clock(random=lambda: 0.0)


class Proxy:
    """Hands requests on to a port of loopback, one a connection; what becomes of the writing ones is its `fate`.

    `lost`: carried out, and its answer never arrives. `cut`: it never arrives itself. `gateway`: carried out, and
    answered by the proxy. When no fate is left, requests pass.
    """

    def __init__(self, port: int, fate: Sequence[str]) -> None:
        self._port = port
        self._fate = list(fate)
        self.writes = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1]) if length else 0)
            fate = "pass"
            if not head.startswith(b"GET"):
                self.writes += 1
                fate = self._fate.pop(0) if self._fate else "pass"
            if fate != "cut":
                answer = await self._carried_out(head, body)
                if fate == "gateway":
                    answer = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                if fate != "lost":
                    writer.write(answer)
                    await writer.drain()
        finally:
            writer.close()

    async def _carried_out(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        writer.write(b"\r\n".join([lines[0], b"Connection: close", *lines[1:]]) + body)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def through(
    live: Live, kind: str, customer: Customer, fate: Sequence[str], retries: int = 2
) -> AsyncIterator[Side]:
    """A client whose way to the server is a proxy."""
    proxy = Proxy(live.port, fate)
    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        make = BabySea if kind == "sync" else AsyncBabySea
        client = make(customer.key, base_url=base_url, max_retries=retries, _clock=AT_ONCE)
        side = Side(client, threaded=True)
        try:
            yield side
        finally:
            await side.close()
    assert proxy.writes == len(fate) + 1


async def _count(customer: Customer) -> int:
    count = await customer.deployment.db.fetchval(
        "SELECT count(*) FROM generations WHERE account_id = $1", customer.account_id
    )
    return int(count)


FATES = [("lost",), ("cut",), ("gateway",), ("cut", "lost"), ("lost", "cut"), ("gateway", "lost")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fate", FATES, ids="-".join)
async def test_generate_makes_exactly_one_generation(live: Live, kind: str, fate: tuple[str, ...]) -> None:
    customer = await make_customer(live.deployment)
    async with through(live, kind, customer, fate) as client:
        accepted = await client.call("generate", "sandbox/image", "a fox")
    assert await _count(customer) == 1
    assert accepted.replayed == any(one != "cut" for one in fate)
    assert (await customer.generation(accepted.id))["generation_id"] == accepted.id
    assert await customer.balance() == 100_000_000 - 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fate", FATES, ids="-".join)
async def test_cancel_and_delete_succeed_once(live: Live, kind: str, fate: tuple[str, ...]) -> None:
    customer = await make_customer(live.deployment)
    response = await customer.generate(generation_prompt="a fox [sandbox:slow:60]")
    id = response.json()["data"]["generation_id"]
    async with through(live, kind, customer, fate) as client:
        canceled = await client.call("cancel_generation", id)
    assert (await customer.generation(id))["generation_status"] == "canceled"
    told = all(one == "cut" for one in fate)
    assert (canceled.credits_refunded is not None) == told
    async with through(live, kind, customer, fate) as client:
        deleted = await client.call("delete_generation", id)
    assert (deleted.files_deleted is not None) == told
    assert (await customer.request("GET", f"/v1/content/{id}")).status_code == 404
    assert await customer.balance() == 100_000_000


@pytest.mark.parametrize("kind", KINDS)
async def test_an_order_whose_answers_were_all_lost_is_found_by_its_key(live: Live, kind: str) -> None:
    customer = await make_customer(live.deployment)
    async with through(live, kind, customer, ["lost"] * 2, retries=1) as client:
        with pytest.raises(RetriesExhaustedError):
            await client.call("generate", "sandbox/image", "a fox", idempotency_key="order-1")
        found = await client.call("generate", "sandbox/image", "a fox", idempotency_key="order-1")
    assert found.replayed
    assert await _count(customer) == 1
