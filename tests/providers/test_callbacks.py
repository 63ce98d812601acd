"""Callback addresses that nobody can guess, keys that are asked for and renewed, and what a callback does."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from tests.support import ManualClock

from babysea_server.catalog.types import Traits
from babysea_server.execution.callbacks import Callbacks, CallbacksApp
from babysea_server.kit.ids import uuid7
from babysea_server.providers.base import (
    Accepted,
    Answer,
    Callback,
    Finished,
    Job,
    NeverSentError,
    Provider,
    Refused,
    Request,
)
from babysea_server.providers.callbacks import CallbackAddresses, CallbackVerifier
from babysea_server.providers.registry import Registry, Route
from babysea_server.providers.runner import Runner
from babysea_server.settings import ProviderSettings

SECRET = b"0123456789abcdef0123456789abcdef"
ORIGIN = "https://api.{region}.example.com"


class Signing(Provider):
    """Callbacks name the key they were signed with; the keys are asked for."""

    name = "signing"
    traits = Traits("webhook_with_polling", None, "hmac_sha256")

    def build_submit(self, job: Job) -> Request:
        raise NotImplementedError

    def read_submit(self, job: Job, answer: Answer) -> Accepted | Finished | Refused:
        raise NotImplementedError

    def build_keys(self) -> Request | None:
        return Request("GET", "keys")

    def read_keys(self, answer: Answer) -> tuple[bytes, ...]:
        return tuple(answer.body.split())

    def verify_callback(self, callback: Callback, keys: Any) -> bool:
        return callback.headers.get("key", "").encode() in keys


class Keys:
    """The provider's side: what it answers to the question for its keys."""

    def __init__(self, *keys: bytes) -> None:
        self.keys: bytes | None = b" ".join(keys)
        self.asked = 0

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        self.asked += 1
        if self.keys is None:
            raise NeverSentError("away")
        return Answer(200, {}, self.keys)

    async def close(self) -> None:
        pass


def addresses(region: str = "us", origin: str | None = ORIGIN, secret: bytes = SECRET) -> CallbackAddresses:
    return CallbackAddresses(secret, region, origin)


def token(url: str) -> str:
    return url.rpartition("/")[2]


def test_an_address_leads_back_to_its_attempt_and_to_no_other() -> None:
    attempt = uuid7()
    url = addresses().url("fal", attempt)
    assert url is not None
    assert url.startswith("https://api.us.example.com/callbacks/fal/")
    assert addresses().attempt("fal", token(url)) == attempt
    assert addresses().attempt("replicate", token(url)) is None
    assert addresses("eu").attempt("fal", token(url)) is None
    assert addresses(secret=SECRET[::-1]).attempt("fal", token(url)) is None


def test_two_attempts_have_two_addresses() -> None:
    found = {addresses().url("fal", uuid7()) for _ in range(100)}
    assert len(found) == 100


def test_without_an_origin_there_are_no_addresses() -> None:
    assert addresses(origin=None).url("fal", uuid7()) is None


@pytest.mark.parametrize("position", range(0, 43, 6))
def test_a_token_with_one_other_character_is_none(position: int) -> None:
    good = token(addresses().url("fal", UUID(int=7)) or "")
    other = "A" if good[position] != "A" else "B"
    assert addresses().attempt("fal", good[:position] + other + good[position + 1 :]) is None


@pytest.mark.parametrize("text", ["", "x", "=" * 44, "é" * 43, "A" * 43, "A" * 10_000, "../../etc", "\0"])
def test_any_other_text_is_no_token(text: str) -> None:
    assert addresses().attempt("fal", text) is None


def verifier(keys: Keys, clock: ManualClock) -> CallbackVerifier:
    registry = Registry({"signing": Route(Signing(ProviderSettings()), keys)})
    return CallbackVerifier(registry, Runner(registry, clock), clock)


async def test_keys_are_asked_for_once_and_again_after_an_hour() -> None:
    keys, clock = Keys(b"one"), ManualClock()
    verifying = verifier(keys, clock)
    for _ in range(3):
        assert await verifying.verifies("signing", {"key": "one"}, b"")
    assert keys.asked == 1
    clock.advance(3600)
    assert await verifying.verifies("signing", {"key": "one"}, b"")
    assert keys.asked == 2


async def test_after_a_change_of_keys_the_new_ones_are_found_within_a_minute() -> None:
    keys, clock = Keys(b"one"), ManualClock()
    verifying = verifier(keys, clock)
    assert await verifying.verifies("signing", {"key": "one"}, b"")
    keys.keys = b"two"
    assert not await verifying.verifies("signing", {"key": "two"}, b"")
    assert keys.asked == 1, "forged callbacks do not make us ask on and on"
    clock.advance(60)
    assert await verifying.verifies("signing", {"key": "two"}, b"")
    assert not await verifying.verifies("signing", {"key": "one"}, b"")


async def test_a_provider_that_is_away_keeps_the_keys_it_had() -> None:
    keys, clock = Keys(b"one"), ManualClock()
    verifying = verifier(keys, clock)
    assert await verifying.verifies("signing", {"key": "one"}, b"")
    keys.keys = None
    clock.advance(4000)
    assert await verifying.verifies("signing", {"key": "one"}, b"")


async def test_an_unknown_provider_verifies_nothing() -> None:
    assert not await verifier(Keys(b"one"), ManualClock()).verifies("other", {"key": "one"}, b"")


@pytest.fixture
def announced() -> list[UUID]:
    return []


@pytest.fixture
def client(announced: list[UUID]) -> httpx.AsyncClient:
    clock = ManualClock()
    regions = {
        region: Callbacks(addresses(region), verifier(Keys(b"one"), clock), announced.append)
        for region in ("us", "eu")
    }
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=CallbacksApp(regions)), base_url="http://callbacks"
    )


def path(attempt: UUID, region: str = "us", provider: str = "signing") -> str:
    url = addresses(region).url(provider, attempt)
    assert url is not None
    return httpx.URL(url).path


@pytest.mark.parametrize("region", ["us", "eu"])
async def test_a_callback_announces_its_attempt_in_whatever_region_it_is(
    client: httpx.AsyncClient, announced: list[UUID], region: str
) -> None:
    attempt = uuid7()
    answer = await client.post(path(attempt, region), headers={"key": "one"}, content=b"{}")
    assert (answer.status_code, announced) == (200, [attempt])


async def test_a_forged_callback_announces_nothing_401(
    client: httpx.AsyncClient, announced: list[UUID]
) -> None:
    answer = await client.post(path(uuid7()), headers={"key": "two"}, content=b"{}")
    assert (answer.status_code, announced) == (401, [])


async def test_a_stranger_learns_nothing_404(client: httpx.AsyncClient, announced: list[UUID]) -> None:
    for target in (
        "/callbacks/",
        "/callbacks/signing",
        "/callbacks/signing/",
        "/callbacks/signing/" + "A" * 43,
    ):
        for method in ("GET", "POST"):
            answer = await client.request(method, target)
            assert answer.status_code == 404
    assert announced == []


async def test_callbacks_are_sent_with_post_405(client: httpx.AsyncClient, announced: list[UUID]) -> None:
    answer = await client.get(path(uuid7()))
    assert (answer.status_code, answer.headers["allow"], announced) == (405, "POST", [])


async def test_a_body_has_its_bound_413(client: httpx.AsyncClient, announced: list[UUID]) -> None:
    answer = await client.post(path(uuid7()), headers={"key": "one"}, content=b"x" * (1024 * 1024 + 1))
    assert (answer.status_code, announced) == (413, [])
