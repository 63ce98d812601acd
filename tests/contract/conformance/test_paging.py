"""The list: newest first, in pages that fit together, also while it grows."""

import pytest
from tests.contract.conformance.contract import GENERATION
from tests.contract.conformance.shapes import differences, parsed
from tests.contract.conformance.target import Issuer, Model, Target


async def page(target: Target, **query: int) -> tuple[list[str], int]:
    """The ids of a page, and the total."""
    envelope = (await target.request("GET", "/v1/content/list", params=query)).json()
    for name, value in query.items():
        assert envelope[name] == value
    return [item["generation_id"] for item in envelope["data"]["generations"]], envelope["total"]


@pytest.fixture
async def caller(target: Target, issuer: Issuer) -> Target:
    """A new account with an empty list."""
    return target.seen_with(await issuer.issue())


async def test_an_empty_list(caller: Target) -> None:
    assert await page(caller) == ([], 0)


async def test_the_newest_is_first_and_pages_fit_together(caller: Target, image: Model) -> None:
    made = [await caller.started(image) for _ in range(7)]
    newest_first = made[::-1]
    assert await page(caller) == (newest_first, 7)
    for size in (1, 2, 3, 7, 100):
        found: list[str] = []
        for offset in range(0, 7, size):
            ids, total = await page(caller, limit=size, offset=offset)
            assert total == 7
            assert len(ids) == min(size, 7 - offset)
            found += ids
        assert found == newest_first
    assert await page(caller, offset=7) == ([], 7)
    assert await page(caller, offset=2_147_483_647) == ([], 7)


async def test_what_is_added_only_moves_the_rest(caller: Target, image: Model) -> None:
    for _ in range(4):
        await caller.started(image)
    before, _ = await page(caller, limit=2, offset=1)
    for _ in range(2):
        await caller.started(image)
    assert await page(caller, limit=2, offset=3) == (before, 6)


async def test_a_member_of_the_list_is_what_reading_it_gives(caller: Target, image: Model) -> None:
    generation_id = await caller.started(image)
    one = await caller.finished(generation_id)
    (listed,) = (await caller.ask("GET", "/v1/content/list"))["generations"]
    assert differences({name: listed[name] for name in GENERATION}, GENERATION) == []
    for item in (one, listed):  # links are signed when they are read
        item["generation_output_file"] = len(item["generation_output_file"])
    assert listed == one


async def test_a_list_is_in_the_order_of_creation(target: Target, image: Model) -> None:
    """Also on a server where others make generations meanwhile."""
    generation_id = await target.started(image)
    generations = (await target.ask("GET", "/v1/content/list?limit=10"))["generations"]
    assert generation_id in {item["generation_id"] for item in generations}
    moments = [parsed(item["generation_created_at"]) for item in generations]
    assert moments == sorted(moments, reverse=True)
