"""What must hold when everything is over, asked of the database, the outside, the API and the processes."""

import asyncio
import base64
import hashlib
import hmac
import io
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from PIL import Image
from tests.chaos.load import MARK, Customers, Outcome
from tests.chaos.outside import Seen, SeenMessage
from tests.chaos.topology import Customer, Topology

from babysea_server.kit.money import MICROS_PER_CREDIT

#: A generation whose run crashed again and again is put back for up to a minute.
_SETTLES_S = 180.0
_LOOK_EVERY_S = 0.5
_READERS = 16
_SHOWN = 5
#: Final states and the events that tell of them.
_EVENT_OF = {
    "succeeded": "generation.completed",
    "failed": "generation.failed",
    "canceled": "generation.canceled",
}
#: A failed generation is refunded, and may have failed for these reasons; no customer did anything wrong.
_MAY_FAIL = {
    *("BSE4001", "BSE4002", "BSE4003", "BSE4004", "BSE4006", "BSE4009", "BSE4010", "BSE4011", "BSE5003"),
}
#: At least this share of what was not canceled must have been made all the same, or nothing was proved.
_SUCCEED_SHARE = 0.25
_FINAL = ("succeeded", "failed", "canceled")


@dataclass
class Audit:
    """What was found and what was counted."""

    breaches: list[str] = field(default_factory=list)
    counted: dict[str, Any] = field(default_factory=dict)

    def breach(self, promise: str, found: Sequence[Any]) -> None:
        """A promise is broken by all of these; nothing is when there are none."""
        if found:
            shown = "; ".join(str(each) for each in found[:_SHOWN])
            more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
            self.breaches.append(f"{promise}: {shown}{more}")


_FORWARD = """
UPDATE webhook_deliveries SET due_at = now()
WHERE state = 'pending' AND worker_id IS NULL AND due_at > now() + interval '15 s' AND due_at < 'infinity' RETURNING id
"""


async def settle(topology: Topology, audit: Audit) -> None:
    """Wait until no generation and no delivery is in flight.

    A delivery that failed five times would be tried again in ten minutes, which is no fault: its time is made to come.
    """
    clock = topology.clock
    forward = await topology.query(_FORWARD)
    audit.counted["deliveries brought forward"] = len(forward)
    began = clock.monotonic()
    while True:
        [row] = await topology.query(
            """SELECT (SELECT count(*) FROM generations WHERE status IN ('pending', 'processing')) AS generations,
                      (SELECT count(*) FROM webhook_deliveries WHERE state = 'pending') AS deliveries"""
        )
        waited = clock.monotonic() - began
        audit.counted["seconds until all was settled"] = round(waited, 1)
        if not row["generations"] and not row["deliveries"]:
            return
        if waited > _SETTLES_S:
            audit.breach(f"everything is settled {_SETTLES_S:.0f} s after the last fault", [dict(row)])
            return
        await clock.sleep(_LOOK_EVERY_S)


async def generations(topology: Topology, outcome: Outcome, audit: Audit) -> dict[str, Any]:
    """What was acknowledged is final, and nothing else is there; returns all generations by id."""
    rows = {
        str(row["id"]): row
        for row in await topology.query(
            """SELECT id, status::text, error_code, provider_used, jsonb_array_length(outputs) AS files
               FROM generations"""
        )
    }
    keys = {
        row["key"]: str(row["generation_id"])
        for row in await topology.query("SELECT key, generation_id FROM idempotency_keys")
    }
    states = Counter(row["status"] for row in rows.values())
    codes = Counter(row["error_code"] for row in rows.values() if row["status"] == "failed")
    audit.counted["generations by state"] = dict(states)
    audit.counted["failed by code"] = dict(codes)
    missing = [key for key, id in outcome.accepted.items() if id not in rows]
    audit.breach("what was acknowledged exists", missing)
    audit.breach("what exists was sent", [key for key in keys if key not in outcome.sent])
    audit.breach("a key has the generation that was told", _different(keys, outcome.accepted))
    audit.breach("every generation has its key", [id for id in rows if id not in set(keys.values())])
    unfinished = [id for id, row in rows.items() if row["status"] not in _FINAL]
    audit.breach("every generation is final", unfinished)
    alive = [id for id in outcome.canceled if id in rows and rows[id]["status"] != "canceled"]
    audit.breach("what was canceled stays so", alive)
    audit.breach("failures have a reason that a fault explains", sorted(codes.keys() - _MAY_FAIL))
    wanted = len(rows) - states["canceled"]
    if states["succeeded"] < _SUCCEED_SHARE * wanted:
        audit.breach("most generations succeed all the same", [f"{states['succeeded']} of {wanted}"])
    return rows


def _different(keys: dict[str, str], told: dict[str, str]) -> list[str]:
    return [key for key, id in told.items() if keys.get(key) not in (None, id)]


async def money(topology: Topology, customer: Customer, audit: Audit) -> None:
    """The books are clean, and the balance is what was bought less what was charged."""
    verified = await topology.cli("ledger", "verify", "--region", "us")
    audit.breach("ledger verify is clean", verified["differences"])
    [row] = await topology.query(
        """SELECT credit_balance AS balance,
                  (SELECT coalesce(sum(charged), 0)::bigint FROM generations WHERE account_id = a.id) AS charged
           FROM accounts a WHERE id = $1""",
        customer.account_id,
    )
    expected = customer.credits * MICROS_PER_CREDIT - row["charged"]
    if row["balance"] != expected:
        audit.breach(
            "the balance is what was added less what was charged", [f"{row['balance']}, not {expected}"]
        )


# ----------------------------------------------------------------------------------------- webhooks


def webhooks(seen: Seen, rows: Mapping[str, Any], secrets: Mapping[str, str], audit: Audit) -> None:
    """For every generation and endpoint one message of its end, delivered, signed, and true.

    Args:
        rows: the generations by id.
        secrets: of the endpoints by name.
    """
    taken: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    told: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    unsigned, untrue, bodies = [], [], defaultdict(set)
    for message in seen.messages:
        body = base64.b64decode(message.body)
        said = json.loads(body)
        data, event, id = said["webhook_data"], said["webhook_event"], message.headers["webhook-id"]
        if not _is_signed(message, body, secrets[message.endpoint]):
            unsigned.append(id)
        place = message.endpoint, event, data["generation_id"]
        told[place].add(id)
        bodies[id].add(body)
        if message.taken:
            taken[place].add(id)
        if event != "generation.started" and not _is_true(event, data, rows.get(data["generation_id"])):
            untrue.append(id)
    due = {
        (endpoint, _EVENT_OF[row["status"]], id)
        for endpoint in secrets
        for id, row in rows.items()
        if row["status"] in _EVENT_OF
    }
    ends = {place for place in told if place[1] != "generation.started"}
    audit.breach("every end is told to every endpoint", sorted(due - set(taken)))
    audit.breach("no end is told that did not happen", sorted(ends - due))
    audit.breach("every end is told under one id", [place for place, ids in told.items() if len(ids) > 1])
    audit.breach("a message is the same in every attempt", [id for id, all in bodies.items() if len(all) > 1])
    audit.breach("every message is signed", unsigned)
    audit.breach("every message says what the row says", untrue)
    audit.counted["webhooks"] = {
        "messages": len(bodies),
        "arrivals": len(seen.messages),
        "taken": sum(message.taken for message in seen.messages),
    }


def _is_signed(message: SeenMessage, body: bytes, secret: str) -> bool:
    """Standard Webhooks, and BabySea's own, worked out here and not by the server's code."""
    headers = message.headers
    stamp = headers["webhook-timestamp"]
    signed = f"{headers['webhook-id']}.{stamp}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    standard = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    own = hmac.digest(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hex()
    return (
        headers["webhook-signature"] == f"v1,{standard}"
        and headers["x-babysea-signature"] == f"t={stamp},v1={own}"
    )


def _is_true(event: str, data: dict[str, Any], row: Any) -> bool:
    if row is None or _EVENT_OF.get(row["status"]) != event or data["generation_status"] != row["status"]:
        return False
    match row["status"]:
        case "succeeded":
            said = len(data["generation_output_file"]), str(data["generation_provider_used"])
            return bool(said == (row["files"], row["provider_used"]))
        case "failed":
            return bool(data["generation_error_code"] == row["error_code"])
    return True


# ----------------------------------------------------------------------------------------- upstream


ATTEMPTS = """
SELECT k.key, a.provider, a.upstream_id, a.outcome::text, a.failure::text, a.error_message, a.attempt_order,
       max(a.attempt_order) OVER (PARTITION BY a.generation_id) AS last, g.status::text AS ended
FROM attempts a JOIN idempotency_keys k USING (generation_id) JOIN generations g ON g.id = generation_id
"""


def upstream(rows: Sequence[Mapping[str, Any]], seen: Seen, audit: Audit) -> None:
    """No job was bought twice, none is without a generation, and what is nobody's has a reason.

    Args:
        rows: of `ATTEMPTS`.
    """
    attempts = {(row["provider"], row["key"]): row for row in rows}
    unknown_and_on = [
        row["key"]
        for row in rows
        if row["failure"] == "outcome_unknown" and row["attempt_order"] != row["last"]
    ]
    bought = Counter((job.provider, job.prompt.removeprefix(f"{MARK} ")) for job in seen.jobs)
    ids = {(job.provider, job.id) for job in seen.jobs}
    audit.breach("no job is bought twice", [place for place, count in bought.items() if count > 1])
    audit.breach("no job is without an attempt", [place for place in bought if place not in attempts])
    audit.breach("after an unknown outcome nobody else is asked", unknown_and_on)
    used = [row for row in attempts.values() if row["outcome"] == "used"]
    invented = [row["key"] for row in used if (row["provider"], row["upstream_id"]) not in ids]
    audit.breach("every success comes from a job", invented)
    reasons: Counter[str] = Counter()
    unexplained = []
    for job in seen.jobs:
        row = attempts.get((job.provider, job.prompt.removeprefix(f"{MARK} ")))
        if row is None or row["upstream_id"] == job.id:
            continue
        reasons[row["failure"] or row["outcome"]] += 1
        if not _may_be_lost(row):
            unexplained.append(f"{job.provider} {row['key']} {row['outcome']} {row['failure']}")
    audit.breach("a job whose id is not known has lost its answer", unexplained)
    audit.counted["upstream jobs"] = {"all": len(seen.jobs), "ids never learnt, by end": dict(reasons)}
    audit.counted["unknown outcomes by reason"] = dict(
        Counter(str(row["error_message"]) for row in rows if row["failure"] == "outcome_unknown")
    )
    audit.counted["attempts"] = dict(
        Counter(f"{row['provider']} {row['failure'] or row['outcome']}" for row in attempts.values())
    )


def _may_be_lost(row: Any) -> bool:
    """Whether the id of the attempt's job may be unknown for good.

    The answer was lost, and the customer was told so and not charged; or the customer canceled while the job was being
    bought, and whoever bought it died: that attempt is ended in a minute or two.
    """
    if row["failure"] == "outcome_unknown" or row["outcome"] in ("discarded", "cancelled"):
        return True
    return bool(row["outcome"] == "pending" and row["ended"] == "canceled")


# ----------------------------------------------------------------------------------------- outputs


async def outputs(customers: Customers, base: str, rows: dict[str, Any], audit: Audit) -> None:
    """Every output that was charged for can be had and is a picture."""
    succeeded = [id for id, row in rows.items() if row["status"] == "succeeded"]
    waiting = iter(succeeded)
    lost: list[str] = []
    files = 0

    async def reader(session: aiohttp.ClientSession) -> None:
        nonlocal files
        for id in waiting:
            answer = await customers.ask("GET", f"{base}/v1/content/{id}")
            links = answer.body["data"]["generation_output_file"] if answer.status == 200 else None
            if not links:
                lost.append(f"{id} has no links: {answer}")
            for link in links or ():
                async with session.get(link) as response:
                    if response.status == 200 and _is_picture(await response.read()):
                        files += 1
                    else:
                        lost.append(f"{id}: {response.status}")

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(_READERS):
            group.create_task(reader(session))
    audit.breach("every output can be had", lost)
    audit.counted["output files read"] = files


def _is_picture(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except OSError:
        return False
    return True
