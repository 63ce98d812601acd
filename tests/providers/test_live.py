"""Each provider from `/v1/generate` to a stored, settled output, and each way in which it can misbehave.

The provider is its emulator: a real HTTP server on loopback that speaks the provider's protocol. Nothing between the
customer's request and that server is replaced. What must come of each misbehaviour stands in the provider's profile.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.conftest import MakeDeployment
from tests.effort import EFFORT
from tests.emulators.kit import CALLBACKS, Emulator, Misbehavior, running
from tests.providers.live import Live, live
from tests.providers.profiles.all import PROFILES
from tests.providers.profiles.kit import Case, Outcome, Profile

from babysea_server.execution.verdict import RULES
from babysea_server.providers.adapters import adapters
from babysea_server.providers.base import Failure

IDS = sorted(PROFILES)


@pytest.fixture(params=IDS)
def profile(request: pytest.FixtureRequest) -> Profile:
    return PROFILES[request.param]


def test_every_adapter_has_a_profile_that_leaves_nothing_out() -> None:
    assert set(PROFILES) == set(adapters())
    for provider, profile in PROFILES.items():
        assert set(profile.outcomes) == set(Misbehavior), provider
        reasons = {word for word, outcome in profile.outcomes.items() if isinstance(outcome, str)}
        assert all(len(str(profile.outcomes[word])) > 15 for word in reasons), "a reason is a sentence"
        called_back = adapters()[provider].traits.delivery == "webhook_with_polling"
        assert called_back or reasons >= CALLBACKS, provider


#: One of each way of delivery: calls back, is polled, answers at once.
_ALWAYS = ("replicate", "bfl", "openai")


@asynccontextmanager
async def _live(make_deployment: MakeDeployment, profile: Profile, **settings: Any) -> AsyncIterator[Live]:
    async with (
        running(profile.emulator()) as emulator,
        live(make_deployment, [emulator], **settings) as found,
    ):
        yield found


async def test_what_it_makes_is_stored_and_settled(make_deployment: MakeDeployment, profile: Profile) -> None:
    async with _live(make_deployment, profile) as system:
        cases = list(filter(None, (profile.image, profile.video)))
        sent = [await system.generate(case, "a quiet harbour", profile.emulator.provider) for case in cases]
        for case, generation in zip(cases, sent, strict=True):
            ended = await system.ended(generation)
            assert ended.status == "succeeded", (case.model, ended)
            assert ended.provider == profile.emulator.provider
            assert len(ended.files) == case.outputs
            assert ended.charged == ended.reserved > 0
            [attempt] = ended.attempts
            assert (attempt["adapter"], attempt["outcome"]) == (profile.emulator.provider, "used")
        assert system.emulators[0].purchases == sum(max(1, case.submits) for case in cases)


async def test_each_misbehaviour_alone_ends_as_documented(
    make_deployment: MakeDeployment, profile: Profile
) -> None:
    provider = profile.emulator.provider
    case = profile.image or profile.video
    assert case is not None
    asked = {word: outcome for word, outcome in profile.outcomes.items() if isinstance(outcome, Outcome)}
    async with _live(make_deployment, profile, callbacks=True) as system:
        emulator = system.emulators[0]
        sent = {
            word: await system.generate(_case(profile, outcome), f"[emulate:{word}] a harbour", provider)
            for word, outcome in asked.items()
        }
        wrong = []
        for word, generation in sent.items():
            ended = await system.ended(generation)
            expected = asked[word]
            seen = (ended.failure, ended.code)
            if seen != (expected.failure, expected.code):
                wrong.append(f"{word}: {seen}, not {(expected.failure, expected.code)}: {ended.attempts}")
            if expected.failure is not None:
                assert ended.refunded == ended.reserved, word
                assert ended.charged == 0, word
            bought = _purchases(emulator, word)
            if expected.purchases is not None and bought != expected.purchases:
                wrong.append(f"{word}: bought {bought} times, not {expected.purchases}")
        assert wrong == []


async def test_what_happens_next_is_what_the_table_says(
    make_deployment: MakeDeployment, profile: Profile
) -> None:
    provider = profile.emulator.provider
    if EFFORT < 2 and provider not in _ALWAYS:
        pytest.skip("the same code for every provider: the thorough run asks it of all")
    asked = {
        word: outcome
        for word, outcome in profile.outcomes.items()
        if isinstance(outcome, Outcome) and outcome.failure is not None
    }
    async with _live(make_deployment, profile, stand_ins=True) as system:
        sent = {}
        for word, outcome in asked.items():
            order = system.order_of(_case(profile, outcome), provider)
            if order is None:
                pytest.skip(f"no model that {provider} serves has another provider")
            sent[word] = await system.generate(_case(profile, outcome), f"[emulate:{word}] a harbour", *order)
        for word, generation in sent.items():
            ended, expected = await system.ended(generation), asked[word]
            assert expected.failure is not None
            assert RULES[Failure(expected.failure)].next_provider is not expected.ends_chain, word
            first, *others = ended.attempts
            assert (first["provider"], first["failure"]) == (provider, expected.failure), (word, first)
            if expected.ends_chain:
                assert (ended.status, others) == ("failed", []), word
                assert ended.refunded == ended.reserved
            else:
                assert ended.status == "succeeded", (word, ended)
                assert [attempt["outcome"] for attempt in others] == ["used"], word
                assert ended.charged == ended.reserved


async def test_callbacks_end_the_wait_and_decide_nothing(
    make_deployment: MakeDeployment, profile: Profile
) -> None:
    words = [word for word in CALLBACKS if isinstance(profile.outcomes[word], Outcome)]
    if not words:
        pytest.skip(f"{profile.emulator.provider} does not call back")
    case = profile.video if profile.callback_media == "video" else profile.image
    assert case is not None
    async with _live(make_deployment, profile, callbacks=True) as system:
        emulator = system.emulators[0]
        sent = {
            word: await system.generate(case, f"[emulate:{word}] a harbour", emulator.provider)
            for word in words
        }
        for word, generation in sent.items():
            ended = await system.ended(generation)
            assert ended.status == "succeeded", (word, ended)
            assert ended.charged == ended.reserved
        await emulator.settle()
        for word in words:
            assert emulator.callbacks[word] == _callback_statuses(profile, word), word


def _callback_statuses(profile: Profile, word: Misbehavior) -> list[int]:
    signed = adapters()[profile.emulator.provider].traits.verification is not None
    match word:
        case Misbehavior.CALLBACK_TWICE:
            return [200, 200]
        case Misbehavior.CALLBACK_EARLY:
            return [200, 200]
        case Misbehavior.CALLBACK_FORGED:
            return [401] if signed or profile.refuses_forged else [200]
        case _:
            return []


def _case(profile: Profile, outcome: Outcome) -> Case:
    case = profile.video if outcome.media == "video" else profile.image or profile.video
    assert case is not None
    return case


def _purchases(emulator: Emulator, word: Misbehavior) -> int:
    return sum(job.behavior is word for job in emulator.jobs.values())
