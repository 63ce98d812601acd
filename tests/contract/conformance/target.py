"""The server under test: its address, a key, and what a customer does with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import httpx
from tests.contract.asgi import Answer
from tests.contract.published import Published
from tests.contract.sockets import exchange
from tests.support import FINAL, eventually

from babysea_server.kit.clock import Clock, SystemClock

#: A generation of a foreign server may really be made.
_PATIENCE_S = 300.0
#: How often a request that a rate limit refused is repeated; each time after the wait it asks for.
_TURNS = 3


class Issuer(Protocol):
    """Makes accounts and keys: only for a server that is ours."""

    async def issue(
        self,
        *,
        region: str = "us",
        plan: str = "unlimited",
        credits: str = "100",
        scopes: Sequence[str] | None = None,
        preset: str = "full_access",
        allowlist: Sequence[str] = (),
    ) -> str:
        """A key of a new account."""
        ...

    def host(self, region: str) -> str:
        """The Host header of a region."""
        ...


@dataclass(frozen=True)
class Model:
    """A model to test with, and a body that it takes."""

    identifier: str
    media: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A server as one key sees it.

    Every answer to `request` under `/v1` must be one that the server's own document describes; `client` sees
    to that.
    """

    base: str
    key: str
    host: str
    """The regional host that requests name."""
    client: httpx.AsyncClient
    published: Published
    issuer: Issuer | None = None
    patient: bool = True
    """Whether a request beyond a rate limit is repeated when the limit allows."""
    clock: Clock = field(default_factory=SystemClock)
    """A foreign server's limit runs by its own time."""

    def seen_with(self, key: str, **changes: Any) -> "Target":
        """The same server as another key sees it."""
        return replace(self, key=key, **changes)

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request with the key, or without one when it is empty."""
        headers = {"Host": self.host, **options.pop("headers", {})}
        if self.key:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        for _ in range(_TURNS):
            response = await self.client.request(method, self.base + path, headers=headers, **options)
            if not self.patient or code(response) not in ("BSE1005", "BSE1006"):
                break
            await self.clock.sleep(int(response.headers["retry-after"]))
        return response

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        """A request that must succeed; the envelope's data."""
        response = await self.request(method, path, **options)
        assert response.status_code == 200, f"{method} {path}: {response.text}"
        return response.json()["data"]

    async def generate(
        self, model: Model, *, key: str | None = None, prompt: str | None = None, **fields: Any
    ) -> httpx.Response:
        """POST generate with the model's body; `key` is the Idempotency-Key."""
        body = {**model.body, **fields}
        if prompt is not None:
            body["generation_prompt"] = prompt
        headers = {} if key is None else {"Idempotency-Key": key}
        path = f"/v1/generate/{model.media}/{model.identifier}"
        return await self.request("POST", path, json=body, headers=headers)

    async def started(self, model: Model, **options: Any) -> str:
        """The id of a generation just accepted."""
        response = await self.generate(model, **options)
        assert response.status_code == 200, response.text
        generation_id: str = response.json()["data"]["generation_id"]
        return generation_id

    async def finished(self, generation_id: str) -> dict[str, Any]:
        """Wait until a generation is final; its data."""

        async def final() -> dict[str, Any] | None:
            data: dict[str, Any] = await self.ask("GET", f"/v1/content/{generation_id}")
            return data if data["generation_status"] in FINAL else None

        return await eventually(final, within_s=_PATIENCE_S)

    async def raw(self, *parts: bytes, answers: int = 1) -> list[Answer]:
        """Exactly these bytes to the server, and its answers."""
        return await exchange(self.base, *parts, answers=answers)

    def head(self, target: str, *lines: str, host: str | None = None, key: str | None = None) -> bytes:
        """A request line (`GET /v1/status`) and headers, as bytes for `raw`."""
        fixed = [f"{target} HTTP/1.1", f"Host: {self.host if host is None else host}"]
        fixed.append(f"Authorization: Bearer {self.key if key is None else key}")
        return "\r\n".join([*fixed, *lines, "", ""]).encode("latin-1")


def code(response: httpx.Response) -> str | None:
    """The error code of an answer, or None when it is no error."""
    if response.status_code < 400 or not response.content:
        return None
    found: str = response.json()["error"]["code"]
    return found
