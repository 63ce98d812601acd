"""What the fuzz starts from: valid requests of all seventeen pairs of method and path, with real keys."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

#: Stands in every prompt and idempotency key that is sent, so that a leak of one into a log is found.
CANARY = "petrel4711"
MISSING_ID = "01963f10-0000-7000-8000-00000000dead"


@dataclass(slots=True)
class Request:
    """One request before it becomes bytes; mutations change it in place."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    version: bytes = b"HTTP/1.1"
    framed: bytes | None = None
    """The body as it is sent, where that is not the body itself; then nothing adds a Content-Length."""

    def encode(self) -> bytes:
        """Head and body as bytes; a Content-Length is added where there is a body."""
        lines = [b" ".join((self.method, self.target, self.version))]
        lines += [name + b": " + value for name, value in self.headers]
        if self.framed is None and self.body and self.value(b"Content-Length") is None:
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join([*lines, b"", b""]) + (self.body if self.framed is None else self.framed)

    def value(self, name: bytes) -> bytes | None:
        """The first value of a header."""
        return next((value for found, value in self.headers if found == name), None)

    def put(self, name: bytes, value: bytes) -> None:
        """Give a header this one value."""
        self.drop(name)
        self.headers.append((name, value))

    def drop(self, name: bytes) -> None:
        """Leave a header out."""
        self.headers = [header for header in self.headers if header[0] != name]


@dataclass(slots=True)
class World:
    """Keys and generation ids that exist on the server under test."""

    rich: str
    """A key of an account that can pay for everything."""
    small: str
    """A key of an account that can pay for little: films cost the worker much."""
    others: list[str]
    """Keys with few scopes, without credits, of a small plan, of other addresses."""
    foreign_ids: list[str]
    """Generations of other accounts."""
    own_ids: list[str] = field(default_factory=list)
    """Generations of the rich account, the latest accepted; bounded."""

    def key(self, random: Random) -> str:
        """Mostly the rich one."""
        return self.rich if random.random() < 0.8 else random.choice(self.others)

    def generation_id(self, random: Random) -> str:
        """Own, foreign or missing."""
        kind = random.random()
        if kind < 0.15:
            return MISSING_ID
        if kind < 0.3:
            return random.choice(self.foreign_ids)
        return random.choice(self.own_ids)

    def accepted(self, generation_id: str) -> None:
        """Remember a generation that the server accepted."""
        self.own_ids.append(generation_id)
        del self.own_ids[:-200]


_GETS = (
    "/v1/status",
    "/v1/usage?days=7",
    "/v1/user/account",
    "/v1/user/billing",
    "/v1/estimate/sandbox/video?count=3&duration=2&resolution=720p&audio=true",
    "/v1/content/list?limit=3&offset=1",
    "/v1/content/{id}",
    "/v1/health/inference/providers",
    "/v1/health/inference/models",
    "/v1/health/storage",
    "/v1/health/cache",
    "/v1/library/providers",
    "/v1/library/models",
)

#: How much more often a request that buys is sent than any other: most of the code stands behind it.
_SHARES = {"POST image": 6, "POST video": 2}

Seed = Callable[[Random, World], Request]


def seeds() -> dict[str, Seed]:
    """Makers of valid requests, by method and path."""
    found: dict[str, Seed] = {f"GET {target}": _get(target) for target in _GETS}
    found["DELETE /v1/content/{id}"] = _on_generation("DELETE", "/v1/content/{id}")
    found["POST cancel"] = _on_generation("POST", "/v1/content/generation/cancel/{id}")
    found["POST image"] = _generate("image", "sandbox/image", {"generation_output_format": "png"})
    found["POST video"] = _generate("video", "sandbox/video", {"generation_duration": 1})
    return found


def draw(random: Random, seeds: dict[str, Seed]) -> str:
    """The name of one of them."""
    return random.choices(list(seeds), [_SHARES.get(name, 1) for name in seeds])[0]


def _headers(random: Random, world: World) -> list[tuple[bytes, bytes]]:
    return [
        (b"Host", b"localhost"),
        (b"Authorization", b"Bearer " + world.key(random).encode()),
        (b"X-BabySea-SDK-Name", b"babysea-fuzz"),
    ]


def _get(target: str) -> Seed:
    return _on_generation("GET", target)


def _on_generation(method: str, target: str) -> Seed:
    def make(random: Random, world: World) -> Request:
        path = target.replace("{id}", world.generation_id(random))
        return Request(method.encode(), path.encode(), _headers(random, world))

    return make


def _generate(media: str, model: str, fields: dict[str, object]) -> Seed:
    def make(random: Random, world: World) -> Request:
        body = {"generation_prompt": f"A lighthouse, {CANARY}", **fields}
        headers = _headers(random, world)
        if media == "video" and world.rich.encode() in headers[1][1]:
            headers[1] = (b"Authorization", b"Bearer " + world.small.encode())
        headers.append((b"Content-Type", b"application/json"))
        headers.append((b"Idempotency-Key", f"{CANARY}-{random.randrange(10**6)}".encode()))
        return Request(b"POST", f"/v1/generate/{media}/{model}".encode(), headers, json.dumps(body).encode())

    return make
