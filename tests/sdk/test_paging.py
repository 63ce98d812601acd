"""Going through all generations while the list changes."""

import random
from typing import Any

import httpx
import pytest
from tests.sdk.clients import KINDS, generation, side, success


class Account:
    """A server with a list of generations, which `change` may change before each page is read."""

    def __init__(self, count: int) -> None:
        self.made = 0
        self.ids: list[str] = []
        self.pages: list[tuple[int, int]] = []
        self.make(count)

    def make(self, count: int) -> None:
        for _ in range(count):
            self.made += 1
            self.ids.insert(0, f"{self.made:032x}")

    def change(self) -> None:
        """Nothing changes."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.pages:
            self.change()
        limit, offset = (int(request.url.params[name]) for name in ("limit", "offset"))
        self.pages.append((limit, offset))
        items: list[Any] = [generation(id=id) for id in self.ids[offset : offset + limit]]
        return success({"generations": items}, total=len(self.ids), limit=limit, offset=offset)


async def _ids(kind: str, account: Account, **options: Any) -> list[str]:
    found = await side(kind, account).call("iter_generations", **options)
    return [one.id for one in found]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 199, 200, 450])
async def test_all_come_once_newest_first(kind: str, count: int) -> None:
    account = Account(count)
    assert await _ids(kind, account) == account.ids
    assert len(account.pages) <= 1 + count // 99


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [0, 1, 2, 99, 100, 101, 250, 1000])
async def test_no_more_than_were_asked_for(kind: str, limit: int) -> None:
    account = Account(300)
    assert await _ids(kind, account, limit=limit) == account.ids[:limit]
    assert all(asked <= max(limit, 1) for asked, _ in account.pages)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("new", [1, 50, 99, 100, 101])
async def test_new_ones_make_none_come_twice(kind: str, new: int) -> None:
    class Growing(Account):
        def change(self) -> None:
            if len(self.pages) < 10:
                self.make(new)

    account = Growing(350)
    before = list(account.ids)
    assert await _ids(kind, account) == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gone", [1, 50, 99, 100, 101])
async def test_deleted_ones_leave_none_out(kind: str, gone: int) -> None:
    class Shrinking(Account):
        def change(self) -> None:
            if len(self.pages) == 1:
                del self.ids[:gone]

    account = Shrinking(400)
    before = list(account.ids)
    found = await _ids(kind, account)
    assert [id for id in found if id in account.ids] == account.ids
    assert found == [id for id in before if id in set(found)], "in order, each once"


@pytest.mark.parametrize("seed", range(20))
async def test_however_it_changes_what_stays_comes_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)

    class Changing(Account):
        def change(self) -> None:
            if len(self.pages) < 30:
                self.make(chance.choice([0, 1, 30, 150]))
                for _ in range(min(chance.choice([0, 1, 30, 80]), len(self.ids))):
                    self.ids.pop(chance.randrange(len(self.ids)))

    account = Changing(500)
    before = list(account.ids)
    found = await _ids("sync", account)
    assert len(found) == len(set(found))
    assert found == sorted(found, reverse=True)
    stayed = [id for id in before if id in account.ids]
    assert [id for id in found if id in stayed] == stayed


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_tells_where_it_stands(kind: str) -> None:
    page = await side(kind, Account(30)).call("list_generations", limit=10, offset=20)
    assert (len(page), page.total, page.limit, page.offset) == (10, 30, 10, 20)
    assert [one.id for one in page] == [one.id for one in page.items]
