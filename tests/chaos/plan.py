"""Which faults a run makes and when: drawn from a seed, so that the same seed makes the same ones again."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can go wrong."""

    KILL_API = "kill-api"
    """SIGKILL to an API process."""
    KILL_WORKER = "kill-worker"
    """SIGKILL to a worker process."""
    STOP_API = "stop-api"
    """SIGTERM to an API process."""
    STOP_WORKER = "stop-worker"
    """SIGTERM to a worker process."""
    FREEZE_WORKER = "freeze-worker"
    """A worker stands still for longer than its lease, and then goes on as if nothing had been."""
    POSTGRES_CRASH = "postgres-crash"
    """PostgreSQL ends as in a crash and comes back after a while."""
    POSTGRES_RESTART = "postgres-restart"
    """PostgreSQL is restarted by its operator: everybody is cut off."""
    POSTGRES_BACKEND = "postgres-backend"
    """SIGKILL to one process of PostgreSQL, upon which it throws everybody out and recovers."""
    DISK_FULL = "disk-full"
    """PostgreSQL's file system is full for a while."""
    REDIS_DOWN = "redis-down"
    """Redis is killed and comes back empty."""
    STORAGE_DOWN = "storage-down"
    """Nobody listens where the bucket was."""
    STORAGE_FULL = "storage-full"
    """The bucket takes nothing: 507."""
    PROVIDER_BUSY = "provider-busy"
    """A provider answers most requests 429."""
    PROVIDER_ERRORS = "provider-errors"
    """A provider answers most requests 500."""
    PROVIDER_SLOW = "provider-slow"
    """A provider answers most requests late, some too late."""
    PROVIDER_CUTS = "provider-cuts"
    """A provider does what it is asked and breaks the connection instead of answering."""
    RECEIVER_ERRORS = "receiver-errors"
    """The customer's server answers webhooks 500, in part."""
    RECEIVER_DOWN = "receiver-down"
    """Nobody listens where the customer's server was."""
    CUTS = "cuts"
    """Connections on one way break at random."""
    DELAYS = "delays"
    """Everything on one way takes longer."""
    HOLE = "hole"
    """On one way nothing comes through and nothing breaks."""


#: The ways between the processes and the rest of the world.
WAYS = ("postgres", "redis", "storage", "replicate", "fal", "receiver")
PROVIDERS = ("replicate", "fal")
#: Processes of each role.
PER_ROLE = 2

_ON_PROCESS = {Kind.KILL_API, Kind.KILL_WORKER, Kind.STOP_API, Kind.STOP_WORKER, Kind.FREEZE_WORKER}
_ON_PROVIDER = {Kind.PROVIDER_BUSY, Kind.PROVIDER_ERRORS, Kind.PROVIDER_SLOW, Kind.PROVIDER_CUTS}
_ON_WAY = {Kind.CUTS, Kind.DELAYS, Kind.HOLE}
#: How long each lasts, in seconds; what is not named is over at once.
_LASTS = {
    Kind.FREEZE_WORKER: (4.0, 7.0),
    Kind.POSTGRES_CRASH: (0.5, 5.0),
    Kind.DISK_FULL: (3.0, 6.0),
    Kind.REDIS_DOWN: (3.0, 10.0),
    Kind.STORAGE_DOWN: (3.0, 10.0),
    Kind.STORAGE_FULL: (3.0, 8.0),
    # Short: an endpoint that fails for long is disabled, and then what happens waits for its owner.
    Kind.RECEIVER_ERRORS: (1.0, 4.0),
    Kind.RECEIVER_DOWN: (1.0, 4.0),
    Kind.CUTS: (3.0, 8.0),
    Kind.DELAYS: (3.0, 8.0),
    Kind.HOLE: (2.0, 6.0),
    **dict.fromkeys(_ON_PROVIDER, (3.0, 10.0)),
}
#: The load runs undisturbed for so long, at the start (to have something to compare with) and at the end.
QUIET_S = (5.0, 2.0)
#: One fault begins in so many seconds, on the average.
_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when it begins and how long it lasts, in seconds from the start of the load."""

    at_s: float
    kind: Kind
    lasts_s: float
    target: str
    """A process's number, a provider, a way, or nothing."""

    def __str__(self) -> str:
        lasting = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.kind}{' ' if self.target else ''}{self.target}{lasting}"


def draw(seed: int, seconds: float, *, without: Collection[Kind] = ()) -> list[Fault]:
    """The faults of a run in the order of their beginning; several may overlap.

    Every kind comes once before any comes again, as far as the time reaches.

    Args:
        seconds: length of the load; faults are over before it ends, where they fit in.
        without: kinds that cannot be made here.
    """
    chance = random.Random(seed)
    kinds = [kind for kind in Kind if kind not in without]
    begin, end = QUIET_S[0], seconds - QUIET_S[1]
    count = max(1, round((end - begin) / _EVERY_S))
    faults = []
    deck: list[Kind] = []
    for number in range(count):
        if not deck:
            deck = chance.sample(kinds, len(kinds))
        kind = deck.pop()
        # One in each of equal parts of the time, so that none of it is left in peace by chance.
        at_s = begin + (end - begin) * (number + chance.random()) / count
        low, high = _LASTS.get(kind, (0.0, 0.0))
        lasts_s = max(0.0, min(chance.uniform(low, high), end - at_s))
        faults.append(Fault(round(at_s, 2), kind, round(lasts_s, 2), _target(kind, chance)))
    return sorted(faults, key=lambda fault: fault.at_s)


def _target(kind: Kind, chance: random.Random) -> str:
    if kind in _ON_PROCESS:
        return str(chance.randrange(PER_ROLE))
    if kind in _ON_PROVIDER:
        return chance.choice(PROVIDERS)
    return chance.choice(WAYS) if kind in _ON_WAY else ""
