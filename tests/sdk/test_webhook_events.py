"""What the bodies of webhooks become, and which are refused although they were signed."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sdk.signing import AT, GENERATION, SECRET, body, signed

from babysea.webhooks import (
    Data,
    Event,
    GenerationCanceled,
    GenerationCompleted,
    GenerationFailed,
    GenerationStarted,
    LowBalance,
    Test,
    ThresholdCrossed,
    WebhookVerificationError,
    read_event,
    verify,
)


def _read(event: str, data: Any) -> Event:
    payload = body(event, data)
    return verify(payload, signed(payload), SECRET, now=AT)


@pytest.mark.parametrize(
    ("event", "more", "expected"),
    [
        (
            "generation.started",
            {"generation_provider_initialize": "fal", "generation_prediction_id": "p1"},
            GenerationStarted(
                **GENERATION, generation_provider_initialize="fal", generation_prediction_id="p1"
            ),
        ),
        (
            "generation.completed",
            {"generation_provider_used": "fal", "generation_output_file": ["https://a", "https://b"]},
            GenerationCompleted(
                **GENERATION,
                generation_provider_used="fal",
                generation_output_file=("https://a", "https://b"),
            ),
        ),
        (
            "generation.failed",
            {"generation_error": "no", "generation_error_code": "BSE4001"},
            GenerationFailed(**GENERATION, generation_error="no", generation_error_code="BSE4001"),
        ),
        (
            "generation.canceled",
            {"credits_refunded": 1},
            GenerationCanceled(**GENERATION, credits_refunded=1),
        ),
        ("webhook.test", {}, Test(**GENERATION)),
    ],
)
def test_events_of_generations_have_their_types(event: str, more: dict[str, Any], expected: Data) -> None:
    read = _read(event, {**GENERATION, **more})

    assert (read.event, read.data) == (event, expected)
    assert read.timestamp == datetime(2026, 4, 28, 12, tzinfo=UTC)
    assert read.timestamp.utcoffset() == timedelta(0)
    assert read.raw["webhook_data"] == {**GENERATION, **more}


def test_a_low_balance_has_its_thresholds() -> None:
    crossed = [{"threshold": 0.5, "balance_at": 0.25}, {"threshold": 1, "balance_at": 0.25}]
    read = _read(
        "credits.low_balance", {"account_id": "a", "current_balance": 0.25, "thresholds_crossed": crossed}
    )

    assert read.data == LowBalance(
        account_id="a",
        current_balance=0.25,
        thresholds_crossed=(
            ThresholdCrossed(threshold=0.5, balance_at=0.25),
            ThresholdCrossed(threshold=1, balance_at=0.25),
        ),
    )


def test_fields_that_were_not_sent_are_none() -> None:
    assert _read("webhook.test", {}).data == Test()
    completed = _read("generation.completed", GENERATION).data
    assert isinstance(completed, GenerationCompleted)
    assert (completed.generation_provider_used, completed.generation_output_file) == (None, ())


def test_unknown_events_and_unknown_fields_are_kept() -> None:
    assert _read("generation.archived", {"days": [1, None]}).data == Data(extra={"days": [1, None]})
    assert _read("generation.failed", {**GENERATION, "seed": 7, "extra": 8}).data == GenerationFailed(
        **GENERATION, extra={"seed": 7, "extra": 8}
    )
    payload = body(trace="abc")
    assert verify(payload, signed(payload), SECRET, now=AT).raw["trace"] == "abc"


def test_a_body_that_was_verified_before_is_read_again() -> None:
    payload = body()
    event = verify(payload, signed(payload), SECRET, now=AT)

    assert read_event(payload) == read_event(payload.decode()) == event
    with pytest.raises(ValueError, match="the body is not JSON"):
        read_event("\ud800")


def test_events_are_values() -> None:
    one, other = _read("generation.completed", GENERATION), _read("generation.completed", GENERATION)

    assert one == other
    assert len({one, other}) == 1
    unchecked: Any = one
    with pytest.raises(AttributeError):
        unchecked.event = "webhook.test"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[" * 200_000, "the body is not JSON"),
        (b"9" * 5_000, "the body is not JSON"),
        (b"null", "the body is not an object"),
        (b"[]", "the body is not an object"),
        (b"{}", "webhook_event is missing"),
        (body(webhook_event=None), "webhook_event is missing"),
        (body(webhook_event=["generation.completed"]), "webhook_event is of the wrong type"),
        (body(webhook_delivery_id=True), "webhook_delivery_id is of the wrong type"),
        (body(webhook_timestamp=AT), "webhook_timestamp is of the wrong type"),
        (body(webhook_timestamp="yesterday"), "webhook_timestamp is not an RFC 3339 time"),
        (body(webhook_timestamp="2026-04-28T12:00:00"), "webhook_timestamp is not an RFC 3339 time"),
        (body(webhook_data=None), "webhook_data is missing"),
        (body(webhook_data=[GENERATION]), "webhook_data is of the wrong type"),
        (body(data={}), "webhook_data.account_id is missing"),
        (body(data={**GENERATION, "generation_id": 5}), "webhook_data.generation_id is of the wrong type"),
        (
            body(data={**GENERATION, "generation_output_file": "https://a"}),
            "webhook_data.generation_output_file is of the wrong type",
        ),
        (
            body(data={**GENERATION, "generation_output_file": [1]}),
            "webhook_data.generation_output_file is of the wrong type",
        ),
        (
            body("generation.canceled", {**GENERATION, "credits_refunded": True}),
            "webhook_data.credits_refunded is of the wrong type",
        ),
        (
            body("credits.low_balance", {"account_id": "a", "current_balance": 1}),
            "webhook_data.thresholds_crossed is missing",
        ),
        (
            body(
                "credits.low_balance", {"account_id": "a", "current_balance": 1, "thresholds_crossed": [{}]}
            ),
            "webhook_data.thresholds_crossed.threshold is missing",
        ),
    ],
)
def test_a_signed_body_that_is_no_event_is_refused_by_the_name_of_its_field(
    payload: bytes, reason: str
) -> None:
    with pytest.raises(WebhookVerificationError) as caught:
        verify(payload, signed(payload), SECRET, now=AT)
    assert str(caught.value) == f"malformed payload: {reason}"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
_FIELDS = sorted(
    {
        *GENERATION,
        "generation_output_file",
        "credits_refunded",
        "current_balance",
        "thresholds_crossed",
        "extra",
    }
)


@settings(deadline=None)
@given(
    payload=st.one_of(
        st.binary(),
        _JSON.map(lambda value: json.dumps(value).encode()),
        st.builds(
            body,
            st.sampled_from(
                ["generation.completed", "generation.canceled", "credits.low_balance", "webhook.test", "?"]
            ),
            _JSON | st.dictionaries(st.sampled_from(_FIELDS), _JSON),
            webhook_timestamp=st.text() | st.datetimes().map(lambda time: time.isoformat() + "Z"),
        ),
    )
)
def test_whatever_was_signed_is_read_or_refused(payload: bytes) -> None:
    with suppress(WebhookVerificationError):
        event = verify(payload, signed(payload), SECRET, now=AT)
        assert json.dumps(event.raw) == json.dumps(json.loads(payload))
