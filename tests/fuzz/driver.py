"""Sends the cases over real sockets, so many at a time, and collects what was wrong."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from tests.fuzz.cases import Case, Ending, make_case
from tests.fuzz.framing import Answer, FramingError, Owed, Rest, owed_answers, read_answers
from tests.fuzz.judge import faults, generation_id, refusal
from tests.fuzz.request import Seed, World

#: The server's own longest wait is its request deadline; this is how long a busy machine may take beyond it.
PATIENCE_S = 30.0
_ANSWER_BYTES_MAX = 64 << 20


@dataclass(slots=True)
class Report:
    """What came of a run."""

    cases: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """By status and error code."""
    findings: list[str] = field(default_factory=list)
    """Each with the case's number and exact bytes."""

    def __str__(self) -> str:
        rows = [f"{count:>9}  {name}" for name, count in sorted(self.answers.items())]
        return "\n".join(
            [f"{self.cases} cases, {len(self.findings)} findings; answers:", *rows, *self.findings]
        )


@dataclass(slots=True)
class Fuzz:
    """One run against one server.

    Args:
        port: of the server, on loopback.
        run_seed: what all cases are made from.
        waits_s: the longest that the server itself may wait for the rest of a request.
    """

    port: int
    run_seed: int
    seeds: dict[str, Seed]
    world: World
    waits_s: float
    connections: int = 48
    patience_s: float = PATIENCE_S
    report: Report = field(default_factory=Report)

    async def run(self, numbers: range, *, findings_max: int = 20) -> None:
        """Send the cases of these numbers; stops early when enough is found."""
        waiting = iter(numbers)
        async with asyncio.TaskGroup() as group:
            for _ in range(self.connections):
                group.create_task(self._work(waiting, findings_max))

    async def _work(self, numbers: Iterator[int], findings_max: int) -> None:
        for number in numbers:
            if len(self.report.findings) >= findings_max:
                return
            await self.send(make_case(self.run_seed, number, self.seeds, self.world))

    async def send(self, case: Case) -> None:
        """Send one case and judge what comes of it."""
        owed = owed_answers(case.stream)
        exchange = _Exchange(case, owed)
        self.report.cases += 1
        try:
            async with asyncio.timeout(self.waits_s + self.patience_s):
                await exchange.run(self.port, _source(case.number))
            found = exchange.complaints() + faults(case, owed, exchange.answers)
        except TimeoutError:
            found = [f"neither answered nor closed: {len(exchange.answers)} of {len(owed.methods)} answers"]
        except FramingError as error:
            found = [str(error)]
        for answer in exchange.answers:
            code = refusal(answer)
            self.report.answers[f"{answer.status} {code}" if code else str(answer.status)] += 1
            accepted = generation_id(answer)
            if accepted is not None and case.intact and self.world.rich.encode() in case.stream:
                self.world.accepted(accepted)
        for fault in found:
            self.report.findings.append(f"FINDING seed {self.run_seed}: {fault}\n{case.describe()}")


class _Exchange:
    """One connection: writes the case, reads what comes."""

    def __init__(self, case: Case, owed: Owed) -> None:
        self.answers: list[Answer] = []
        self._case = case
        self._owed = owed
        self._received = bytearray()
        self._closed = False
        self._reset = False

    async def run(self, port: int, source: str) -> None:
        """Write everything, then do what the case's ending says."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
        try:
            for part in self._case.writes:
                if writer.transport.is_closing():
                    self._reset = True
                    break
                # Without waiting for room: reading begins when all is written, and a case is bounded.
                writer.write(part)
                await asyncio.sleep(0)
            await self._end(reader, writer)
        except OSError:
            self._closed = self._reset = True
        finally:
            writer.transport.abort()

    async def _end(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ending, owed = self._case.ending, self._owed
        if ending is Ending.ABORT:
            return
        if ending is Ending.HALF_CLOSE:
            _end_of_stream(writer)
            await self._read(reader, until=sys.maxsize)
            return
        to_the_end = owed.closes or owed.rest is Rest.GARBAGE
        lingers = ending is Ending.LINGER and owed.rest is Rest.BODY
        await self._read(reader, until=sys.maxsize if to_the_end else len(owed.methods) + lingers)
        if not self._closed and owed.rest is not Rest.NOTHING:
            # What it waits for never comes. Saying so makes it close, and shows what it answered already.
            _end_of_stream(writer)
            await self._read(reader, until=sys.maxsize)

    async def _read(self, reader: asyncio.StreamReader, *, until: int) -> None:
        """Until there are so many answers, or the server closed."""
        while len(self.answers) < until:
            data = await reader.read(1 << 18)
            if not data:
                self._closed = True
                return
            self._received += data
            if len(self._received) > _ANSWER_BYTES_MAX:
                raise FramingError("more bytes than all answers together may have")
            self.answers = read_answers(bytes(self._received), self._owed.methods)

    def complaints(self) -> list[str]:
        """Answers that were owed and did not come."""
        case, owed = self._case, self._owed
        if case.ending in (Ending.ABORT, Ending.HALF_CLOSE) or owed.rest is Rest.GARBAGE:
            return []
        if len(self.answers) >= len(owed.methods):
            return []
        if self.answers and self.answers[-1].headers.get("connection") == "close":
            return []  # it said that it would answer no more
        if self._reset and (owed.closes or len(case.stream) > 1 << 16):
            return []  # closed under a client that was still writing: the answer is lost with the reset
        return [f"closed after {len(self.answers)} of {len(owed.methods)} answers"]


def _end_of_stream(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.write_eof()


def _source(number: int) -> str:
    """An address to come from: many, where loopback has many, so that no limit per address hides the rest."""
    if not sys.platform.startswith("linux"):
        return "127.0.0.1"
    random = Random(number)
    return f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
