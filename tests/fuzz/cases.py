"""One case: from the run's seed and a number to the exact bytes that are written, and how.

Everything random comes from `Random(f"{seed}:{number}")`, so a case can be made again alone. Keys and ids are those of
the server under test; they have the same lengths in every run.
"""

from dataclasses import dataclass
from enum import Enum
from random import Random

from tests.fuzz.mutations import MUTATIONS, OF_BODIES, smuggled_header
from tests.fuzz.request import Seed, World, draw

_STREAM_MAX = 1 << 20


class Ending(Enum):
    """What the client does when everything is written."""

    WAIT = "wait"  # for every answer that is owed
    HALF_CLOSE = "half-close"  # sends FIN and reads to the end
    ABORT = "abort"  # resets at once, reads nothing
    LINGER = "linger"  # stays silent where the server waits for more, until the server gives up


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent in one connection."""

    number: int
    seed_name: str
    mutations: tuple[str, ...]
    writes: tuple[bytes, ...]
    ending: Ending
    refused: bool
    """Whether no answer to it may be a success."""

    @property
    def stream(self) -> bytes:
        """All that is written."""
        return b"".join(self.writes)

    @property
    def intact(self) -> bool:
        """Whether it is nothing but valid."""
        return not self.mutations and self.ending is Ending.WAIT

    def describe(self) -> str:
        """Its name and exact bytes; long runs of writes are shortened to what identifies them."""
        shown = repr(list(self.writes))
        if len(shown) > 6000:
            shown = f"{shown[:4000]} ... {shown[-1500:]}"
        how = f"{', '.join(self.mutations) or 'unchanged'}; {self.ending.value}"
        return f"case {self.number}: {self.seed_name}; {how}\n  {shown}"


def make_case(run_seed: int, number: int, seeds: dict[str, Seed], world: World) -> Case:
    """The case of this number; the same for the same run's seed."""
    random = Random(f"{run_seed}:{number}")
    if random.random() < 0.001:
        return _withheld(random, number, seeds, world)
    name = draw(random, seeds)
    request = seeds[name](random, world)
    if random.random() < 0.06:
        return Case(number, name, (), _split(random, request.encode(), []), Ending.WAIT, False)
    applied: list[str] = []
    refused = False
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        of_body = bool(request.body) and random.random() < 0.5
        mutation = random.choice(OF_BODIES if of_body else list(MUTATIONS))
        applied.append(mutation)
        refused = MUTATIONS[mutation](random, request)
        if refused or mutation == smuggled_header.__name__:
            break  # what follows could make it valid again, or belong to a second request
    stream = request.encode()
    if not refused and (not applied or random.random() < 0.25):
        stream = _bytes(random, stream, seeds, world, applied)
    writes = _split(random, stream[:_STREAM_MAX], applied)
    return Case(number, name, tuple(applied), writes, _ending(random), refused)


def _withheld(random: Random, number: int, seeds: dict[str, Seed], world: World) -> Case:
    """A good request whose last bytes never come."""
    stream = seeds["POST image"](random, world).encode()
    part = stream[: -random.randrange(1, 80)]
    return Case(number, "POST image", ("withheld",), (part,), Ending.LINGER, refused=False)


def _ending(random: Random) -> Ending:
    drawn = random.random()
    if drawn < 0.06:
        return Ending.HALF_CLOSE
    return Ending.ABORT if drawn < 0.12 else Ending.WAIT


def _bytes(random: Random, stream: bytes, seeds: dict[str, Seed], world: World, applied: list[str]) -> bytes:
    """Damage the bytes themselves, without regard to what they mean."""
    kind = random.choice(
        (
            "flip",
            "flip",
            "flip",
            "truncate",
            "delete",
            "repeat",
            "insert",
            "line-ends",
            "before",
            "after",
            "pipeline",
        )
    )
    applied.append(kind)
    at = random.randrange(len(stream))
    if kind == "flip":
        changed = bytearray(stream)
        for _ in range(random.choice((1, 1, 2, 8))):
            changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        return bytes(changed)
    if kind == "truncate":
        return stream[: at + 1]
    if kind == "delete":
        return stream[:at] + stream[at + random.randrange(1, 20) :] or b"\r\n"
    if kind == "repeat":
        part = stream[at : at + random.randrange(1, 200)]
        return stream[:at] + part * random.choice((2, 3, 50)) + stream[at:]
    if kind == "insert":
        return stream[:at] + random.randbytes(random.randrange(1, 12)) + stream[at:]
    if kind == "line-ends":
        head, blank, body = stream.partition(b"\r\n\r\n")
        end = random.choice((b"\n", b"\r", b"\r\r\n", b"\n\r"))
        return (head + blank).replace(b"\r\n", end) + body
    garbage = random.choice(
        (
            random.randbytes(random.randrange(1, 300)),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(64),
            b"\r\n" * random.choice((1, 3, 40000)),
            b"GET /v1/status\r\n",
            b"\x00" * 3000,
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        )
    )
    if kind == "before":
        return garbage + stream
    if kind == "after":
        return stream + garbage
    names = random.choices(list(seeds), k=random.choice((1, 2, 20)))
    return stream + b"".join(seeds[name](random, world).encode() for name in names)


def _split(random: Random, stream: bytes, applied: list[str]) -> tuple[bytes, ...]:
    """The writes: mostly one; else at a few places, or byte by byte where it is short."""
    drawn = random.random()
    if drawn < 0.75 or len(stream) < 2:
        return (stream,)
    if drawn < 0.78 and len(stream) < 600:
        applied.append("byte by byte")
        return tuple(stream[n : n + 1] for n in range(len(stream)))
    applied.append("split")
    cuts = sorted(random.sample(range(1, len(stream)), k=min(len(stream) - 1, random.choice((1, 2, 5)))))
    return tuple(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True))
