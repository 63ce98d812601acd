"""Rankings and breaker at work in a deployment: from attempts that ended to where the next generation goes."""

from functools import partial

from tests.conftest import MakeDeployment
from tests.routing.attempts import resolve
from tests.support import Deployment, eventually, make_customer

MODEL = "bfl/flux-schnell"


async def rank_now(deployment: Deployment) -> None:
    """Count, rank, publish, and have the API process read it."""
    assert deployment.workers is not None
    # Attempts of the past are made up here: what has been counted up to now is counted again, with them.
    await deployment.db.execute(
        "UPDATE attempt_rollup SET ranked_at = '-infinity', upto = now() - interval '24 hours'"
    )
    assert await deployment.workers.regions["us"].ranking.run()
    await deployment.api.regions["us"].rankings.refresh()


async def _has_ranked(deployment: Deployment) -> bool:
    """Whether the worker has counted by itself, which it does at its start and then not for half a minute."""
    return bool(
        await deployment.db.fetchval("SELECT upto > now() - interval '5 minutes' FROM attempt_rollup")
    )


async def test_fastest_follows_what_was_measured_and_an_order_is_followed_as_given(
    make_deployment: MakeDeployment,
) -> None:
    deployment = await make_deployment(exploration_share=0.0)
    customer = await make_customer(deployment)
    await eventually(partial(_has_ranked, deployment))
    for provider, took_s in (("replicate", 20), ("fal", 9), ("cloudflare", 2)):
        await resolve(deployment.db, provider, "used", 600, took_s=took_s, times=20, model=MODEL)
    before = await customer.made(MODEL)
    assert before["generation_provider_order"] == ["replicate", "fal", "cloudflare"]
    await rank_now(deployment)
    made = await customer.made(MODEL)
    assert made["generation_provider_order"] == ["cloudflare", "fal", "replicate"]
    assert made["generation_provider_used"] == "cloudflare"
    asked = await customer.made(MODEL, generation_provider_order="fal, cloudflare")
    assert asked["generation_provider_order"] == ["fal", "cloudflare"]
    assert asked["generation_provider_used"] == "fal"


async def test_a_provider_that_fails_is_passed_over_in_any_order(make_deployment: MakeDeployment) -> None:
    deployment = await make_deployment(exploration_share=0.0)
    customer = await make_customer(deployment)
    await resolve(deployment.db, "fal", "failed", failure="failed", times=5)
    made = await customer.made(MODEL, generation_provider_order="fal, cloudflare")
    assert made["generation_provider_order"] == ["fal", "cloudflare"]
    assert made["generation_provider_used"] == "cloudflare"
    only = await customer.made(MODEL, generation_provider_order="fal")
    assert only["generation_provider_used"] == "fal"
