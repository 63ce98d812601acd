"""Low-balance alerts on the page of Billing."""

import asyncio

import pytest
from tests.console.selling import console, owner, stripe
from tests.console.support import ConsoleClient, activity_of

__all__ = ["console", "owner", "stripe"]  # fixtures


async def test_alerts_are_added_and_removed(owner: ConsoleClient) -> None:
    assert "the default, while there is none of your own" in await owner.page("/billing")
    for threshold in ("5", "$0.75", "12.5"):
        await owner.submit("/billing", {"threshold": threshold}, action="/billing/alerts")
    html = await owner.page("/billing")
    assert [html.index(text) for text in ("$12.50<", "$5.00<", "$0.75<")] == sorted(
        html.index(text) for text in ("$12.50<", "$5.00<", "$0.75<")
    )
    removed = await owner.submit("/billing", {"threshold": "5000000"}, action="/billing/alerts/remove")
    assert "The alert below 5 credits was removed." in (await owner.follow(removed)).text
    assert "$5.00<" not in await owner.page("/billing")
    actions = [action for action, _ in await activity_of(owner.deployment, owner.account_id)]
    assert actions == ["credit_alert.added"] * 3 + ["credit_alert.removed"]


@pytest.mark.parametrize("typed", ["", "0", "-1", "five", "0.0000001", "1e99", "<b>1</b>", "NaN"])
async def test_an_alert_that_is_no_amount_is_refused_beside_its_field(
    owner: ConsoleClient, typed: str
) -> None:
    response = await owner.submit("/billing", {"threshold": typed}, action="/billing/alerts")
    assert response.status_code == 422
    assert 'aria-invalid="true"' in response.text
    assert "<b>1</b>" not in response.text
    assert await activity_of(owner.deployment, owner.account_id) == []


async def test_of_alerts_that_are_added_at_once_none_is_lost_and_ten_are_enough(owner: ConsoleClient) -> None:
    answers = await asyncio.gather(
        *(owner.post("/billing/alerts", {"threshold": str(number)}) for number in range(1, 12))
    )
    assert sorted(answer.status_code for answer in answers) == [303] * 10 + [422]
    rows = await owner.deployment.db.fetchval(
        "SELECT count(*) FROM credit_alerts WHERE account_id = $1", owner.account_id
    )
    assert rows == 10
