from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babysea_server.outputs.keys import (
    InvalidKeyError,
    check_key,
    content_type,
    download_name,
    is_key,
    output_key,
)

GENERATION = UUID("0190a5b0-0000-7000-8000-000000000001")


def test_output_key_leads_with_the_day_in_utc() -> None:
    moment = datetime(2026, 4, 29, 1, 0, tzinfo=timezone(timedelta(hours=9)))
    key = output_key(GENERATION, moment, 3, "png")
    day, _, rest = key.partition(f"/{GENERATION}/")
    assert day == "outputs/2026/04/28"
    assert len(rest) == 32 + len("-3.png")
    assert rest.endswith("-3.png")


def test_output_keys_of_one_generation_differ() -> None:
    moment = datetime(2026, 4, 28, tzinfo=UTC)
    assert len({output_key(GENERATION, moment, 0, "png") for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/etc/passwd",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "../a",
        "a/..",
        ".hidden",
        "a/.hidden",
        "a%2f..%2fb",
        "%2e%2e/b",
        "a\0b",
        "a\\b",
        "a b",
        "a\n",
        "a#1",
        "a?b",
        "ä",
        "٣",
        "C:/x",
        "a" * 129,
        "/".join(["a" * 100] * 6),
    ],
)
def test_what_could_leave_the_store_is_no_key(text: str) -> None:
    assert not is_key(text)
    with pytest.raises(InvalidKeyError):
        check_key(text)


@given(st.text(alphabet="ab./\\%\0 -_#~", max_size=40))
def test_every_key_stays_below_the_root(text: str) -> None:
    if is_key(text):
        assert PurePosixPath("/root", text).parts == ("/", "root", *text.split("/"))
        assert all(segment and not segment.startswith(".") for segment in text.split("/"))
        assert quote(text) == text


def test_type_and_name_are_read_off_the_key() -> None:
    key = output_key(GENERATION, datetime(2026, 4, 28, tzinfo=UTC), 1, "webp")
    assert content_type(key) == "image/webp"
    assert download_name(key) == f"{GENERATION}-1.webp"
    assert content_type("probe-abc") == "application/octet-stream"
    assert download_name("probe") == "probe"
