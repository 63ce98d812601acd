"""What goes wrong in one simulation, drawn from its seed.

Each seed switches on only some kinds of faults, and those strongly: what hides behind one fault is not found where
everything fails at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.simulation.loop import Process

#: Every kind of fault; a seed that fails is tried again without each.
KINDS = (
    "crashes",
    "restarts",
    "freezes",
    "cuts",
    "jumps",
    "outages",
    "slow_database",
    "lost_answers",
    "lost_notices",
    "lost_requests",
    "provider_refusals",
    "provider_losses",
    "provider_lies",
    "receivers",
    "files",
    "slow_files",
)
#: Seconds of a simulation in which requests come, and in which things go wrong.
BUSY_S = 30.0
FAULTY_S = 45.0
#: Words of statements after which it is worst for a process to stop: claims, attempts, ends.
TURNS = (
    "SET worker_id = $1",
    "INTO attempts",
    "INTO attempts",
    "INTO attempts",
    "upstream_id = u.upstream_id",
    "settle_generations",
    "record_webhooks",
    "admit_generations",
    "cancel_generation",
)
_ON = 0.4
#: The driver waits no longer for an answer.
_STUCK_MAX_S = 14.0


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one statement."""

    travels_s: float
    returns_s: float
    arrives: bool = True
    answers: bool = True
    outlives: bool = True
    """It is executed even if its sender has died meanwhile."""


class Faults:
    """The faults of one seed.

    Args:
        without: kinds that are left out, whatever the seed says.
    """

    def __init__(self, seed: int, without: Sequence[str] = ()) -> None:
        plan = Random(f"{seed} plan")
        drawn = frozenset(kind for kind in KINDS if plan.random() < _ON)
        self.kinds = drawn.difference(without)
        self.until = FAULTY_S
        self._outages = [
            (at, at + plan.uniform(0.5, 14.0))
            for at in sorted(plan.uniform(1, FAULTY_S - 15) for _ in range(plan.randint(1, 2)))
        ]
        self._loss = plan.choice((0.005, 0.02, 0.06))
        self._line = Random(f"{seed} line")

    def on(self, kind: str, now: float) -> bool:
        """Whether such faults happen now."""
        return kind in self.kinds and now < self.until

    # ------------------------------------------------------------------------------- the database

    def statement(self, process: Process, now: float) -> Fate:
        """What becomes of a statement of this process."""
        draw = self._line
        travels, returns = draw.uniform(0.0002, 0.002), draw.uniform(0.0002, 0.002)
        if self.on("slow_database", now) and draw.random() < 0.05:
            travels += draw.uniform(0.0, 3.0)
            returns += draw.uniform(0.0, 3.0)
        outlives = draw.random() < 0.5
        left_s = process.cut_off_until - now
        if 0 < left_s < _STUCK_MAX_S and draw.random() < 0.5:
            return Fate(
                left_s + travels, returns, outlives=outlives
            )  # sent again by TCP until it comes through
        if self._away(process, now):
            return Fate(travels, draw.uniform(0.0, 1.0), arrives=False)
        if self.on("lost_answers", now) and draw.random() < self._loss:
            late = draw.choice((0.0, 0.1, draw.uniform(0.0, 6.0)))
            return Fate(travels + late * draw.random(), late, draw.random() < 0.7, answers=False)
        return Fate(travels, returns, outlives=outlives)

    def connects(self, process: Process, now: float) -> bool:
        """Whether a connection is to be had."""
        return not self._away(process, now)

    def refusal_s(self) -> float:
        """How long it takes to be refused."""
        return self._line.choice((0.001, 0.1, self._line.uniform(0.0, 2.0)))

    def notice(self, process: Process, now: float) -> float | None:
        """How long a notice travels; None where it is lost with its connection."""
        lost = self._away(process, now) or (self.on("lost_notices", now) and self._line.random() < 0.3)
        return None if lost else self._line.uniform(0.0005, 0.01)

    def deaf_s(self) -> float:
        """How long a listener takes to connect again."""
        return self._line.uniform(0.01, 2.0)

    def _away(self, process: Process, now: float) -> bool:
        if now < process.cut_off_until:
            return True
        return self.on("outages", now) and any(begins <= now < ends for begins, ends in self._outages)
