import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.outputs.ranges import UnsatisfiableRangeError, lists_etag, parse_range


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-9", (0, 10)),
        ("bytes=3-", (3, 10)),
        ("bytes=9-9", (9, 10)),
        ("bytes=3-100", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-100", (0, 10)),
        ("Bytes= 1-2 ", (1, 3)),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=--1", None),
        ("bytes=a-b", None),
        ("bytes=1.0-2", None),
        ("bytes=٣-", None),
        ("items=0-1", None),
        ("0-1", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_range_of_ten_bytes(text: str, part: tuple[int, int] | None) -> None:
    assert parse_range(text, 10) == part


@pytest.mark.parametrize("text", ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=999999999999999999-"])
def test_range_without_a_byte_of_the_file_is_unsatisfiable(text: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(text, 10)


@given(st.text(alphabet="bytes=0123456789-, ", max_size=24), st.integers(0, 50))
def test_every_part_lies_inside_the_file(text: str, size: int) -> None:
    try:
        part = parse_range(text, size)
    except UnsatisfiableRangeError:
        return
    if part is not None:
        assert 0 <= part[0] < part[1] <= size


def test_etags_are_compared_weakly_and_whole() -> None:
    assert lists_etag('"a"', '"a"')
    assert lists_etag(' "b" , W/"a"', '"a"')
    assert lists_etag("*", '"a"')
    assert not lists_etag('"ab"', '"a"')
    assert not lists_etag("", '"a"')
