"""Admission as it is promised, written a second time in plain Python: one account after the other, one request
after the other, no arrays and no locks. What the database does is compared with this."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID


@dataclass(frozen=True)
class Ask:
    """One request for admission. `cost` in micro-credits; `limit` in generations in flight."""

    generation_id: UUID
    prediction_id: UUID
    account_id: UUID
    cost: int
    limit: int | None = None
    key: str | None = None
    fingerprint: bytes = b""
    model: str = "sandbox/image"
    media: str = "image"
    order: tuple[str, ...] = ("sandbox",)
    inputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """How a request is decided; `balance` is what is left after it, `in_flight` what was there before it."""

    result: str
    generation_id: UUID | None = None
    status: str | None = None
    balance: int | None = None
    in_flight: int | None = None


@dataclass
class Kept:
    """A generation as the model keeps it."""

    ask: Ask
    status: str = "pending"
    charged: int = 0
    refunded: int = 0

    @property
    def running(self) -> bool:
        return self.status in ("pending", "processing")


@dataclass
class Purse:
    """An account as the model keeps it."""

    balance: int = 0
    generations: dict[UUID, Kept] = field(default_factory=dict)
    ledger: list[tuple[UUID | None, str, int, int]] = field(default_factory=list)
    """(generation, kind, amount, balance after), oldest first."""
    keys: dict[str, tuple[bytes, UUID]] = field(default_factory=dict)
    aged: set[str] = field(default_factory=set)
    """Keys that are older than 24 hours."""

    @property
    def in_flight(self) -> int:
        return sum(kept.running for kept in self.generations.values())

    def book(self, generation_id: UUID | None, kind: str, amount: int) -> None:
        """One ledger row; amounts of nothing are not written."""
        if amount == 0:
            return
        self.balance += {"add": amount, "reserve": -amount, "charge": 0, "refund": amount}[kind]
        assert self.balance >= 0
        self.ledger.append((generation_id, kind, amount, self.balance))

    def admit(self, ask: Ask) -> Verdict:
        """Decide one request, in the order of precedence."""
        if ask.key in self.keys and ask.key not in self.aged:
            fingerprint, generation_id = self.keys[ask.key]
            if fingerprint != ask.fingerprint:
                return Verdict("key_reused", balance=self.balance)
            status = self.generations[generation_id].status
            return Verdict("replayed", generation_id, status, self.balance)
        in_flight = None if ask.limit is None else self.in_flight
        if in_flight is not None and ask.limit is not None and in_flight >= ask.limit:
            return Verdict("over_concurrency", balance=self.balance, in_flight=in_flight)
        if self.balance < ask.cost:
            return Verdict("insufficient_credits", balance=self.balance, in_flight=in_flight)
        self.generations[ask.generation_id] = Kept(ask)
        self.book(ask.generation_id, "reserve", ask.cost)
        if ask.key is not None:
            self.keys[ask.key] = (ask.fingerprint, ask.generation_id)
            self.aged.discard(ask.key)
        return Verdict("accepted", ask.generation_id, None, self.balance, in_flight)

    def settle(self, generation_id: UUID, status: str) -> None:
        """End one generation that is in flight."""
        kept = self.generations[generation_id]
        assert kept.running
        kept.status = status
        if status == "succeeded":
            kept.charged = kept.ask.cost
            self.book(generation_id, "charge", kept.charged)
        else:
            kept.refunded = kept.ask.cost
            self.book(generation_id, "refund", kept.refunded)


class Reference:
    """All accounts of the model; whoever is not in `purses` does not exist."""

    def __init__(self) -> None:
        self.purses: dict[UUID, Purse] = {}

    def admit(self, batch: Sequence[Ask]) -> list[Verdict]:
        """Decide a batch, each request against what its predecessors left."""
        return [
            self.purses[ask.account_id].admit(ask)
            if ask.account_id in self.purses
            else Verdict("account_gone")
            for ask in batch
        ]
