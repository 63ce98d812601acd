"""The health of providers: how it is judged, and what real attempts make of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import MakeDeployment
from tests.routing.attempts import AGAINST, resolve
from tests.support import Customer, Deployment, ManualClock, make_customer

from babysea_server.db.pool import Database
from babysea_server.execution.verdict import RULES
from babysea_server.providers.base import Failure
from babysea_server.routing.health import (
    DEGRADED_FAILURE_RATE,
    DEGRADED_MIN_ATTEMPTS,
    RECOVERY_AFTER_S,
    REMEMBERED_S,
    WINDOW_S,
    Limits,
    ProviderHealth,
    Tally,
    assess,
)

NOW = datetime(2026, 4, 28, 12, tzinfo=UTC)


def tally(failures: int, successes: int, age_s: float = 0.0) -> Tally:
    return Tally(failures, successes, NOW - timedelta(seconds=age_s) if failures else None)


@pytest.mark.parametrize(
    ("failures", "successes", "age_s", "status"),
    [
        (0, 0, 0, "unknown"),
        (0, 1, 0, "healthy"),
        (4, 0, 0, "healthy"),  # too few to judge
        (5, 0, 0, "degraded"),
        (3, 3, 0, "degraded"),
        (3, 4, 0, "healthy"),
        (5, 0, 59.9, "degraded"),
        (5, 0, 60, "recovering"),
        (50, 50, 299, "recovering"),
        (49, 51, 0, "healthy"),
    ],
)
def test_the_status_follows_from_the_attempts(
    failures: int, successes: int, age_s: float, status: str
) -> None:
    assert assess(tally(failures, successes, age_s), NOW) == status


@pytest.mark.parametrize(
    ("failures", "successes", "ages", "status"),
    [
        # A success closes it when it was submitted after the last failure, and not when before.
        (50, 1, {"last_failure": 70, "last_success": 69}, "healthy"),
        (50, 1, {"last_failure": 70, "last_success": 71}, "recovering"),
        (50, 1, {"last_failure": 10, "last_success": 10}, "degraded"),
        # What only the operator can mend opens it at once, until a success that was submitted later.
        (1, 99, {"last_failure": 5, "last_operator_failure": 5, "last_success": 6}, "degraded"),
        (1, 99, {"last_failure": 61, "last_operator_failure": 61, "last_success": 62}, "recovering"),
        (2, 99, {"last_failure": 5, "last_operator_failure": 70, "last_success": 20}, "healthy"),
        (2, 99, {"last_failure": 5, "last_operator_failure": 70, "last_success": 80}, "degraded"),
        # A probe that failed keeps it open, also when the failures before it have left the window.
        (1, 0, {"last_failure": 5, "probed_at": 6}, "degraded"),
        (1, 0, {"last_failure": 61, "probed_at": 62}, "recovering"),
        (1, 0, {"last_failure": 7, "probed_at": 6}, "healthy"),
        (1, 1, {"last_failure": 5, "probed_at": 9, "last_success": 8}, "healthy"),
    ],
)
def test_the_status_follows_from_the_last_failure_and_what_came_after_it(
    failures: int, successes: int, ages: dict[str, float], status: str
) -> None:
    found = Tally(failures, successes)
    for name, age_s in ages.items():
        found = msgspec.structs.replace(found, **{name: NOW - timedelta(seconds=age_s)})
    assert assess(found, NOW) == status


def test_the_limits_are_the_operators_to_set() -> None:
    limits = Limits(attempts_min=2, failure_rate=0.9, rest_s=5)
    assert assess(tally(2, 0), NOW, limits) == "degraded"
    assert assess(tally(2, 0, 5), NOW, limits) == "recovering"
    assert assess(tally(4, 1), NOW, limits) == "healthy"


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, WINDOW_S), st.floats(0, WINDOW_S))
def test_only_time_and_successes_help_a_provider(
    failures: int, successes: int, age_s: float, later_s: float
) -> None:
    before = assess(tally(failures, successes, age_s), NOW)
    judged = failures + successes >= DEGRADED_MIN_ATTEMPTS
    failing = judged and failures / (failures + successes) >= DEGRADED_FAILURE_RATE
    assert (before in ("degraded", "recovering")) == failing
    assert (before == "unknown") == (failures + successes == 0)
    later = assess(tally(failures, successes, age_s + later_s), NOW)
    assert later == before or (before, later) == ("degraded", "recovering")
    assert assess(tally(failures, successes + failures + 1, age_s), NOW) == "healthy"


# ------------------------------------------------------------------------------- what is counted


def health_of(db: Database, clock: ManualClock | None = None) -> ProviderHealth:
    return ProviderHealth(db, clock or ManualClock(), providers=["b", "a"], failures=AGAINST)


async def counted(db: Database) -> tuple[int, int]:
    found = (await health_of(db).window()).tally("a")
    return found.failures, found.successes


async def test_without_attempts_every_provider_is_unknown(db: Database) -> None:
    assert await health_of(db).statuses() == {"a": "unknown", "b": "unknown"}


@pytest.mark.parametrize("failure", Failure)
async def test_a_failure_counts_as_the_table_of_verdicts_says(db: Database, failure: Failure) -> None:
    await resolve(db, "a", "failed", failure=failure.value)
    assert await counted(db) == (int(RULES[failure].trips_breaker), 0)


async def test_cancels_late_results_open_attempts_and_our_own_storage_count_for_nothing(db: Database) -> None:
    for outcome in ("cancelled", "discarded", "pending"):
        await resolve(db, "a", outcome)
    await resolve(db, "a", "failed", failure="bad_output", code="BSE5003")
    assert await counted(db) == (0, 0)
    await resolve(db, "a", "failed", failure="bad_output", code="BSE4010")
    await resolve(db, "a", "used")
    assert await counted(db) == (1, 1)


async def test_what_ended_before_the_window_is_forgotten(db: Database) -> None:
    for _ in range(5):
        await resolve(db, "a", "failed", WINDOW_S + 1, failure="failed")
        await resolve(db, "b", "failed", WINDOW_S - 10, failure="failed")
    assert await health_of(db).statuses() == {"a": "unknown", "b": "recovering"}


async def test_a_minute_after_its_last_failure_a_provider_recovers(db: Database) -> None:
    for _ in range(5):
        await resolve(db, "a", "failed", failure="timed_out")
    assert (await health_of(db).statuses())["a"] == "degraded"
    await db.execute(
        "UPDATE attempts SET resolved_at = resolved_at - make_interval(secs => $1)", float(RECOVERY_AFTER_S)
    )
    assert (await health_of(db).statuses())["a"] == "recovering"


async def test_a_reading_is_believed_for_two_seconds(db: Database) -> None:
    clock = ManualClock()
    health = health_of(db, clock)
    assert (await health.statuses())["a"] == "unknown"
    await resolve(db, "a", "used")
    clock.advance(REMEMBERED_S - 0.1)
    assert (await health.statuses())["a"] == "unknown"
    clock.advance(0.1)
    assert (await health.statuses())["a"] == "healthy"


# ------------------------------------------------------------------------------- over the wire


async def read(customer: Customer, subject: str) -> Any:
    response = await customer.request("GET", f"/v1/health/inference/{subject}")
    assert response.status_code == 200, response.text
    return response.json()["data"]


async def test_a_fresh_server_knows_nothing_and_offers_everything(
    deployment: Deployment, customer: Customer
) -> None:
    data = await read(customer, "providers")
    names = [provider["provider"] for provider in data["providers"]]
    assert names == sorted(names)
    assert (data["service"], data["healthy"], data["providers_total"]) == ("providers", True, len(names))
    assert data["providers"][0] == {
        "provider": "alibabacloud",
        "status": "unknown",
        "failure_rate": 0.0,
        "window": {"total_attempts": 0, "failures": 0, "successes": 0, "duration_seconds": 300},
    }
    library = (await customer.request("GET", "/v1/library/models")).json()["data"]["models"]
    models = await read(customer, "models")
    assert (models["service"], models["healthy"], models["models_total"]) == ("models", True, len(library))
    assert [
        (model["model_identifier"], model["model_type"], model["model_pricing"], [*model["providers"]])
        for model in models["models"]
    ] == [
        (
            model["model_identifier"],
            model["model_type"],
            model["model_pricing"],
            model["model_supported_provider"],
        )
        for model in library
    ]


async def test_providers_that_fail_are_degraded_and_their_models_are_not_available_there(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(sandbox_behaviors={"fal": "fail", "replicate": "refuse_input"})
    customer = await make_customer(deployment)
    for _ in range(5):
        made = await customer.made("bfl/flux-schnell", generation_provider_order="fal, replicate, cloudflare")
        assert made["generation_provider_used"] == "cloudflare"
    data = await read(customer, "providers")
    found = {provider["provider"]: provider for provider in data["providers"]}
    assert data["healthy"] is False
    assert found["fal"]["status"] == "degraded"
    assert found["fal"]["failure_rate"] == 1.0
    assert found["fal"]["window"] == {
        "total_attempts": 5,
        "failures": 5,
        "successes": 0,
        "duration_seconds": 300,
    }
    assert found["cloudflare"]["status"] == "healthy"
    assert found["cloudflare"]["window"]["successes"] == 5
    assert found["replicate"]["status"] == "unknown"  # it refused what the customer sent: no fault of its own

    models = {model["model_identifier"]: model for model in (await read(customer, "models"))["models"]}
    providers = models["bfl/flux-schnell"]["providers"]
    assert {name: at["available"] for name, at in providers.items()} == {
        "replicate": True,
        "fal": False,
        "cloudflare": True,
    }
    catalog = deployment.api.regions["us"].provider_health
    assert catalog.providers == tuple(sorted(found))
    only_fal = [model for model in models.values() if set(model["providers"]) == {"fal"}]
    assert (await read(customer, "models"))["healthy"] is (only_fal == [])


async def test_a_model_whose_only_provider_is_degraded_makes_the_whole_unhealthy(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(sandbox_behaviors={"sandbox": "fail"})
    customer = await make_customer(deployment)
    for _ in range(5):
        assert (await customer.made())["generation_status"] == "failed"
    data = await read(customer, "models")
    gone = [
        model["model_identifier"]
        for model in data["models"]
        if not any(at["available"] for at in model["providers"].values())
    ]
    assert data["healthy"] is False
    assert gone == ["sandbox/image", "sandbox/video"]


async def test_the_health_of_an_unknown_subject_is_no_operation(customer: Customer) -> None:
    response = await customer.request("GET", "/v1/health/inference/labs")
    assert (response.status_code, response.json()["error"]["code"]) == (403, "BSE1010")
