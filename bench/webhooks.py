"""Webhooks: what one deliverer sends a second, and whether slow and dead receivers delay a fast one.

The deliverer is the product's own, with its defaults, in a process of its own; so is the receiver, an asyncio protocol
that reads no more of a request than its length and path. Times are the database's own.

`python -m bench webhooks` measures, first, deliveries to 32 endpoints that answer after 50 ms. Then generations end at
a steady rate, each with its transaction, for an account with one fast endpoint, and again for one that has beside it
one that answers after 5 s and one that never does: the figure is the ratio of what the fast one waits.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import uvloop

from babysea_server.accounts import store as accounts
from babysea_server.db.pool import Database
from babysea_server.generations.admission import AdmissionRequest, Admissions
from babysea_server.kit.clock import SystemClock
from babysea_server.kit.ids import uuid7
from babysea_server.kit.money import MICROS_PER_CREDIT
from babysea_server.ledger import store as ledger
from babysea_server.outputs.links import LinkSigner
from babysea_server.telemetry.logs import configure_logging
from babysea_server.webhooks.body import Bodies
from babysea_server.webhooks.deliverer import Deliverer, DelivererSettings
from babysea_server.webhooks.secrets import SecretBox, new_secret
from babysea_server.webhooks.sender import Sender
from bench.load import percentile
from bench.servers import Process, Site, site

_KEY = b"bench" * 8
#: Seconds until an answer, by path; on a path that is not here there is none.
_DELAYS = {b"/fast": 0.0, b"/50ms": 0.05, b"/slow": 5.0}
_ENDPOINTS = 32
_RATE = 200
_EVERY_S = 0.1
_EVENTS = ["generation.started", "generation.completed", "generation.failed", "generation.canceled"]
_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class _Waits:
    """From the event to its recorded delivery, in seconds."""

    p50: float
    p99: float


async def webhooks(*, quick: bool) -> str:
    """Measure and return the table in Markdown.

    Raises:
        RuntimeError: something was not delivered in time.
    """
    count = 2_000 if quick else 20_000
    generations = 1_000 if quick else 10_000
    rounds = 1 if quick else 2
    async with site() as place:
        with Process(["-m", "bench.webhooks", "receive"], place.folder / "receiver.log") as receiver:
            port = int(receiver.ready_line)
            _say(f"{count} deliveries to {_ENDPOINTS} endpoints that take 50 ms")
            rate = await _rate(place, port, count)
            alone, beside = [], []
            for number in range(rounds):
                _say(
                    f"{generations} generations at {_RATE}/s, alone and beside two others, {number + 1} of {rounds}"
                )
                alone.append(await _waits(place, port, ["/fast"], generations))
                beside.append(await _waits(place, port, ["/fast", "/slow", "/dead"], generations))
    lines = [
        "| figure | value | target |",
        "|---|---|---|",
        f"| deliveries a second, one deliverer, {_ENDPOINTS} receivers of 50 ms | {rate:,.0f} | 1,000 |",
    ]
    for name, each in (("alone", alone), ("beside a slow and a dead one", beside)):
        told = ", ".join(f"{waits.p50 * 1000:.1f} / {waits.p99 * 1000:.1f}" for waits in each)
        lines.append(f"| fast receiver {name}: p50 / p99 ms | {told} | |")
    ratios = ", ".join(f"{b.p99 / a.p99:.2f}" for a, b in zip(alone, beside, strict=True))
    lines.append(f"| ratio of the p99 | **{ratios}** | about 1 |")
    return "\n".join(lines)


async def _rate(place: Site, port: int, count: int) -> float:
    account = await _account(place.db)
    hooks = [await _hook(place.db, account, port, "/50ms") for _ in range(_ENDPOINTS)]
    await place.db.execute(
        """SELECT enqueue_account_event_v1($1, 'generation.started', '{"account_id": "bench"}')
           FROM generate_series(1, $2)""",
        account,
        count // len(hooks),
    )
    with _deliverer(place):
        await _delivered(place.db, hooks, count // len(hooks) * len(hooks))
    seconds: float = await place.db.fetchval(
        """SELECT extract(epoch FROM max(a.at) - min(a.at))::float8 FROM webhook_attempts a
           JOIN webhook_deliveries d ON d.id = a.delivery_id WHERE d.account_id = $1""",
        account,
    )
    return count / seconds


async def _waits(place: Site, port: int, paths: Sequence[str], generations: int) -> _Waits:
    account = await _account(place.db)
    fast, *_ = [await _hook(place.db, account, port, path) for path in paths]
    ids = await _admit(place, account, generations)
    with _deliverer(place):
        loop = asyncio.get_running_loop()
        started, step = loop.time(), round(_RATE * _EVERY_S)
        for number, begin in enumerate(range(0, generations, step)):
            await asyncio.sleep(max(0.0, started + number * _EVERY_S - loop.time()))
            await _end(place.db, account, ids[begin : begin + step])
        await _delivered(place.db, [fast], generations)
    rows = await place.db.fetch(
        """SELECT extract(epoch FROM ended_at - created_at)::float8 AS waited FROM webhook_deliveries
           WHERE endpoint_id = $1""",
        fast,
    )
    await place.db.execute("DELETE FROM webhook_endpoints WHERE account_id = $1", account)
    waited = sorted(row["waited"] for row in rows)
    return _Waits(percentile(waited, 50), percentile(waited, 99))


async def _account(db: Database) -> UUID:
    account = await accounts.create(db, name="Webhooks", plan="unlimited")
    await ledger.add(db, account.id, 1000 * MICROS_PER_CREDIT, "bench")
    return account.id


async def _hook(db: Database, account: UUID, port: int, path: str) -> UUID:
    id = uuid7()
    await db.execute(
        "INSERT INTO webhook_endpoints (id, account_id, url, events, secret) VALUES ($1, $2, $3, $4, $5)",
        id,
        account,
        f"http://127.0.0.1:{port}{path}",
        _EVENTS,
        SecretBox(_KEY).seal(new_secret()),
    )
    return id


async def _admit(place: Site, account: UUID, count: int) -> list[UUID]:
    admissions = Admissions(place.db, SystemClock(), lambda: None, deadline_s=30.0)
    requests = [
        AdmissionRequest(
            generation_id=uuid7(),
            prediction_id=uuid7(),
            account_id=account,
            apikey_id=place.apikey_id,
            model="sandbox/image",
            media="image",
            inputs={"generation_prompt": "bench"},
            provider_order=("sandbox",),
            cost=1000,
            rate_per_second=None,
            lifetime_s=3600,
            in_flight_limit=None,
            idempotency_key=None,
            fingerprint=b"",
        )
        for _ in range(count)
    ]
    for begin in range(0, count, 1024):
        answers = await asyncio.gather(*map(admissions.admit, requests[begin : begin + 1024]))
        if any(answer.result != "accepted" for answer in answers):
            raise RuntimeError("the generations were not admitted")
    await admissions.close()
    return [request.generation_id for request in requests]


async def _end(db: Database, account: UUID, ids: Sequence[UUID]) -> None:
    """The final transition of a batch, as workers make it."""
    await db.execute(
        """WITH b AS (SELECT $1::uuid[] AS ids, cardinality($1::uuid[]) AS n)
        SELECT count(s.*) FROM b, LATERAL settle_generations_v1(
            NULL, b.ids, array_fill($2::uuid, ARRAY[n]), array_fill(0, ARRAY[n]),
            array_fill('failed'::generation_status, ARRAY[n]), array_fill(NULL::numeric, ARRAY[n]),
            array_fill(NULL::text, ARRAY[n]), array_fill(NULL::jsonb, ARRAY[n]), array_fill('BSE4001'::text, ARRAY[n]),
            array_fill('no'::text, ARRAY[n]), array_fill(NULL::bigint, ARRAY[n])) AS s""",
        list(ids),
        account,
    )


async def _delivered(db: Database, hooks: Sequence[UUID], count: int) -> None:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _WITHIN_S
    while count != await db.fetchval(
        "SELECT count(*) FROM webhook_deliveries WHERE endpoint_id = ANY ($1) AND state = 'delivered'", hooks
    ):
        if loop.time() > give_up_at:
            raise RuntimeError(f"less than {count} deliveries within {_WITHIN_S:g} s")
        await asyncio.sleep(0.5)


def _deliverer(place: Site) -> Process:
    return Process(["-m", "bench.webhooks", "deliver", place.db.dsn], place.folder / "deliverer.log")


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


# ------------------------------------------------------------------------------------------- the processes


class _Receiver(asyncio.Protocol):
    """Answers each request of a connection 200 in its path's time; the sender never pipelines."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it to answer."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Answer once all of the request is there."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = body[length:]
        delay = _DELAYS.get(head.split(b" ", 2)[1])
        if delay is not None:
            asyncio.get_running_loop().call_later(delay, self._answer)

    def _answer(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def _receive(stop: asyncio.Event) -> None:
    server = await asyncio.get_running_loop().create_server(_Receiver, "127.0.0.1", 0, backlog=2048)
    _ready(str(server.sockets[0].getsockname()[1]))
    await stop.wait()
    server.close()


async def _deliver(stop: asyncio.Event, dsn: str) -> None:
    clock = SystemClock()
    db, sender = Database(dsn, name="bench-deliverer"), Sender(clock, allow_private=True)
    await db.open()
    bodies = Bodies(LinkSigner(_KEY, clock), "https://api.us.example.com", "us")
    deliverer = Deliverer(db, sender, SecretBox(_KEY), bodies, clock, DelivererSettings())
    deliverer.start()
    _ready("delivering")
    await stop.wait()
    await deliverer.stop(within_s=0.5)
    await sender.close()
    await db.close()


def _ready(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _run(what: str, *arguments: str) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await (_receive(stop) if what == "receive" else _deliver(stop, *arguments))


def main() -> None:
    """Run one of the processes until SIGTERM."""
    configure_logging(format="console", level="warning")
    uvloop.run(_run(*sys.argv[1:]))


if __name__ == "__main__":
    main()
