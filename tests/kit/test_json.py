"""Strict JSON: what is refused, that nothing else ever escapes, and that valid documents mean what they say."""

import enum
import json as standard
import math
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from babysea_server.kit.json import InvalidJsonError, dumps, fingerprint, loads, moment

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(values, st.booleans())
def test_valid_documents_decode_to_what_they_say(value: Any, ascii_only: bool) -> None:
    document = standard.dumps(value, ensure_ascii=ascii_only).encode()
    assert loads(document) == standard.loads(document) == value


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"[" * 102_400)
@example(b'{"a":' * 20_000)
@example(b'[{"a":' * 14_000)
@example(b"9" * 102_400)
@example(b"1e" + b"9" * 5000)
@example(b"-" * 100)
@example(b'"' + b"\\u0000" * 100)
@example(b'"\\ud800\\ud800"')
@example(b"\xff\xfe{\x00}\x00")
def test_whatever_arrives_decodes_or_is_invalid_json(document: bytes) -> None:
    try:
        value = loads(document)
    except InvalidJsonError:
        return
    assert standard.loads(document) == value


@given(values)
def test_what_decodes_can_be_encoded_again(value: Any) -> None:
    assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    "document",
    [
        '{"a":1,"a":1}',
        '{"a":1,"\\u0061":2}',
        '[[[{"b":{"x":0,"y":1,"x":2}}]]]',
        '{"":1,"":2}',
        '{"\\ud83d\\ude00":1,"😀":2}',
    ],
)
def test_duplicate_names_are_refused_at_any_depth_and_in_any_spelling(document: str) -> None:
    with pytest.raises(InvalidJsonError, match="appears twice"):
        loads(document.encode())


def test_the_message_about_a_duplicate_name_stays_short() -> None:
    name = "n" * 50_000
    with pytest.raises(InvalidJsonError, match="appears twice") as refused:
        loads(f'{{"{name}":1,"{name}":2}}'.encode())
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1E+400"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    for document in (number, f"[{number}]", f'{{"a":{{"b":{number}}}}}'):
        with pytest.raises(InvalidJsonError):
            loads(document.encode())


def test_integers_are_those_of_64_bits() -> None:
    assert loads(b"[9223372036854775807,-9223372036854775808]") == [2**63 - 1, -(2**63)]
    for number in ("9223372036854775808", "-9223372036854775809", "9" * 5000):
        with pytest.raises(InvalidJsonError, match="out of range"):
            loads(number.encode())


def test_sixteen_levels_are_accepted_and_seventeen_refused() -> None:
    assert loads(b"[" * 16 + b"]" * 16)
    assert loads(b'{"a":' * 15 + b"[0]" + b"}" * 15)
    for document in (
        b"[" * 17 + b"]" * 17,
        b'{"a":' * 17 + b"0" + b"}" * 17,
        b'[{"a":' * 9 + b"0" + b"}]" * 9,
    ):
        with pytest.raises(InvalidJsonError, match="deeper than 16 levels"):
            loads(document)


@pytest.mark.parametrize("document", ['"\\ud800"', '"a\\udc00b"', '{"\\ud800":1}', '["\\ude00\\ud83d"]'])
def test_lone_surrogates_are_refused_in_values_and_names(document: str) -> None:
    with pytest.raises(InvalidJsonError, match="lone surrogate"):
        loads(document.encode())


def test_paired_surrogates_are_one_character() -> None:
    assert loads(b'"\\ud83d\\ude00"') == "😀"


@pytest.mark.parametrize("document", ['"\\u0000"', '"é\\u0000"', '{"a\\u0000":1}', '"\0"'])
def test_nul_characters_are_refused(document: str) -> None:
    with pytest.raises(InvalidJsonError):
        loads(document.encode())


@pytest.mark.parametrize(
    "document",
    [b"", b" ", b"{", b'{"a"}', b"[1,]", b"{'a':1}", b"[1]x", b"01", b"+1", b".5", b"tru", b'"\n"', b'"\\x41"', b"//",
     b"\xef\xbb\xbf{}", b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', b"\xff\xfe[\x00]\x00"],
)  # fmt: skip
def test_what_is_not_json_or_not_utf8_is_refused_with_a_sentence(document: bytes) -> None:
    with pytest.raises(InvalidJsonError, match=r"the body is not (JSON|UTF-8)"):
        loads(document)


# ------------------------------------------------------------------------------------------ fingerprints


def shuffled(value: Any) -> Any:
    """The same value with the names of every object in the opposite order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(list(value))}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_the_order_of_names_does_not_change_a_fingerprint(value: Any) -> None:
    assert fingerprint(shuffled(value)) == fingerprint(value)


@given(values)
def test_white_space_and_escapes_do_not_change_a_fingerprint(value: Any) -> None:
    spaced = standard.dumps(value, indent=3, ensure_ascii=True).encode()
    assert fingerprint(loads(spaced)) == fingerprint(value)


@given(values, values)
def test_different_values_have_different_fingerprints(one: Any, other: Any) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (normal(one) == normal(other))


def normal(value: Any) -> Any:
    """A form in which true and 1 differ, and 1 and 1.0 do not."""
    if isinstance(value, dict):
        return ("object", {name: normal(item) for name, item in value.items()})
    if isinstance(value, list):
        return ("array", [normal(item) for item in value])
    return (isinstance(value, bool), value)


def test_numbers_have_one_spelling_and_are_not_texts_or_truths() -> None:
    assert fingerprint({"a": 1}) == fingerprint({"a": 1.0})
    assert fingerprint(loads(b"[1e3,-0.0,-0]")) == fingerprint([1000, 0, 0])
    distinct = [0, 1, "1", True, False, None, [1], {"1": 1}, 1.5, "", [], {}]
    assert len({fingerprint(value) for value in distinct}) == len(distinct)
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})


# ------------------------------------------------------------------------------------------ out


class Colour(enum.Enum):
    RED = "red"


class Record(msgspec.Struct):
    id: UUID
    colour: Colour


def test_structs_uuids_and_enums_are_encoded_compactly() -> None:
    record = Record(UUID(int=1), Colour.RED)
    assert dumps(record) == b'{"id":"00000000-0000-0000-0000-000000000001","colour":"red"}'


def test_what_has_no_json_form_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        dumps({"a": object()})


def test_moments_are_spelled_for_the_wire_or_absent() -> None:
    assert moment(datetime(2026, 4, 28, tzinfo=UTC)) == "2026-04-28T00:00:00.000Z"
    assert moment(None) is None


def test_numbers_that_are_not_finite_never_leave() -> None:
    assert standard.loads(dumps([math.nan, math.inf])) == [None, None]
