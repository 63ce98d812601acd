"""The ids on the lines of the log: from a request to the generation, and on to each attempt."""

from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs
from tests.support import Customer, eventually


async def test_lines_carry_the_ids_of_the_request_the_generation_and_the_attempt(customer: Customer) -> None:
    with capture_logs(processors=[merge_contextvars]) as lines:
        response = await customer.generate(generation_prompt="[sandbox:fail]")
        data = response.json()["data"]
        await customer.finished(data["generation_id"])

        async def settled() -> bool:
            return any(line["event"] == "generation_settled" for line in lines)

        await eventually(settled)
    [served] = [
        line for line in lines if line["event"] == "request_served" and line["operation"] == "generate"
    ]
    assert served["request_id"] == response.json()["request_id"]
    assert served["generation_id"] == data["generation_id"]
    [ended] = [line for line in lines if line["event"] == "generation_settled"]
    assert ended["generation_id"] == data["generation_id"]
    assert ended["attempt_id"] == data["generation_prediction_id"], (
        "the first attempt has the id that was told"
    )
    others = [line for line in lines if line["event"] == "request_served" and line is not served]
    assert all("generation_id" not in line for line in others), "no request inherits another's ids"
