"""What compares us with the peers: the upstream that all call, and how ratios are taken."""

import asyncio

import msgspec
import pytest
from bench.load import Measured
from bench.peers.measure import Round, Row
from bench.peers.table import ratios
from bench.peers.upstream import Upstream, answer


def _row(*rates: float) -> Row:
    return Row(
        name="a",
        rounds=[
            Round(
                measured=Measured(
                    requests=round(rate * 2), seconds=2.0, p50_ms=1.0, p99_ms=2.0, refused=0, broken=0
                ),
                cpu_ms=1.0,
            )
            for rate in rates
        ],
    )


def test_a_ratio_is_taken_within_its_round() -> None:
    assert ratios(_row(400, 100), _row(100, 50)) == [4.0, 2.0]


def test_rows_of_different_runs_are_not_compared() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        ratios(_row(400), _row(100, 50))


async def test_the_upstream_answers_every_whole_request_in_order() -> None:
    prepared = answer()
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(prepared), "127.0.0.1", 0)
    async with server, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        request = b"POST /v1/images/generations HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"
        writer.write(request + request + request[:-1])
        assert await reader.readexactly(2 * len(prepared)) == 2 * prepared
        writer.write(request[-1:])
        assert await reader.readexactly(len(prepared)) == prepared
        writer.close()
        await writer.wait_closed()
    document = msgspec.json.decode(prepared.partition(b"\r\n\r\n")[2])
    assert document["data"][0]["b64_json"].startswith("iVBOR")
