"""Identifiers: their form, their order, that they do not repeat."""

import re
import time
from itertools import pairwise
from uuid import RFC_4122

from babysea_server.kit.ids import request_id, token, uuid7


def test_uuid7_has_the_version_and_variant_of_rfc_9562() -> None:
    for _ in range(200):
        made = uuid7()
        assert made.version == 7
        assert made.variant == RFC_4122


def test_uuid7_begins_with_the_unix_milliseconds_of_its_making() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_uuid7_made_later_sort_later() -> None:
    ids = [uuid7() for _ in range(20_000)]
    assert ids[0].int >> 80 < ids[-1].int >> 80, "the loop spans several milliseconds"
    assert all(one.int >> 80 <= other.int >> 80 for one, other in pairwise(ids))
    times = [made.int >> 64 for made in ids]  # the version stands in the middle and is always the same
    assert times == sorted(times), "also within a millisecond"


def test_uuid7_do_not_repeat_and_use_all_random_bits() -> None:
    ids = [uuid7() for _ in range(20_000)]
    assert len(set(ids)) == len(ids)
    random_bits = (1 << 76) - 1 ^ (0b11 << 62)
    ever_set = ever_clear = 0
    for made in ids:
        ever_set |= made.int
        ever_clear |= ~made.int
    assert ever_set & random_bits == random_bits
    assert ever_clear & random_bits == random_bits


def test_request_ids_are_short_lower_case_and_distinct() -> None:
    ids = {request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(r"req_[0-9a-f]{24}", made) for made in ids)


def test_tokens_are_base64url_of_the_asked_entropy() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", token(30))
    assert len({token() for _ in range(1000)}) == 1000
