"""Every method of both clients against a real server."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.sdk.clients import KINDS, Side
from tests.sdk.conftest import Live
from tests.support import make_account

from babysea import (
    AuthenticationError,
    ConflictError,
    FirewallRejectedError,
    GenerationCanceledError,
    GenerationFailedError,
    GenerationTimeoutError,
    InsufficientCreditsError,
    InvalidInputError,
    Job,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    _operations,
)
from babysea._operations import Operation
from babysea_server.contract.operations import OPERATIONS

READS: dict[str, tuple[Any, ...]] = {
    "status": (),
    "usage": (7,),
    "account": (),
    "billing": (),
    "health.providers": (),
    "health.models": (),
    "health.storage": (),
    "health.cache": (),
    "library.providers": (),
    "library.models": (),
}


@pytest.mark.parametrize("method", READS)
async def test_a_read_knows_every_member_of_the_answer(client: Side, method: str) -> None:
    answer = await client.call(method, *READS[method])
    assert answer.request_id.startswith("req_")
    assert answer.extra == {}
    assert answer.raw.keys() <= {*type(answer).__dataclass_fields__}
    for name in ("providers", "models", "usage_endpoints", "usage_providers"):
        parts = getattr(answer, name, ())
        assert all(part.extra == {} for part in parts)


def test_the_paths_are_those_of_the_server() -> None:
    def all_pairs(method: str, path: str, choices: dict[str, list[str]]) -> set[str]:
        pairs = {f"{method} {path}"}
        for name, values in choices.items():
            place = f"{{{name}}}"
            pairs = {
                pair.replace(place, value) for pair in pairs for value in values if place in pair
            } or pairs
        return pairs

    theirs = set[str]()
    for operation in OPERATIONS:
        choices = {
            parameter.name: parameter.schema["enum"]
            for parameter in operation.path_parameters
            if "enum" in parameter.schema
        }
        theirs |= all_pairs(operation.method, operation.template, choices)
    ours = set[str]()
    known = {"media": ["image", "video"], "subject": ["providers", "models"]}
    for value in vars(_operations).values():
        if isinstance(value, Operation):
            ours |= all_pairs(value.method, value.path, known)
    assert len(ours) == 17
    assert ours == theirs


async def test_an_estimate_tells_the_price(client: Side) -> None:
    estimate = await client.call(
        "estimate", "sandbox/video", count=3, duration=5, resolution="720p", audio=True
    )
    assert (estimate.assets_count, estimate.duration_seconds, estimate.resolution) == (3, 5, "720p")
    assert estimate.cost_total_consumed == pytest.approx(3 * estimate.cost_per_generation)
    image = await client.call("estimate", "sandbox/image")
    assert (image.model_type, image.cost_per_second, image.extra) == ("image", None, {})


async def test_a_picture_is_made_and_saved(client: Side, tmp_path: Path) -> None:
    seen: list[str] = []
    generation = await client.call(
        "generate_and_wait",
        "sandbox/image",
        "a red fox",
        output_number=2,
        seed=7,
        on_update=lambda now: seen.append(now.status),
    )
    assert (generation.status, len(generation.urls), generation.model_identifier) == (
        "succeeded",
        2,
        "sandbox/image",
    )
    assert seen[-1] == "succeeded"
    assert generation.extra == {"generation_seed": 7}
    assert generation.generation_created_at.tzinfo is not None
    paths = await client.call("download", generation, tmp_path)
    assert [path.suffix for path in paths] == [".png", ".png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


async def test_a_clip_is_made_and_saved_in_one_file(client: Side, tmp_path: Path) -> None:
    accepted = await client.call("generate", "sandbox/video", "waves", duration=1, resolution="360p")
    assert (accepted.generation_initialized, accepted.generation_provider_order) == (True, ("sandbox",))
    generation = await client.call("wait_for_generation", accepted.id)
    assert (generation.generation_duration, generation.generation_audio_mode) == (1, "noaudio")
    (path,) = await client.call("download", accepted.id, tmp_path / "waves.mp4")
    assert path.read_bytes()[4:8] == b"ftyp"


async def test_one_key_is_one_generation(client: Side) -> None:
    key = str(uuid4())
    first = await client.call("generate", "sandbox/image", "a fox", idempotency_key=key)
    again = await client.call("generate", "sandbox/image", "a fox", idempotency_key=key)
    assert (first.id, first.replayed) == (again.id, False)
    assert (again.replayed, again.idempotency_key) == (True, key)
    with pytest.raises(ConflictError) as caught:
        await client.call("generate", "sandbox/image", "an owl", idempotency_key=key)
    assert caught.value.code == "BSE2015"


async def test_a_generation_in_flight_is_canceled_once(client: Side) -> None:
    accepted = await client.call("generate", "sandbox/image", "a fox [sandbox:slow:60]")
    with pytest.raises(ConflictError) as too_early:
        await client.call("delete_generation", accepted.id)
    assert too_early.value.code == "BSE3003"
    with pytest.raises(GenerationTimeoutError):
        await client.call("wait_for_generation", accepted.id, timeout=0)

    canceled = await client.call("cancel_generation", accepted.id)
    assert (canceled.generation_id, canceled.credits_refunded) == (accepted.id, 0.001)
    with pytest.raises(ConflictError) as twice:
        await client.call("cancel_generation", accepted.id)
    assert twice.value.code == "BSE3002"
    with pytest.raises(GenerationCanceledError):
        await client.call("wait_for_generation", accepted.id)


async def test_a_final_generation_is_deleted(client: Side) -> None:
    generation = await client.call("generate_and_wait", "sandbox/image", "a fox")
    deleted = await client.call("delete_generation", generation.id)
    assert (deleted.generation_id, deleted.files_deleted) == (generation.id, 1)
    for method in ("get_generation", "delete_generation", "cancel_generation", "download"):
        with pytest.raises(NotFoundError) as caught:
            await client.call(method, generation.id)
        assert caught.value.code == "BSE3001"


async def test_a_generation_that_fails_is_raised_with_its_code(client: Side) -> None:
    with pytest.raises(GenerationFailedError) as caught:
        await client.call("generate_and_wait", "sandbox/image", "a fox [sandbox:refuse_policy]")
    assert caught.value.code == "BSE2006"
    assert caught.value.generation.generation_error == caught.value.message


@pytest.mark.parametrize("kind", KINDS)
async def test_all_generations_are_gone_through(kind: str, live: Live) -> None:
    _, key = await make_account(live.deployment.db)
    client = live.client(kind, key)
    made = [(await client.call("generate", "sandbox/image", f"number {number}")).id for number in range(5)]
    assert [one.id for one in await client.call("iter_generations")] == made[::-1]
    page = await client.call("list_generations", limit=2, offset=1)
    assert ([one.id for one in page], page.total) == ([made[3], made[2]], 5)
    await client.close()


async def test_the_server_tells_what_is_wrong_with_a_field(client: Side) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await client.call("generate", "sandbox/image", "a fox", ratoi="16:9")
    assert (caught.value.code, caught.value.details["field"]) == ("BSE2001", "generation_ratoi")
    with pytest.raises(InvalidInputError):
        await client.call("estimate", "sandbox/video", duration=99)


async def test_a_model_that_does_not_exist_is_told(client: Side) -> None:
    for method in ("generate", "estimate", "library.model"):
        with pytest.raises(NotFoundError) as caught:
            await client.call(method, "sandbox/nothing")
        assert caught.value.code == "BSE2011"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_may_do_what_its_scopes_say(kind: str, live: Live) -> None:
    _, writer = await make_account(live.deployment.db, scopes=["generation:write"])
    client = live.client(kind, writer)
    assert (await client.call("generate", "sandbox/image", "a fox")).id
    assert (await client.call("generate", "sandbox/video", "waves", duration=1)).id
    with pytest.raises(PermissionDeniedError) as caught:
        await client.call("account")
    assert caught.value.code == "BSE1003"
    await client.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_key_an_empty_account_and_a_full_one_are_told_apart(kind: str, live: Live) -> None:
    stranger = live.client(kind, "bye_" + "x" * 40)
    with pytest.raises(AuthenticationError):
        await stranger.call("status")
    _, poor = await make_account(live.deployment.db, credits="0")
    pauper = live.client(kind, poor)
    with pytest.raises(InsufficientCreditsError):
        await pauper.call("generate", "sandbox/image", "a fox")
    _, small = await make_account(live.deployment.db, plan="free")
    busy = live.client(kind, small, max_retries=0)
    for _ in range(2):
        await busy.call("generate", "sandbox/image", "a fox [sandbox:slow:60]")
    with pytest.raises(RateLimitError) as caught:
        await busy.call("generate", "sandbox/image", "a fox")
    assert (caught.value.code, caught.value.details) == ("BSE1009", {"limit": 2, "in_flight": 2})
    assert caught.value.rate_limit is not None
    assert caught.value.rate_limit.limit == 60
    for side in (stranger, pauper, busy):
        await side.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_region_that_is_not_served_is_told_with_what_is_allowed(kind: str, live: Live) -> None:
    client = live.client(kind, region="jp")
    with pytest.raises(FirewallRejectedError) as caught:
        await client.call("status")
    assert caught.value.details["rule"]
    await client.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_region_is_found_on_ones_own_machine_and_so_are_its_files(
    kind: str, live: Live, tmp_path: Path
) -> None:
    client = live.client(kind, region="us")
    generation = await client.call("generate_and_wait", "sandbox/image", "a fox")
    assert httpx.URL(generation.urls[0]).host == "api.us.localhost"
    assert await client.call("download", generation, tmp_path)
    await client.close()


async def test_many_jobs_keep_their_order_and_their_errors(client: Side) -> None:
    jobs = [
        Job("sandbox/image", "one"),
        Job("sandbox/image", "two [sandbox:fail]"),
        Job("sandbox/nothing", "three"),
        Job("sandbox/image", "four", seed=4),
    ]
    progress: list[tuple[int, int]] = []
    outcomes = await client.call(
        "generate_many", jobs, concurrency=2, on_progress=lambda done, of, _one: progress.append((done, of))
    )
    assert [outcome.job for outcome in outcomes] == jobs
    assert [outcome.generation is not None for outcome in outcomes] == [True, False, False, True]
    assert isinstance(outcomes[1].error, GenerationFailedError)
    assert isinstance(outcomes[2].error, NotFoundError)
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_both_clients_work_side_by_side(live: Live) -> None:
    sides = [live.client(kind) for kind in KINDS]
    calls = [side.call("generate_and_wait", "sandbox/image", "a fox") for side in sides * 3]
    assert {generation.status for generation in await asyncio.gather(*calls)} == {"succeeded"}
    for side in sides:
        await side.close()
