"""The order of a request's providers: asked for, ranked, or the model's own; and now and then another one first."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.contract.envelope import error_body
from babysea_server.errors import ApiError
from babysea_server.kit import json
from babysea_server.routing.chain import Router, arrange, explore

PROVIDERS = ("a", "b", "c", "d")

some_of_them = st.lists(st.sampled_from(PROVIDERS), unique=True).map(tuple)


def router(ranked: Sequence[str] | None = None, missing: str = "", exploration: float = 0.0) -> Router:
    return Router(
        lambda provider: provider not in missing,
        lambda _model: ranked,
        exploration=exploration,
        random=Random(1),
    )


def test_an_explicit_order_is_followed_as_given() -> None:
    chosen = router(ranked=["a", "b"], missing="d", exploration=1.0)
    assert chosen.chain("m/m", ("c", "d", "b", "a"), explicit=True) == ("c", "b", "a")


def test_fastest_follows_the_ranking() -> None:
    assert router(ranked=["c", "a", "b", "d"]).chain("m/m", PROVIDERS, explicit=False) == ("c", "a", "b", "d")


def test_providers_the_ranking_does_not_know_follow_in_the_models_order() -> None:
    assert router(ranked=["d"]).chain("m/m", PROVIDERS, explicit=False) == ("d", "a", "b", "c")


def test_a_ranking_brings_nobody_in_who_cannot_take_the_request() -> None:
    chosen = router(ranked=["x", "c", "b", "a"], missing="b")
    assert chosen.chain("m/m", ("a", "b", "c"), explicit=False) == ("c", "a")


@pytest.mark.parametrize("ranked", [None, []])
def test_without_a_ranking_the_models_own_order_stands(ranked: list[str] | None) -> None:
    assert router(ranked).chain("m/m", PROVIDERS, explicit=False) == PROVIDERS


def test_nobody_to_call_is_an_error_that_names_each_provider() -> None:
    with pytest.raises(ApiError) as raised:
        router(missing="ab").chain("m/m", ("a", "b"), explicit=False)
    error = json.loads(error_body("req_1", raised.value))["error"]
    assert (error["code"], raised.value.spec.status, error["details"]) == (
        "BSE4011",
        503,
        {"providers": ["a", "b"]},
    )
    assert error["provider_errors"] == [
        {
            "provider": provider,
            "code": "BSE4011",
            "type": "no_provider_available",
            "message": f"{provider} is not configured on this server.",
            "retryable": True,
        }
        for provider in ("a", "b")
    ]


@given(some_of_them, st.none() | some_of_them, st.floats(0, 1), st.integers(), st.booleans())
def test_a_chain_is_a_permutation_of_what_can_be_called(
    eligible: tuple[str, ...],
    ranked: tuple[str, ...] | None,
    share: float,
    seed: int,
    explicit: bool,
) -> None:
    chosen = Router(lambda name: name != "b", lambda _: ranked, exploration=share, random=Random(seed))
    callable = [name for name in eligible if name != "b"]
    if not callable:
        with pytest.raises(ApiError, match="BSE4011"):
            chosen.chain("m/m", eligible, explicit=explicit)
        return
    chain = chosen.chain("m/m", eligible, explicit=explicit)
    assert sorted(chain) == sorted(callable)
    if explicit:
        assert list(chain) == callable


@given(some_of_them, st.none() | some_of_them)
def test_an_arranged_order_keeps_the_ranking_and_the_own_order_within_it(
    eligible: tuple[str, ...], ranked: tuple[str, ...] | None
) -> None:
    arranged = arrange(eligible, ranked)
    known = [name for name in ranked or () if name in eligible]
    assert list(arranged[: len(known)]) == known
    assert [name for name in eligible if name not in known] == list(arranged[len(known) :])


@given(some_of_them, st.integers())
def test_exploring_moves_one_other_provider_to_the_front(order: tuple[str, ...], seed: int) -> None:
    explored = explore(order, 1.0, Random(seed))
    if len(order) < 2:
        assert explored == order
        return
    assert explored[0] in order[1:]
    assert list(explored[1:]) == [name for name in order if name != explored[0]]
    assert explore(order, 0.0, Random(seed)) == order


def test_the_share_of_explored_requests_is_the_one_that_was_asked_for() -> None:
    chosen = router(exploration=0.1)
    firsts = [chosen.chain("m/m", PROVIDERS, explicit=False)[0] for _ in range(10_000)]
    assert 900 < sum(first != "a" for first in firsts) < 1100
    assert all(firsts.count(name) > 250 for name in "bcd")
