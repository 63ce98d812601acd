"""Scores and rankings: what they are made of, and what becomes of documents that are none."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.routing.ranking import (
    DECAYED,
    KNOWN_FROM,
    PUBLISHED,
    STALE_AFTER_S,
    Ranking,
    Rule,
    figures,
    rank,
    read_ranking,
)
from babysea_server.routing.statistics import (
    BUCKET_MAX,
    NO_SUCCESS,
    Counts,
    Record,
    bucket_of,
    latency_of,
    weight_of,
)

NOW = datetime(2026, 4, 28, 12, tzinfo=UTC)


def counts(successes: float = 0, latency_s: float = 1.0, failures: float = 0, wasted: float = 0) -> Counts:
    found = Counts()
    if successes:
        found.add(bucket_of(latency_s), successes, 0, 0)
    if failures or wasted:
        found.add(NO_SUCCESS, max(failures, wasted), failures, wasted)
    return found


def record(**day: float) -> Record:
    return Record(day=counts(**day), lately=counts(**day))


def order(records: dict[str, Record], rule: Rule = PUBLISHED) -> list[str]:
    return [each.provider for each in figures(records, rule)]


# ------------------------------------------------------------------------------- latencies


@given(st.floats(0.001, 1700))
def test_a_latency_lies_within_its_bucket(latency_s: float) -> None:
    bucket = bucket_of(latency_s)
    assert latency_of(bucket) <= latency_s * (1 + 1e-9)
    assert latency_s < latency_of(bucket + 1) * (1 + 1e-9)


def test_what_is_too_short_or_too_long_to_measure_has_a_bucket() -> None:
    assert [bucket_of(0), bucket_of(-5), bucket_of(1e9)] == [0, 0, BUCKET_MAX]


@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=200), st.floats(0.05, 1))
def test_a_quantile_is_off_by_less_than_a_bucket(latencies: list[float], share: float) -> None:
    found = Counts()
    for latency_s in latencies:
        found.add(bucket_of(latency_s), 1, 0, 0)
    exact = sorted(latencies)[max(0, -int(-share * len(latencies) // 1) - 1)]
    quantile = found.quantile(share)
    assert quantile is not None
    width = 2**0.25 * (1 + 1e-9)
    assert exact / width <= quantile <= exact * width


def test_without_a_success_there_is_no_quantile() -> None:
    assert counts(failures=3).quantile(0.95) is None


def test_an_attempt_counts_half_after_a_half_life_and_never_more_than_one() -> None:
    assert weight_of(0, 60) == weight_of(-5, 60) == 1
    assert weight_of(60, 60) == pytest.approx(0.5)
    assert weight_of(180, 60) == pytest.approx(0.125)


# ------------------------------------------------------------------------------- scores


def test_the_score_is_the_published_formula() -> None:
    records = {
        "slow": record(successes=100, latency_s=10),
        "wasteful": record(successes=80, latency_s=5, failures=20, wasted=10),
    }
    found = {each.provider: each for each in figures(records, PUBLISHED)}
    assert found["slow"].score == pytest.approx(1 - 0.3)
    assert found["wasteful"].latency == pytest.approx(0.5, abs=0.06)
    assert found["wasteful"].score == pytest.approx(
        0.8 - 0.5 * 0.1 - 0.3 * found["wasteful"].latency, abs=1e-6
    )


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"successes": 100}, {"successes": 90, "failures": 10}),
        ({"successes": 90, "failures": 10}, {"successes": 90, "failures": 10, "wasted": 10}),
        ({"successes": 100, "latency_s": 2.0}, {"successes": 100, "latency_s": 9.0}),
        ({"successes": 10}, {"failures": 10}),
    ],
)
@pytest.mark.parametrize("rule", [PUBLISHED, DECAYED], ids=lambda rule: rule.name)
def test_success_thrift_and_speed_each_put_a_provider_first(
    better: dict[str, float], worse: dict[str, float], rule: Rule
) -> None:
    assert order({"a": record(**worse), "b": record(**better)}, rule) == ["b", "a"]


def test_equal_scores_are_ordered_by_latency_and_then_by_name() -> None:
    failed = record(failures=10)
    assert order({"b": failed, "a": failed, "c": failed}) == ["a", "b", "c"]
    same = record(successes=10)
    assert order({"b": same, "a": same}) == ["a", "b"]
    # 100 % at a latency of 1 and 70 % at no latency worth speaking of: the same score, and the quicker is first.
    quick = {
        "a": record(successes=1e6, latency_s=1000),
        "b": record(successes=7e5, failures=3e5, latency_s=0.001),
    }
    assert [round(each.score, 4) for each in figures(quick, PUBLISHED)] == [0.7, 0.7]
    assert order(quick) == ["b", "a"] or figures(quick, PUBLISHED)[0].score > 0.7


def test_a_provider_of_few_attempts_is_not_known() -> None:
    records = {"a": record(successes=KNOWN_FROM), "b": record(successes=KNOWN_FROM - 1)}
    assert order(records) == ["a"]
    assert rank(records, PUBLISHED, NOW).attempts_total == 2 * KNOWN_FROM - 1


def test_a_late_result_was_wasted_and_is_neither_success_nor_failure() -> None:
    found = figures({"a": record(successes=10, wasted=10)}, PUBLISHED)[0]
    assert (found.success_rate, found.wasted_rate, found.attempts) == (1.0, 0.5, 20)
    assert figures({"a": record(wasted=50)}, PUBLISHED) == []


def test_what_happened_lately_outweighs_the_day() -> None:
    records = {
        "a": Record(day=counts(successes=10_000), lately=counts(failures=30)),
        "b": record(successes=50, latency_s=3.0),
    }
    assert order(records, PUBLISHED) == ["a", "b"]
    assert order(records, DECAYED) == ["b", "a"]


def test_where_little_happened_lately_the_day_stands_in() -> None:
    records = {
        "a": Record(day=counts(successes=500, latency_s=2.0), lately=counts(failures=1)),
        "b": Record(day=counts(successes=500, latency_s=8.0)),
    }
    found = {each.provider: each for each in figures(records, DECAYED)}
    assert found["a"].success_rate == pytest.approx(0.95)
    assert order(records, DECAYED) == ["a", "b"]


def test_a_provider_that_became_faster_is_found_by_a_few_recent_successes() -> None:
    records = {
        "a": record(successes=10_000, latency_s=5.0),
        "b": Record(day=counts(successes=300, latency_s=12.0), lately=counts(successes=4, latency_s=1.5)),
    }
    assert order(records, PUBLISHED) == ["a", "b"]
    assert order(records, DECAYED) == ["b", "a"]


weights = st.floats(0, 1000)
records = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(
        lambda day, part: Record(
            day=counts(*day), lately=counts(day[0] * part, day[1], day[2] * part, day[3] * part)
        ),
        st.tuples(weights, st.floats(0.001, 900), weights, weights),
        st.floats(0, 1),
    ),
)


@given(records, st.sampled_from([PUBLISHED, DECAYED]))
def test_figures_are_rates_and_the_order_holds_each_known_provider_once(
    found: dict[str, Record], rule: Rule
) -> None:
    ordered = figures(found, rule)
    assert len({each.provider for each in ordered}) == len(ordered)
    assert {each.provider for each in ordered} <= set(found)
    for each in ordered:
        for rate in (each.success_rate, each.wasted_rate, each.latency):
            assert 0 <= rate <= 1 + 1e-9
        assert -0.8 - 1e-6 <= each.score <= 1 + 1e-6
    assert [each.score for each in ordered] == sorted((each.score for each in ordered), reverse=True)


# ------------------------------------------------------------------------------- documents


def document(**changes: Any) -> bytes:
    whole = {
        "providers_ranked": ["a", "b"],
        "scores": {"a": 0.9, "b": 0.5},
        "attempts_total": 12,
        "window_hours": 24,
        "computed_at": "2026-04-28T12:00:00Z",
    }
    return msgspec.json.encode({**whole, **changes})


def test_a_ranking_survives_its_document() -> None:
    ranking = rank({"a": record(successes=9), "b": record(successes=9, failures=9)}, DECAYED, NOW)
    encoded = msgspec.json.encode(ranking)
    assert read_ranking(encoded) == ranking
    assert set(msgspec.json.decode(encoded)) == {
        "providers_ranked", "scores", "attempts_total", "window_hours", "computed_at",
    }  # fmt: skip
    assert read_ranking(document()) == Ranking(
        providers_ranked=("a", "b"),
        scores={"a": 0.9, "b": 0.5},
        attempts_total=12,
        window_hours=24,
        computed_at=NOW,
    )


@pytest.mark.parametrize(
    "malformed",
    [
        b"", b"\xff", b"null", b"{}", b"[]", document()[:-1],
        document(providers_ranked="a, b"), document(providers_ranked=["a", "a"]), document(providers_ranked=[1]),
        document(scores=[]), document(attempts_total=-1), document(window_hours=0),
        document(computed_at="yesterday"), document(computed_at="2026-04-28T12:00:00"), document(computed_at=None),
    ],
)  # fmt: skip
def test_what_is_no_ranking_is_not_read(malformed: bytes) -> None:
    assert read_ranking(malformed) is None


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_nothing_that_is_read_raises(anything: bytes) -> None:
    assert read_ranking(anything) is None


def test_a_ranking_is_current_for_five_minutes() -> None:
    ranking = rank({}, DECAYED, NOW)
    for age_s, current in (
        (0, True),
        (STALE_AFTER_S, True),
        (STALE_AFTER_S + 1, False),
        (-STALE_AFTER_S - 1, False),
    ):
        assert ranking.is_current(NOW + timedelta(seconds=age_s)) is current
