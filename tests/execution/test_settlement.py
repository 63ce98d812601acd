"""The final transition: charges and refunds of whole batches, measured lengths, and races with one winner."""

import asyncio
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.execution.conftest import BALANCE, House
from tests.execution.scripted import Script, Scripted, accepted

from babysea_server.accounts import store as accounts
from babysea_server.execution import store
from babysea_server.execution.types import Claim, Settlement
from babysea_server.ledger import store as ledger
from babysea_server.providers.base import Finished, Output
from babysea_server.providers.sandbox.render import Scene, render_video


def _ends(claim: Claim, status: Any = "succeeded", **more: Any) -> Settlement:
    if status == "succeeded":
        more = {"provider": "fal", "outputs": [], **more}
    else:
        more = {"error_code": "BSE4001", "error_message": "no", **more}
    return Settlement(claim.id, claim.account_id, claim.fence, status, None, **more)


async def _outside(house: House, generation_id: UUID, account_id: UUID, status: str) -> Any:
    """The final transition as it is made without a lease, e.g. by a cancellation."""
    return await house.db.fetchrow(
        """SELECT * FROM settle_generations_v1(NULL, $1, $2, '{0}', ARRAY[$3]::generation_status[], '{NULL}', '{NULL}',
                                               '{NULL}', ARRAY[$4]::text[], '{NULL}', '{NULL}')""",
        [generation_id],
        [account_id],
        status,
        "BSE5004" if status == "failed" else None,
    )


async def test_a_batch_of_every_kind_over_the_same_accounts(house: House) -> None:
    others = [(await accounts.create(house.db, name=name, plan="free")).id for name in ("b", "c")]
    for other in others:
        await ledger.add(house.db, other, 100_000, "test")
    expected = {house.account_id: BALANCE, **dict.fromkeys(others, 100_000)}
    worker = await house.bare_worker()
    settlements, kinds = [], []
    for n in range(30):
        account = [house.account_id, *others][n % 3]
        rate = Decimal("1000") if n % 5 == 0 else None
        await house.admit(cost=3000, rate=rate, account_id=account)
        claim = await house.claimed(worker)
        if n % 2:
            settlements.append(_ends(claim, "failed"))
            kinds.append((0, 3000))
        elif rate is not None:
            settlements.append(_ends(claim, seconds=1.25))
            kinds.append((1250, 1750))
        else:
            settlements.append(_ends(claim))
            kinds.append((3000, 0))
        expected[account] -= kinds[-1][0]
    assert await store.settle(house.db, worker, settlements) == [True] * 30
    for settlement, (charged, refunded) in zip(settlements, kinds, strict=True):
        row = await house.generation(settlement.generation_id)
        assert (row["status"], row["charged"], row["refunded"]) == (settlement.status, charged, refunded)
        assert row["completed_at"] is not None
        assert row["worker_id"] is None
    for account, balance in expected.items():
        assert await accounts.balance(house.db, account) == balance
    await house.check()


# micro-credits per second, reserved, measured seconds, charged
LENGTHS = [
    ("50000", 1_500_000, 4.0, 200_000),
    ("50000", 1_500_000, 30.0, 1_500_000),
    ("50000", 1_500_000, 31.7, 1_500_000),  # never above the reserve
    ("50000", 1_500_000, 0.0, 1),  # succeeded is charged, so at least the smallest amount
    ("0.0004", 10, 1.0, 1),
    ("33333.333", 1_000_000, 1.5, 50_000),  # 49,999.9995 rounds to whole micro-credits
    ("0.5", 10, 5.0, 3),  # half a micro-credit goes up
    ("50000", 1_500_000, None, 1_500_000),  # not measured: the whole reserve
]


async def test_a_measured_length_is_charged_and_the_rest_comes_back(house: House) -> None:
    worker = await house.bare_worker()
    balance = BALANCE
    for rate, reserved, seconds, charge in LENGTHS:
        generation = await house.admit(cost=reserved, rate=Decimal(rate))
        claim = await house.claimed(worker)
        assert claim.measured
        assert await store.settle(house.db, worker, [_ends(claim, seconds=seconds)]) == [True]
        row = await house.generation(generation)
        assert (row["charged"], row["refunded"]) == (charge, reserved - charge)
        balance -= charge
    assert await house.balance() == balance
    await house.check()


async def test_seconds_mean_nothing_where_the_price_is_fixed(house: House) -> None:
    generation = await house.admit(cost=500)
    worker = await house.bare_worker()
    claim = await house.claimed(worker)
    assert not claim.measured
    assert await store.settle(house.db, worker, [_ends(claim, seconds=0.1)]) == [True]
    assert (await house.generation(generation))["charged"] == 500


async def test_the_length_of_the_stored_video_is_what_is_charged(house: House) -> None:
    clip = render_video(Scene("a test", 1, "label", 64, 64, 0), seconds=2.0, audio=False)
    house.provider = Scripted(runway=Script([accepted()], [Finished([Output(data=clip)])]))
    generation = await house.admit(
        ("runway",), model="runway/gen-4-aleph", media="video", cost=1_800_000, rate=Decimal(180_000)
    )
    await house.worker()
    row = await house.finished(generation)
    assert (row["status"], row["charged"], row["refunded"]) == ("succeeded", 360_000, 1_440_000)
    await house.check()


async def test_a_free_generation_leaves_no_ledger_rows(house: House) -> None:
    generation = await house.admit(cost=0)
    worker = await house.bare_worker()
    assert await store.settle(house.db, worker, [_ends(await house.claimed(worker))]) == [True]
    assert (await house.generation(generation))["charged"] == 0
    assert await house.db.fetchval("SELECT count(*) FROM ledger WHERE kind <> 'add'") == 0
    await house.check()


async def test_of_two_settlements_one_wins(house: House) -> None:
    worker = await house.bare_worker()
    claims = []
    for _ in range(12):
        await house.admit(cost=100)
        claims.append(await house.claimed(worker))
    batches = [
        [_ends(claim) for claim in claims],
        [_ends(claim, "failed") for claim in reversed(claims)],
        [_ends(claim) for claim in claims[::2]],
    ]
    results = await asyncio.gather(*(store.settle(house.db, worker, batch) for batch in batches))
    wins = {claim.id: 0 for claim in claims}
    for batch, result in zip(batches, results, strict=True):
        for settlement, won in zip(batch, result, strict=True):
            wins[settlement.generation_id] += won
    assert set(wins.values()) == {1}
    await house.check()


async def test_a_cancellation_and_a_settlement_have_one_winner_and_one_refund(house: House) -> None:
    worker = await house.bare_worker()
    for n in range(12):
        generation = await house.admit(cost=100)
        settlement = _ends(await house.claimed(worker), "succeeded" if n % 2 else "failed")
        before = await house.balance()
        canceling = _outside(house, generation, house.account_id, "canceled")
        settling = store.settle(house.db, worker, [settlement])
        if n % 3:
            [settled], canceled = await asyncio.gather(settling, canceling)
        else:
            canceled, [settled] = await asyncio.gather(canceling, settling)
        assert settled is (canceled is None)
        row = await house.generation(generation)
        assert row["status"] == (settlement.status if settled else "canceled")
        refunded = 0 if row["status"] == "succeeded" else 100
        assert await house.balance() == before + refunded
    refunds = await house.db.fetch("SELECT generation_id FROM ledger WHERE kind = 'refund'")
    assert len(refunds) == len({row["generation_id"] for row in refunds})
    await house.check()


async def test_what_is_final_never_changes_again(house: House) -> None:
    generation = await house.admit(cost=100)
    worker = await house.bare_worker()
    claim = await house.claimed(worker)
    assert (await _outside(house, generation, house.account_id, "canceled"))["refunded"] == 100
    assert await _outside(house, generation, house.account_id, "canceled") is None
    assert await _outside(house, generation, house.account_id, "failed") is None
    assert await store.settle(house.db, worker, [_ends(claim)]) == [False]
    assert await house.balance() == BALANCE
    await house.check()


async def test_settling_and_admitting_at_once_never_block_each_other_for_ever(house: House) -> None:
    others = [(await accounts.create(house.db, name=name, plan="free")).id for name in "abc"]
    for other in others:
        await ledger.add(house.db, other, 1_000_000, "test")
    worker = await house.bare_worker()

    async def admit(n: int) -> None:
        await house.admit(cost=10, account_id=[house.account_id, *others][n % 4])

    async def settle() -> int:
        claims = await store.claim(house.db, worker, 20)
        results = await store.settle(house.db, worker, [_ends(claim) for claim in claims])
        assert all(results)
        return len(results)

    for _ in range(5):
        await asyncio.gather(*(admit(n) for n in range(40)), settle(), settle(), store.expire(house.db))
    while await settle():
        pass
    assert await house.db.fetchval("SELECT count(*) FROM generations WHERE status = 'succeeded'") == 200
    await house.check()
