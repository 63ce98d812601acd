"""Whether the time of an answer tells what its text does not: is this id, or this key, somebody else's?

A generation of another account must look like one that does not exist, and a key of another region like one that exists
nowhere. Their texts are the same by test; here the times are compared. Printed and never asserted: a time is no
promise, and with enough requests any difference shows.
"""

import sys

from babysea_server.accounts import store as accounts
from babysea_server.db.cluster import Cluster
from babysea_server.db.pool import Database
from babysea_server.keys.scopes import PRESETS
from babysea_server.keys.service import issue
from bench.latency import Side, chance_of_slower, interleave, p50, p95, ratio_interval
from bench.load import http_request
from bench.servers import Site, api_server, site
from bench.settle import drain

_IDS = 400
_ABROAD = "eu"
_Latencies = dict[str, list[float]]


async def foreign(*, quick: bool) -> str:
    """Measure and return the table in Markdown.

    Raises:
        LoadError: an answer was not what it must be.
    """
    turns = 1000 if quick else 10_000
    async with site(regions=("us", _ABROAD)) as place:
        # The limit of failed authentications would answer in place of what is measured.
        (place.folder / "babysea.toml").write_text("auth_failures_per_minute = 1000000000\n")
        _say(f"making {_IDS} generations")
        await drain(place, _IDS)
        rows = await place.db.fetch("SELECT id FROM generations WHERE status = 'succeeded' LIMIT $1", _IDS)
        ids = [str(row["id"]) for row in rows]
        stranger = await _account_with_key(place.db)
        abroad = await _key_abroad(place)
        with api_server(place) as port:
            _say(f"{turns} turns of three ids, then of two keys")
            by_id = interleave(
                {
                    "missing id": Side(port, [_read(stranger, _neighbour(id)) for id in ids], 404),
                    "foreign id": Side(port, [_read(stranger, id) for id in ids], 404),
                    "own id": Side(port, [_read(place.api_key, id) for id in ids]),
                },
                turns=turns,
            )
            by_key = interleave(
                {
                    "unknown key": Side(port, [_status("bye_" + "x" * 40)], 401),
                    "key of another region": Side(port, [_status(abroad)], 401),
                },
                turns=turns,
            )
    return _table(turns, by_id, by_key)


async def _account_with_key(db: Database) -> str:
    account = await accounts.create(db, name="Stranger", plan="unlimited")
    return (await issue(db, account_id=account.id, name="bench", scopes=PRESETS["full_access"])).secret


async def _key_abroad(place: Site) -> str:
    cluster = Cluster(place.settings)
    await cluster.open()
    db = Database(cluster.dsn(_ABROAD), name="babysea-bench", size=2)
    try:
        await db.open()
        return await _account_with_key(db)
    finally:
        await db.close()
        await cluster.close()


def _neighbour(id: str) -> str:
    """An id that stands where the other stands in every index, and does not exist."""
    return id[:-4] + ("0000" if id[-4:] != "0000" else "ffff")


def _read(key: str, id: str) -> bytes:
    return http_request("GET", f"/v1/content/{id}", headers={"Authorization": f"Bearer {key}"})


def _status(key: str) -> bytes:
    return http_request("GET", "/v1/status", headers={"Authorization": f"Bearer {key}"})


def _table(turns: int, *groups: _Latencies) -> str:
    lines = [
        f"{turns:,} turns; ratio of medians to the first of its group with its 95 % interval.",
        "",
        "| asked for | p50 ms | p95 ms | ratio | interval | slower in |",
        "|---|---:|---:|---:|---|---:|",
    ]
    for group in groups:
        (first, reference), *_ = group.items()
        for name, latencies in group.items():
            row = f"| {name} | {p50(latencies):.3f} | {p95(latencies):.3f} |"
            if name == first:
                lines.append(f"{row} 1 | | |")
                continue
            ratio, low, high = ratio_interval(latencies, reference)
            slower = chance_of_slower(latencies, reference)
            lines.append(f"{row} {ratio:.3f} | {low:.3f} to {high:.3f} | {slower:.1%} |")
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stderr.write(f"bench: {text}\n")
