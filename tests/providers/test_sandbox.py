"""The sandbox end to end: every behaviour by magic words and by settings, and what its documentation says."""

import asyncio
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.conftest import MakeDeployment
from tests.support import Customer, Deployment, make_customer

from babysea_server.execution.verdict import RULES
from babysea_server.kit.money import micros
from babysea_server.providers.base import Failure
from babysea_server.providers.sandbox.behavior import BEHAVIORS

PAGE = Path(__file__).parents[2] / "docs" / "sandbox.md"
#: The chain of the model these tests use.
CHAIN = ["replicate", "fal", "cloudflare"]
MODEL = "bfl/flux-schnell"


def _documented() -> dict[str, tuple[str | None, str | None, str]]:
    """Class, code and what happens next, by behaviour, as the page's table has it."""
    rows: dict[str, tuple[str | None, str | None, str]] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and (name := re.fullmatch(r"`(\w+)(?::S)?`", cells[0])):
            failure, code = (None if cell == "-" else cell.strip("`") for cell in cells[2:4])
            rows[name[1]] = (failure, code, cells[4])
    return rows


DOCUMENTED = _documented()


def _ends_the_chain(name: str) -> bool:
    return DOCUMENTED[name][2].startswith("the chain ends")


def test_every_behaviour_is_documented_with_its_class_code_and_what_happens_next() -> None:
    assert list(DOCUMENTED) == list(BEHAVIORS)
    for name, (failure, code, _) in DOCUMENTED.items():
        assert (failure is None) == (code is None), name
        if failure is not None:
            rule = RULES[Failure(failure)]
            assert code == rule.error.code, name
            assert _ends_the_chain(name) is not rule.next_provider, name


def test_every_setting_of_the_sandbox_is_documented(deployment: Deployment) -> None:
    names = [name for name in deployment.settings.__struct_fields__ if name.startswith("sandbox_")]
    text = PAGE.read_text()
    assert names
    assert all(f"`{name}`" in text for name in names)


async def _attempts(customer: Customer, generation: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    rows = await customer.deployment.db.fetch(
        "SELECT provider, adapter, outcome, failure FROM attempts WHERE generation_id = $1 ORDER BY attempt_order",
        UUID(generation["generation_id"]),
    )
    assert {row["adapter"] for row in rows} == {"sandbox"}
    return [(row["provider"], row["outcome"], row["failure"]) for row in rows]


async def _sound(deployment: Deployment) -> None:
    """The books are right and nothing was bought twice."""
    assert await deployment.differences() == []
    twice = await deployment.db.fetch(
        "SELECT reference FROM sandbox.jobs GROUP BY reference HAVING count(*) > 1"
    )
    assert twice == []


@pytest.fixture
async def buyer(make_deployment: MakeDeployment) -> Customer:
    """A customer of a sandbox that gives up an image after two seconds."""
    return await make_customer(await make_deployment(image_attempt_timeout_s=2))


def _spelling(name: str) -> str:
    return "slow:0.1" if name == "slow" else name


async def test_every_behaviour_by_words_to_one_provider_with_the_failover_it_promises(
    buyer: Customer,
) -> None:
    async def one(name: str) -> tuple[dict[str, Any], list[tuple[str, str, str | None]]]:
        generation = await buyer.made(MODEL, generation_prompt=f"sea [sandbox:replicate={_spelling(name)}]")
        return generation, await _attempts(buyer, generation)

    results = dict(zip(BEHAVIORS, await asyncio.gather(*(one(name) for name in BEHAVIORS)), strict=True))
    for name, (generation, attempts) in results.items():
        failure, code, _ = DOCUMENTED[name]
        if failure is None:
            assert attempts == [("replicate", "used", None)], name
        elif _ends_the_chain(name):
            assert attempts == [("replicate", "failed", failure)], name
            assert generation["generation_error_code"] == code, name
        else:
            assert attempts == [("replicate", "failed", failure), ("fal", "used", None)], name
            assert generation["generation_provider_used"] == "fal", name
    await _sound(buyer.deployment)


async def test_every_behaviour_by_words_to_all_ends_as_documented(buyer: Customer) -> None:
    async def one(name: str) -> tuple[dict[str, Any], list[tuple[str, str, str | None]]]:
        order = "replicate" if name == "time_out" else ", ".join(CHAIN[:2])
        generation = await buyer.made(
            MODEL, generation_prompt=f"[sandbox:{_spelling(name)}] sea", generation_provider_order=order
        )
        return generation, await _attempts(buyer, generation)

    results = dict(zip(BEHAVIORS, await asyncio.gather(*(one(name) for name in BEHAVIORS)), strict=True))
    price = micros("0.005")
    charged = 0
    for name, (generation, attempts) in results.items():
        failure, code, _ = DOCUMENTED[name]
        if failure is None:
            charged += price
            assert generation["generation_status"] == "succeeded", name
        else:
            assert generation["generation_error_code"] == code, name
            asked = 1 if name == "time_out" or _ends_the_chain(name) else 2
            assert [entry[1:] for entry in attempts] == [("failed", failure)] * asked, name
    assert await buyer.balance() == micros("100") - charged
    await _sound(buyer.deployment)


async def test_behaviours_by_settings_and_words_that_are_stronger(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(
        sandbox_behaviors={"replicate": "refuse_auth", "fal": "slow:0.05", "*": "refuse_funds"}
    )
    customer = await make_customer(deployment)
    told, asked, alone = await asyncio.gather(
        customer.made(MODEL),
        customer.made(MODEL, generation_prompt="[sandbox:replicate=ok]"),
        customer.made(MODEL, generation_provider_order="cloudflare"),
    )
    assert await _attempts(customer, told) == [
        ("replicate", "failed", "refused_auth"),
        ("fal", "used", None),
    ]
    assert await _attempts(customer, asked) == [("replicate", "used", None)]
    assert alone["generation_error_code"] == "BSE4007"
    await _sound(deployment)


async def test_different_failures_of_one_chain_are_all_providers_failed(buyer: Customer) -> None:
    words = "[sandbox:replicate=refuse_busy,fal=fail,cloudflare=no_output]"
    generation = await buyer.made(MODEL, generation_prompt=words)
    assert generation["generation_error_code"] == "BSE4006"
    assert [entry[2] for entry in await _attempts(buyer, generation)] == [
        "refused_busy",
        "failed",
        "bad_output",
    ]


async def test_a_video_is_made_at_its_length_with_its_sound(buyer: Customer) -> None:
    generation = await buyer.made(
        "sandbox/video", "video", generation_duration=5, generation_generate_audio=True
    )
    assert generation["generation_status"] == "succeeded", generation
    [url] = generation["generation_output_file"]
    file = await buyer.deployment.client.get(url)
    assert file.headers["content-type"] == "video/mp4"
    stored = await buyer.deployment.db.fetchval("SELECT outputs FROM generations")
    assert abs(stored[0]["seconds"] - 5) < 0.2
