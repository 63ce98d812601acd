"""Whose a span is, by ids alone: pure functions."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from babysea_server.kit.ids import uuid7
from babysea_server.telemetry.tracing import (
    Caller,
    Sampler,
    SpanRef,
    made_at_ns,
    nanoseconds,
    new_ref,
    read_traceparent,
    ref_of,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
REF = SpanRef(int(TRACE, 16), int(SPAN, 16))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"00-{TRACE}-{SPAN}-01", Caller(REF, sampled=True)),
        (f"00-{TRACE}-{SPAN}-00", Caller(REF, sampled=False)),
        (f"00-{TRACE}-{SPAN}-03", Caller(REF, sampled=True)),
        (f"cc-{TRACE}-{SPAN}-01-what the future brings", Caller(REF, sampled=True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        (f"00-{TRACE[:-1]}-{SPAN}-01", None),
        ("", None),
    ],
)
def test_traceparent_is_read_as_the_standard_says(header: str, expected: Caller | None) -> None:
    assert read_traceparent(header.encode()) == expected


def test_the_trace_of_a_generation_is_its_id() -> None:
    id = UUID("0193b1c0-7e00-7abc-8def-0123456789ab")
    ref = ref_of(id)
    assert ref.trace == id.hex
    assert f"{ref.span_id:016x}" == "8def0123456789ab"
    assert new_ref(ref.trace_id).trace_id == ref.trace_id
    assert len({new_ref(ref.trace_id) for _ in range(1000)}) == 1000


def test_an_id_tells_when_it_was_made() -> None:
    before = datetime.now(UTC)
    id = uuid7()
    after = datetime.now(UTC)
    long_ago = before - timedelta(days=1)
    assert nanoseconds(before) - 1000 <= made_at_ns(id, long_ago) <= nanoseconds(after) + 1000
    assert made_at_ns(uuid4(), long_ago) == nanoseconds(long_ago), "not every id knows"


def test_every_process_keeps_the_same_traces_and_as_many_as_asked_for() -> None:
    ids = [uuid7().int for _ in range(20_000)]
    assert all(map(Sampler(1), ids))
    assert not any(map(Sampler(0), ids))
    tenth, again, half = ({id for id in ids if Sampler(share)(id)} for share in (0.1, 0.1, 0.5))
    assert tenth == again
    assert tenth < half, "whoever keeps more keeps what others keep, too"
    assert abs(len(tenth) - 2000) < 250  # more than five standard deviations
    assert abs(len(half) - 10_000) < 400


def test_the_choice_does_not_hang_on_the_variant_of_the_id() -> None:
    low_bits = [SpanRef(id, id & 0xFFFF_FFFF_FFFF_FFFF).span_id for id in (uuid7().int for _ in range(1000))]
    assert min(low_bits) >= 2**63, "by these bits all or none would be kept at a share of one half"
    assert 350 < sum(Sampler(0.5)(uuid7().int) for _ in range(1000)) < 650
