"""The auditor: an account of what must be, kept apart from the code that decides.

It sees the rows of each step that was committed, what customers were told, what providers were sent, and nothing
of the server's own types. What it finds is a breach: one sentence. Numbers in brackets are those of the design's
invariants.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.simulation.database import Executed
from tests.simulation.loop import Process

FINAL = frozenset({"succeeded", "failed", "canceled"})
_NEXT = {
    "pending": {"pending", "processing", *FINAL},
    "processing": {"processing", *FINAL},
}
_EVENTS = {
    "processing": "generation.started",
    "succeeded": "generation.completed",
    "failed": "generation.failed",
    "canceled": "generation.canceled",
}
_ENDINGS = frozenset({"generation.completed", "generation.failed", "generation.canceled"})

#: Columns of each table that are looked at.
_READ = {
    "accounts": "id, credit_balance, generations_total",
    "generations": """id, account_id, status, reserved, charged, refunded, fence, worker_id, provider_used,
        prediction_id, expires_at, coalesce(jsonb_path_query_array(outputs, '$[*].key'), '[]') AS files""",
    "ledger": "id, account_id, generation_id, kind, amount, balance_after",
    "attempts": "id, generation_id, attempt_order, provider, outcome, upstream_id, failure",
    "idempotency_keys": "account_id, key, generation_id",
    "webhook_endpoints": "id, account_id, url, events, state",
    "webhook_messages": "id, account_id, generation_id, event",
    "webhook_deliveries": "id, message_id, endpoint_id, state, attempts, fence, worker_id, replay_of",
    "workers": "id, lease_until",
}
#: The rows that transactions from `$1` on wrote, and how many rows there are.
QUERY = (
    " UNION ALL ".join(
        f"SELECT '{table}', to_jsonb(r) FROM (SELECT {columns} FROM {table} WHERE xmin::text::bigint >= $1) AS r"
        for table, columns in _READ.items()
    )
    + """ UNION ALL SELECT 'ledger rows', to_jsonb((SELECT count(*) FROM ledger))
    UNION ALL SELECT 'left', coalesce((SELECT jsonb_agg(id) FROM generations), '[]')"""
)

Row = dict[str, Any]


@dataclass
class Auditor:
    """See the module.

    Args:
        breach: is told what must not be.
        limits: how many generations each account may have in flight.
    """

    breach: Callable[[str], None]
    limits: dict[str, int | None] = field(default_factory=dict)
    generations: dict[str, Row] = field(default_factory=dict)
    attempts: dict[str, Row] = field(default_factory=dict)
    ledger: dict[int, Row] = field(default_factory=dict)
    money: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """By generation: what its ledger rows say."""
    balances: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    endpoints: dict[str, Row] = field(default_factory=dict)
    messages: dict[str, Row] = field(default_factory=dict)
    told: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    """By generation and event: its messages."""
    deliveries: dict[str, Row] = field(default_factory=dict)
    sent: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By message: its deliveries that are no replays."""
    workers: dict[str, Process | None] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    bought: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    accepted_ids: dict[str, str] = field(default_factory=dict)
    by_key: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    canceled_ids: set[str] = field(default_factory=set)
    may_be_deleted: set[str] = field(default_factory=set)
    deleted_ids: set[str] = field(default_factory=set)

    # ------------------------------------------------------------------------------- each step

    def step(self, rows: Sequence[Any], executed: Executed) -> None:
        """Look at what one statement has written."""
        new: dict[str, list[Any]] = defaultdict(list)
        for table, row in rows:
            new[table].append(row)
        for row in new["workers"]:
            self.workers.setdefault(row["id"], executed.process)
        self._rows(new, self._speaker(executed))
        if new["ledger rows"] != [len(self.ledger)]:
            self.breach(f"the ledger has {new['ledger rows']} rows of {len(self.ledger)}")
        self._gone(set(new["left"][0]))

    def _rows(self, new: dict[str, list[Any]], speaker: str | None) -> None:
        touched = {row["generation_id"]: None for row in new["ledger"] if row["generation_id"]}
        for row in new["ledger"]:
            self._enter(row)
        self.endpoints.update((row["id"], row) for row in new["webhook_endpoints"])
        for row in new["webhook_messages"]:
            self._message(row)
        for row in new["webhook_deliveries"]:
            self._delivery(row, speaker)
        for row in new["attempts"]:
            self._attempt(row, speaker)
        for row in new["generations"]:
            self._generation(row, speaker)
            touched[row["id"]] = None
        for id in touched:
            self._books(id)
        for row in new["accounts"]:
            self._balance(row)
        for row in new["idempotency_keys"]:
            self._key(row)

    def _speaker(self, executed: Executed) -> str | None:
        """The worker in whose name the statement was sent."""
        for value in executed.arguments:
            if isinstance(value, UUID) and str(value) in self.workers:
                return str(value)
        return None

    def _enter(self, row: Row) -> None:
        if row["id"] in self.ledger:
            if self.ledger[row["id"]] != row:
                self.breach(f"ledger row {row['id']} changed")
            return
        self.ledger[row["id"]] = row
        kind, amount, generation = row["kind"], row["amount"], row["generation_id"]
        self.balances[row["account_id"]] += {
            "add": amount,
            "refund": amount,
            "reserve": -amount,
            "charge": 0,
        }[kind]
        if self.balances[row["account_id"]] < 0:
            self.breach(f"[1] a balance is below zero by ledger row {row['id']}")
        if generation is not None:
            if kind in self.money[generation]:
                self.breach(f"[3] a second {kind} of {generation}")
            self.money[generation][kind] = amount

    def _balance(self, row: Row) -> None:
        if row["credit_balance"] < 0:
            self.breach(f"[1] the balance of {row['id']} is {row['credit_balance']}")
        if row["credit_balance"] != self.balances[row["id"]]:
            self.breach(
                f"[2] the balance of {row['id']} is {row['credit_balance']}, adds - reserves + refunds are "
                f"{self.balances[row['id']]}"
            )

    def _generation(self, row: Row, speaker: str | None) -> None:
        id, was = row["id"], self.generations.get(row["id"])
        self.generations[id] = row
        if was is None:
            if row["status"] != "pending":
                self.breach(f"{id} began as {row['status']}")
            return self._in_flight(row["account_id"])
        if was["status"] in FINAL:
            if {**was, "files": None} != {**row, "files": None}:
                self.breach(f"{id} changed after its end: {_changes(was, row)}")
            return None
        if row["status"] not in _NEXT[was["status"]]:
            self.breach(f"{id} went from {was['status']} to {row['status']}")
        if row["fence"] < was["fence"]:
            self.breach(f"the fence of {id} went back from {was['fence']} to {row['fence']}")
        moved = row["status"] != was["status"]
        claimed = (
            row["worker_id"] == speaker and row["fence"] == was["fence"] + 1 and was["worker_id"] is None
        )
        if speaker is not None and not claimed and was["worker_id"] != speaker:
            self.breach(
                f"worker {speaker} changed {id}, which {was['worker_id']} holds: {_changes(was, row)}"
            )
        if moved:
            self._transition(row)
        return None

    def _transition(self, row: Row) -> None:
        """Whoever listens is told of it, once."""
        id, event = row["id"], _EVENTS[row["status"]]
        listening = {
            endpoint["id"]
            for endpoint in self.endpoints.values()
            if endpoint["account_id"] == row["account_id"] and event in endpoint["events"]
        }
        messages = self.told[id, event]
        if len(messages) != bool(listening):
            self.breach(f"[8] {event} of {id} has {len(messages)} messages for {len(listening)} endpoints")
        for message in messages:
            heard = [self.deliveries[delivery]["endpoint_id"] for delivery in self.sent[message]]
            if sorted(heard) != sorted(listening):
                self.breach(f"[8] {event} of {id} goes to {len(heard)} of {len(listening)} endpoints")
        if row["status"] in FINAL:
            told = [other for other in _ENDINGS if self.told.get((id, other))]
            if len(told) > 1:
                self.breach(f"[8] the end of {id} was told as {told}")

    def _books(self, id: str) -> None:
        """A generation's money as its row and the ledger have it."""
        row, money = self.generations.get(id), self.money[id]
        if row is None:
            if id not in self.removed:
                self.breach(f"the ledger names {id}, which there is not")
            return
        reserve, charge, refund = (money.get(kind, 0) for kind in ("reserve", "charge", "refund"))
        if (row["reserved"], row["charged"], row["refunded"]) != (reserve, charge, refund):
            self.breach(
                f"[3] {id} says {row['reserved']}/{row['charged']}/{row['refunded']}, the ledger "
                f"{reserve}/{charge}/{refund}"
            )
        match row["status"]:
            case "pending" | "processing":
                if charge or refund:
                    self.breach(f"[4] {id} is {row['status']} with charge {charge}, refund {refund}")
            case "succeeded":
                if charge + refund != reserve or not charge:
                    self.breach(f"[4] {id} succeeded: reserve {reserve}, charge {charge}, refund {refund}")
            case _:
                if charge or refund != reserve:
                    self.breach(
                        f"[4] {id} {row['status']}: reserve {reserve}, charge {charge}, refund {refund}"
                    )

    def _attempt(self, row: Row, speaker: str | None) -> None:
        was = self.attempts.get(row["id"])
        self.attempts[row["id"]] = row
        generation = self.generations.get(row["generation_id"])
        if was is None:
            if generation is None or generation["worker_id"] != speaker:
                self.breach(
                    f"worker {speaker} opened an attempt of {row['generation_id']}, which it does not hold"
                )
            return
        if was["upstream_id"] is not None and row["upstream_id"] != was["upstream_id"]:
            self.breach(f"the upstream id of attempt {row['id']} changed")
        if was["outcome"] != "pending" and row["outcome"] != was["outcome"]:
            self.breach(f"attempt {row['id']} was {was['outcome']} and became {row['outcome']}")

    def _key(self, row: Row) -> None:
        name = row["account_id"], row["key"]
        known = self.keys.setdefault(name, row["generation_id"])
        if known != row["generation_id"]:
            self.breach(f"[6] key {name} stands for {known} and for {row['generation_id']}")

    def _message(self, row: Row) -> None:
        self.messages[row["id"]] = row
        if (
            row["generation_id"] is not None
            and row["id"] not in self.told[row["generation_id"], row["event"]]
        ):
            self.told[row["generation_id"], row["event"]].append(row["id"])

    def _delivery(self, row: Row, speaker: str | None) -> None:
        was = self.deliveries.get(row["id"])
        self.deliveries[row["id"]] = row
        if was is None:
            if row["replay_of"] is None:
                self.sent[row["message_id"]].append(row["id"])
            return
        if was["state"] != "pending" and (row["state"], row["attempts"]) != (was["state"], was["attempts"]):
            self.breach(f"delivery {row['id']} changed after its end: {_changes(was, row)}")
        if row["fence"] < was["fence"]:
            self.breach(f"the fence of delivery {row['id']} went back")
        if row["attempts"] not in (was["attempts"], was["attempts"] + 1):
            self.breach(f"delivery {row['id']} counts {was['attempts']} tries, then {row['attempts']}")
        claimed = (
            row["worker_id"] == speaker and row["fence"] == was["fence"] + 1 and was["worker_id"] is None
        )
        if speaker is not None and not claimed and was["worker_id"] != speaker:
            self.breach(f"worker {speaker} changed delivery {row['id']}, which {was['worker_id']} holds")

    def _gone(self, left: set[str]) -> None:
        if len(left) == len(self.generations):
            return
        for id in [id for id in self.generations if id not in left]:
            row = self.generations.pop(id)
            self.removed.add(id)
            if row["status"] not in FINAL:
                self.breach(f"[5] {id} was {row['status']} and is gone")
            if id not in self.may_be_deleted:
                self.breach(f"[5] {id} is gone and nobody asked for it")

    def _in_flight(self, account_id: str) -> None:
        limit = self.limits.get(account_id)
        if limit is None:
            return
        running = sum(
            row["account_id"] == account_id and row["status"] not in FINAL
            for row in self.generations.values()
        )
        if running > limit:
            self.breach(f"[9] {running} generations of {account_id} are in flight, its plan allows {limit}")

    # ------------------------------------------------------------------------------- providers and customers

    def sending(self, process: Process, attempt_id: UUID) -> None:
        """A process submits: only what it holds, and has noted before."""
        attempt = self.attempts.get(str(attempt_id))
        if attempt is None:
            return self.breach(f"{process.name} submits attempt {attempt_id}, which is written nowhere")
        if attempt["upstream_id"] is not None:
            self.breach(f"[7] {process.name} submits attempt {attempt_id}, whose upstream id is known")
        generation = self.generations.get(attempt["generation_id"])
        # Between its lease and the provider the generation may end (canceled), but nobody else may get it.
        holder = None if generation is None else generation["worker_id"]
        if holder is not None and self.workers.get(holder) is not process:
            self.breach(f"{process.name} submits attempt {attempt_id} of a generation that {holder} holds")
        return None

    def buys(self, attempt_id: UUID, provider: str) -> None:
        """A provider has taken a job for this attempt."""
        self.bought[str(attempt_id)].append(provider)
        if len(self.bought[str(attempt_id)]) > 1:
            self.breach(f"[7] attempt {attempt_id} was bought {len(self.bought[str(attempt_id)])} times")

    def accepted(self, account_id: UUID, key: str | None, body: str, generation_id: UUID) -> None:
        """A customer got a 2xx for a request."""
        id = str(generation_id)
        if id not in self.generations and id not in self.removed:
            self.breach(f"[5] {id} was accepted and is not there")
        self.accepted_ids[id] = body
        if key is not None:
            known = self.by_key.setdefault((str(account_id), key), (id, body))
            if known != (id, body):
                self.breach(f"[6] key {key} of {account_id} stands for {known[0]} and for {id}")

    def canceled(self, generation_id: UUID) -> None:
        """A customer was told that it is canceled."""
        self.canceled_ids.add(str(generation_id))

    def asked_to_delete(self, generation_id: UUID) -> None:
        """A customer is about to delete it."""
        self.may_be_deleted.add(str(generation_id))

    def deleted(self, generation_id: UUID) -> None:
        """A customer was told that it is deleted."""
        self.deleted_ids.add(str(generation_id))

    # ------------------------------------------------------------------------------- the end

    @property
    def at_rest(self) -> bool:
        """Whether everything is as it will stay."""
        return (
            all(row["status"] in FINAL for row in self.generations.values())
            and all(row["outcome"] != "pending" for row in self.attempts.values())
            and all(row["state"] != "pending" for row in self.deliveries.values())
        )

    def close(self, objects: set[str], acknowledged: Callable[[str], bool]) -> None:
        """When time has run on without faults: everything has its end.

        Args:
            objects: keys of the stored files.
            acknowledged: whether a delivery's receiver said that it has it.
        """
        for id in self.accepted_ids:
            if id not in self.generations and id not in self.may_be_deleted:
                self.breach(f"[5] {id} was accepted and is gone")
        for id in self.deleted_ids & self.generations.keys():
            self.breach(f"{id} was deleted and is still there")
        for id, row in self.generations.items():
            if row["status"] not in FINAL:
                self.breach(f"[5] {id} is {row['status']} for ever")
            if id in self.canceled_ids and row["status"] != "canceled":
                self.breach(f"{id} was canceled and is {row['status']}")
            for key in row["files"]:
                if key not in objects:
                    self.breach(f"{id} names a file that is not there")
        self._close_attempts()
        self._close_deliveries(acknowledged)

    def _close_deliveries(self, acknowledged: Callable[[str], bool]) -> None:
        for id, row in self.deliveries.items():
            if row["state"] == "pending":
                self.breach(f"[8] delivery {id} is pending for ever, after {row['attempts']} tries")
            if row["state"] == "delivered" and not acknowledged(id):
                self.breach(f"[8] delivery {id} counts as delivered and nobody acknowledged it")
            if row["state"] == "failed" and row["attempts"] < 9:
                self.breach(f"[8] delivery {id} was given up after {row['attempts']} tries")

    def _close_attempts(self) -> None:
        ended: dict[str, list[Row]] = defaultdict(list)
        for id, row in self.attempts.items():
            ended[row["generation_id"]].append(row)
            if row["outcome"] == "pending":
                self.breach(f"attempt {id} is open for ever")
        for id, rows in ended.items():
            rows.sort(key=lambda row: row["attempt_order"])
            if any(row["failure"] in ("outcome_unknown", "refused_policy") for row in rows[:-1]):
                self.breach(f"{id} was bought again after {rows[-2]['failure']}")
            used = [row for row in rows if row["outcome"] == "used"]
            generation = self.generations.get(id)
            if generation is not None and len(used) != (generation["status"] == "succeeded"):
                self.breach(f"{id} is {generation['status']} with {len(used)} used attempts")
            if generation is not None and used and used[0]["provider"] != generation["provider_used"]:
                self.breach(f"{id} names {generation['provider_used']} and used {used[0]['provider']}")
        for id, row in self.generations.items():
            if row["status"] == "succeeded" and not any(a["id"] in self.bought for a in ended[id]):
                self.breach(f"{id} succeeded and nothing was bought for it")


def _changes(was: Row, row: Row) -> str:
    return ", ".join(f"{name} {was[name]} -> {row[name]}" for name in row if row[name] != was[name])
