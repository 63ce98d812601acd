"""What the operator's book says of failures that no other test brings about."""

from datetime import datetime, timedelta
from urllib.parse import urlsplit

import httpx
from structlog.testing import capture_logs
from tests.conftest import MakeDeployment
from tests.support import make_customer

from babysea_server.kit.clock import SystemClock


class _Behind(SystemClock):
    """The clock of a machine that nobody set."""

    def now(self) -> datetime:
        return super().now() - timedelta(minutes=1)


async def test_an_api_whose_clock_is_behind_the_databases_accepts_nothing_and_says_so(
    make_deployment: MakeDeployment,
) -> None:
    behind = await make_deployment(clock=_Behind(), worker=False)
    customer = await make_customer(behind)
    with capture_logs() as logs:
        refused = await customer.generate()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "BSE5002")
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["admission_late"]
    right = await make_deployment(worker=False)
    customer.deployment = right
    assert (await customer.generate()).status_code == 200
    assert await right.differences() == []


async def test_files_are_served_while_the_database_is_away(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment()
    customer = await make_customer(deployment)
    [link] = (await customer.made())["generation_output_file"]
    # Nobody listens there.
    away = await make_deployment(way="postgresql://postgres@127.0.0.1:9/none", worker=False)
    transport = httpx.ASGITransport(app=away.api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        parts = urlsplit(link)
        assert (await client.get(f"{parts.path}?{parts.query}")).status_code == 200
    customer.deployment = away
    answers = [await customer.generate(), await customer.request("GET", "/v1/content/list")]
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [
        (503, "BSE5002"),
        (503, "BSE5002"),
    ]
