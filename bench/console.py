"""What a page of the console costs an account with a long past: 10,000 logged requests beside 5,000,000.

Two sites with databases of their own are asked in turns. The past of ninety days is written by SQL into the log, the
ledger and the roll-ups; then the pages are asked for through the whole application, without a socket in between, so
that what is measured is the server's time for a page, from the session's cookie to the last byte of HTML.

    python -m bench.console [--quick]
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import httpx

from babysea_server.accounts import member_store, user_store
from babysea_server.accounts.sessions import Sessions, Visitor
from babysea_server.app.api import Api
from babysea_server.app.shared import build_shared
from bench.command import tell
from bench.latency import p50, p95
from bench.servers import Site, site

_SIZES = (10_000, 5_000_000)
_QUICK_SIZES = (1_000, 100_000)
_DAYS = 90
_STEP = 250_000
_TURNS, _QUICK_TURNS = 60, 15
#: What a page may cost at most, with any number of rows.
BOUND_MS = 200.0
_ENDPOINTS = [
    "POST /v1/generate/image/{model_identifier}",
    "POST /v1/generate/video/{model_identifier}",
    "GET /v1/content/{generation_id}",
    "GET /v1/content/list",
    "GET /v1/usage",
    "GET /v1/status",
]
_OTHER_KEY = UUID(int=7)
#: Of the request whose error nobody else has: one of the first ones.
_RARE = 3

_AT = f"now() - make_interval(secs => {_DAYS * 86_400.0} * ($2::bigint - n) / $2::bigint)"
# One of twenty-five is refused, one of a thousand fails, one of all fails in its own way; one of ten thousand comes
# with another key.
_LOG = f"""
INSERT INTO request_log (at, request_id, account_id, apikey_id, method, endpoint, query, status, error_code, replayed,
                         ip_hash, user_agent, duration_us)
SELECT {_AT}, 'req_' || md5(n::text)::char(24), $4::uuid,
       CASE WHEN n % 10000 = 5 THEN '{_OTHER_KEY}' ELSE $5::uuid END,
       split_part(($6::text[])[1 + n % 6], ' ', 1), ($6::text[])[1 + n % 6],
       CASE WHEN n % 6 = 3 THEN '{{"limit": 50, "offset": 0}}'::jsonb END,
       CASE WHEN n = {_RARE} THEN 418 WHEN n % 1000 = 7 THEN 500 WHEN n % 25 = 1 THEN 429 ELSE 200 END,
       CASE WHEN n = {_RARE} THEN 'BSE0418' WHEN n % 1000 = 7 THEN 'BSE5001' WHEN n % 25 = 1 THEN 'BSE1009' END,
       n % 50 = 0, decode(md5((n % 50)::text), 'hex'), 'babysea-python/1.0',
       (1500 + 40000 * power((hashint8(n) & 1023) / 1024.0, 6))::int
FROM generate_series($1::bigint, $3::bigint) AS n"""
_LEDGER = f"""
INSERT INTO ledger (account_id, generation_id, kind, amount, balance_after, description, created_at)
SELECT $4::uuid, CASE WHEN kind <> 'add' THEN ('01000000-0000-7000-8000-' || lpad(to_hex(n / 2), 12, '0'))::uuid END,
       kind, 30000, 1000000000000 - n * 15000, 'bfl/flux-schnell', {_AT}
FROM generate_series($1::bigint, $3::bigint) AS n CROSS JOIN LATERAL (
    SELECT (CASE WHEN n % 2000 = 1 THEN 'add' WHEN n % 2 = 0 THEN 'reserve' ELSE 'charge' END)::ledger_kind AS kind
) AS k"""
# As the workers keep them: what is over for nine days stands at the beginning of its day.
_HOUR = """CASE WHEN at < date_trunc('day', now() - interval '9 days', 'UTC') THEN date_trunc('day', at, 'UTC')
           ELSE date_trunc('hour', at, 'UTC') END"""
_ROLL_UPS = (
    """INSERT INTO usage_hourly (account_id, hour, endpoint, status_class, error_code, requests, replays, duration_us)
       SELECT account_id, date_trunc('hour', at, 'UTC'), endpoint, status / 100, coalesce(error_code, ''), count(*), 0,
              sum(duration_us) FROM request_log GROUP BY 1, 2, 3, 4, 5""",
    """INSERT INTO usage_daily (account_id, day, endpoint, status_class, error_code, requests, replays)
       SELECT account_id, (at AT TIME ZONE 'UTC')::date, endpoint, status / 100, coalesce(error_code, ''), count(*), 0
       FROM request_log GROUP BY 1, 2, 3, 4, 5""",
    f"""INSERT INTO usage_latency (account_id, hour, endpoint, bucket, requests)
       SELECT account_id, {_HOUR}, endpoint, latency_bucket_v1(duration_us), count(*)
       FROM request_log GROUP BY 1, 2, 3, 4""",
    f"""INSERT INTO usage_keys (account_id, hour, apikey_id, status_class, requests)
       SELECT account_id, {_HOUR}, apikey_id, status / 100, count(*)
       FROM request_log GROUP BY 1, 2, 3, 4""",
    # Generations of twelve models at three providers in every hour.
    """INSERT INTO usage_generations (account_id, hour, model, provider, status, error_code, generations, charged,
                                      total_ms)
       SELECT account_id, hour, 'vendor/model-' || model, CASE status WHEN 'succeeded' THEN provider ELSE '' END,
              status::generation_status, CASE status WHEN 'failed' THEN 'BSE5002' ELSE '' END, 5, 150000, 9000
       FROM (SELECT DISTINCT account_id, hour FROM usage_latency) AS h
       CROSS JOIN generate_series(1, 12) AS model CROSS JOIN (VALUES
           ('fal', 'succeeded'), ('bfl', 'succeeded'), ('replicate', 'succeeded'), ('', 'failed'), ('', 'canceled')
       ) AS v (provider, status)""",
    """INSERT INTO usage_failovers (account_id, hour, provider, next_provider, reason, failovers)
       SELECT DISTINCT account_id, hour, 'bfl', 'fal', 'refused_busy', 1 FROM usage_latency""",
)
_PAGES: Mapping[str, str] = {
    "Metrics, 24 hours": "/metrics?period=24h",
    "Metrics, 7 days": "/metrics?period=7d",
    "Metrics, 30 days": "/metrics?period=30d",
    "Metrics, 90 days": "/metrics?period=90d",
    "Logs, newest": "/logs",
    "Logs, 100 a page, oldest first": "/logs?size=100&sort=time",
    "Logs, after half of them": "/logs?after={middle}",
    "Logs, 5xx": "/logs?status=5",
    "Logs, an endpoint": "/logs?endpoint=GET /v1/usage",
    "Logs, another key": f"/logs?key={_OTHER_KEY}",
    "Logs, another key and 5xx": f"/logs?key={_OTHER_KEY}&status=5",
    "Logs, the only one of its code": "/logs?code=BSE0418",
    "Logs, a code that nobody got": "/logs?code=BSE9999",
    "Logs, a request by its id": "/logs?q={request}",
    "Credits": "/credits",
    "Credits, balance over 90 days": "/credits?period=90d",
    "Credits, additions": "/credits?type=add",
    "Credits, refunds (none)": "/credits?type=refund",
    "Credits, after half of them": "/credits?after={entry}",
    "API keys": "/api-keys",
    "Export of 10,000 requests": "/logs/export.csv",
}


@dataclass(frozen=True, slots=True)
class _Side:
    """One site, its console, and somebody who is signed in."""

    site: Site
    http: httpx.AsyncClient
    base: str
    places: Mapping[str, str]

    async def seconds(self, path: str) -> float:
        """How long the page takes."""
        url = self.base + path.format(**self.places)
        started = time.perf_counter()
        response = await self.http.get(url)
        seconds = time.perf_counter() - started
        if response.status_code != 200:
            raise RuntimeError(f"{url} was answered {response.status_code}")
        return seconds


async def console(*, quick: bool) -> str:
    """Measure and return the table in Markdown; takes about ten minutes and 5 GB of disk, one when quick.

    Raises:
        RuntimeError: a page was not answered 200.
    """
    sizes = _QUICK_SIZES if quick else _SIZES
    async with AsyncExitStack() as stack:
        sides = []
        for size in sizes:
            place = await stack.enter_async_context(site())
            _say(f"writing {size:,} requests and as many rows of the ledger")
            started = time.monotonic()
            await _write(place, size)
            _say(f"took {time.monotonic() - started:.0f} s")
            sides.append(await _open(stack, place, size))
        lines = [
            f"| page: p50 / p95 ms | {sizes[0]:,} | {sizes[1]:,} | ratio of p50 | p95 within {BOUND_MS:.0f} ms |",
            "|---|---:|---:|---:|---|",
        ]
        for name, path in _PAGES.items():
            _say(name)
            small, large = await _measure(sides, path, _QUICK_TURNS if quick else _TURNS)
            within = "(a file)" if "export" in path else "yes" if p95(large) * 1000 <= BOUND_MS else "**no**"
            lines.append(
                f"| {name} | {_shown(small)} | {_shown(large)} | **{p50(large) / p50(small):.2f}** | {within} |"
            )
    return "\n".join(lines)


async def _write(place: Site, size: int) -> None:
    connection = await asyncpg.connect(place.db.dsn)
    try:
        await connection.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        for day in range(_DAYS + 1):
            await connection.execute(
                "SELECT make_request_log_day_v1((now() AT TIME ZONE 'UTC')::date - $1::int)", day
            )
        async with connection.transaction():  # one, so that `now()` stands still
            for first in range(1, size + 1, _STEP):
                steps = (first, size, min(first + _STEP - 1, size))
                key = (place.account_id, place.apikey_id, _ENDPOINTS)
                await connection.execute(_LOG, *steps, *key, timeout=600)
                await connection.execute(_LEDGER, *steps, place.account_id, timeout=600)
            for statement in _ROLL_UPS:
                await connection.execute(statement, timeout=600)
        await connection.execute("VACUUM (ANALYZE)", timeout=1200)
    finally:
        await connection.close()


async def _open(stack: AsyncExitStack, place: Site, size: int) -> _Side:
    api = Api(build_shared(place.settings), {"us": place.db.dsn})
    await api.open()
    stack.push_async_callback(api.close)
    user = await user_store.insert(place.db, email="bench@example.com", name="Bench", password=None)
    if user is None:
        raise RuntimeError("there is a user already")
    await member_store.add(place.db, place.account_id, user.id, "primary-owner")
    token = await Sessions(place.db).begin(user.id, Visitor("bench", "0123456789ab"))
    slug = await place.db.fetchval("SELECT slug FROM accounts WHERE id = $1", place.account_id)
    transport = httpx.ASGITransport(app=api)
    http = await stack.enter_async_context(
        httpx.AsyncClient(
            transport=transport, base_url="http://localhost", cookies={"babysea-us": token}, timeout=60
        )
    )
    middle = await place.db.fetchrow(
        f"""SELECT (extract(epoch FROM at) * 1000000)::bigint AS at, request_id FROM request_log
            WHERE at > now() - interval '{_DAYS / 2} days' ORDER BY at LIMIT 1"""
    )
    entry = await place.db.fetchval("SELECT max(id) FROM ledger") - size // 2
    places = {
        "middle": f"{middle['at']}.{middle['request_id']}",
        "request": middle["request_id"],
        "entry": str(entry),
    }
    return _Side(place, http, f"/console/us/{slug}", places)


async def _measure(sides: Sequence[_Side], path: str, turns: int) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(-3, turns):  # the first ones warm up
        for side, mine in zip(sides, times, strict=True):
            seconds = await side.seconds(path)
            if turn >= 0:
                mine.append(seconds)
    return times


def _shown(seconds: Sequence[float]) -> str:
    return f"{p50(seconds) * 1000:.1f} / {p95(seconds) * 1000:.1f}"


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")


def main() -> int:
    """Parse the arguments and run; 1 when a page was refused."""
    parser = argparse.ArgumentParser(prog="python -m bench.console", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small past and few turns")
    given = parser.parse_args()
    return tell(console(quick=given.quick))


if __name__ == "__main__":
    sys.exit(main())
