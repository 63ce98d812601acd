"""Input files: what is taken, and which code says why another is not."""

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from tests.media.samples import SVG, film, picture, sound

from babysea_server.errors import ERRORS
from babysea_server.providers.base import (
    Answer,
    AnswerLostError,
    AnswerTooLargeError,
    NeverSentError,
    Request,
)
from babysea_server.providers.inputs import InputRefusedError, InputRule, check_input, load_input

IMAGE = InputRule(frozenset({"image"}), 100_000)
VIDEO = InputRule(frozenset({"video"}), 10_000_000)
AUDIO = InputRule(frozenset({"audio"}), 1_000_000)


def _rule(**changes: Any) -> InputRule:
    values: dict[str, Any] = {"kinds": frozenset({"image"}), "max_bytes": 100_000, **changes}
    return InputRule(**values)


def _bomb(side: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("format", "content_type", "extension"),
    [
        ("PNG", "image/png", "png"),
        ("JPEG", "image/jpeg", "jpg"),
        ("WEBP", "image/webp", "webp"),
        ("GIF", "image/gif", "gif"),
        ("AVIF", "image/avif", "avif"),
    ],
)
def test_a_picture_is_taken_with_its_facts(format: str, content_type: str, extension: str) -> None:
    data = picture(format)
    file = check_input(data, IMAGE)
    assert (file.data, file.content_type, file.extension) == (data, content_type, extension)
    assert (file.width, file.height, file.seconds) == (64, 48, None)


@pytest.mark.parametrize(
    ("format", "codec", "content_type"),
    [
        ("mp4", "libx264", "video/mp4"),
        ("mov", "libx264", "video/quicktime"),
        ("webm", "libvpx-vp9", "video/webm"),
    ],
)
def test_a_video_is_taken_with_its_facts(format: str, codec: str, content_type: str) -> None:
    file = check_input(film(format, codec), VIDEO)
    assert (file.content_type, file.width, file.height) == (content_type, 64, 48)
    assert file.seconds == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(
    ("format", "codec", "content_type", "extension"),
    [
        ("wav", "pcm_s16le", "audio/wav", "wav"),
        ("mp3", "libmp3lame", "audio/mpeg", "mp3"),
        ("ipod", "aac", "audio/mp4", "m4a"),
    ],
)
def test_a_sound_is_taken_with_its_length(format: str, codec: str, content_type: str, extension: str) -> None:
    file = check_input(sound(format, codec), AUDIO)
    assert (file.content_type, file.extension) == (content_type, extension)
    assert (file.width, file.height) == (None, None)
    assert file.seconds == pytest.approx(1.0, abs=0.1)


def test_several_kinds_may_be_taken() -> None:
    both = InputRule(frozenset({"image", "video"}), 10_000_000)
    assert check_input(picture("PNG"), both).extension == "png"
    assert check_input(film("mp4", "libx264"), both).extension == "mp4"


@pytest.mark.parametrize(
    "limits",
    [
        {"min_width": 64, "min_height": 48, "max_width": 64, "max_height": 48, "max_pixels": 64 * 48},
        {"max_bytes": len(picture("PNG"))},
        {"content_types": frozenset({"image/png"})},
        {"max_seconds": 0.1},
    ],
)
def test_limits_are_inclusive(limits: Mapping[str, object]) -> None:
    assert check_input(picture("PNG"), _rule(**limits)).width == 64


@pytest.mark.parametrize(
    ("data", "rule", "code"),
    [
        (picture("PNG"), _rule(max_width=63), "BSE2002"),
        (picture("PNG"), _rule(max_height=47), "BSE2002"),
        (picture("PNG"), _rule(max_pixels=64 * 48 - 1), "BSE2002"),
        (_bomb(2**31 - 1), _rule(max_pixels=100_000_000), "BSE2002"),
        (picture("PNG"), _rule(min_width=65), "BSE2003"),
        (picture("PNG"), _rule(min_height=49), "BSE2003"),
        (picture("GIF"), _rule(content_types=frozenset({"image/png"})), "BSE2004"),
        (film("mp4", "libx264"), _rule(max_bytes=10_000_000), "BSE2004"),
        (picture("PNG"), VIDEO, "BSE2004"),
        (sound("wav", "pcm_s16le"), _rule(max_bytes=10_000_000), "BSE2004"),
        (SVG, IMAGE, "BSE2004"),
        (b"<!doctype html><html>Log in</html>", IMAGE, "BSE2004"),
        (b"%PDF-1.7", IMAGE, "BSE2004"),
        (b"", IMAGE, "BSE2005"),
        (picture("PNG")[:-30], IMAGE, "BSE2005"),
        (picture("JPEG")[:-30], IMAGE, "BSE2005"),
        (film("mp4", "libx264")[:-300], VIDEO, "BSE2005"),
        (sound("wav", "pcm_s16le")[:40], AUDIO, "BSE2005"),
        (picture("PNG"), _rule(max_bytes=len(picture("PNG")) - 1), "BSE2007"),
        (film("mp4", "libx264"), _rule(kinds=VIDEO.kinds, max_bytes=10**7, max_seconds=1.5), "BSE2008"),
        (sound("wav", "pcm_s16le"), _rule(kinds=AUDIO.kinds, max_bytes=10**6, max_seconds=0.5), "BSE2008"),
    ],
)
def test_what_breaks_the_rule_is_refused_with_its_code(data: bytes, rule: InputRule, code: str) -> None:
    with pytest.raises(InputRefusedError) as caught:
        check_input(data, rule)
    assert caught.value.code == code
    assert code in ERRORS
    assert str(caught.value) == caught.value.message


def test_svg_is_taken_where_it_is_asked_for() -> None:
    file = check_input(SVG, _rule(content_types=frozenset({"image/svg+xml"})))
    assert (file.width, file.height) == (40, 30)


class Line:
    """A transport that says what it was told to."""

    def __init__(self, outcome: Answer | Exception) -> None:
        self.outcome = outcome
        self.asked: list[tuple[Request, float, int]] = []

    async def send(self, request: Request, *, timeout_s: float, body_max: int) -> Answer:
        self.asked.append((request, timeout_s, body_max))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def close(self) -> None:
        pass


URL = "https://customer.example/cat.png?token=secret"


async def test_a_file_is_fetched_within_the_rule_and_checked() -> None:
    line = Line(Answer(200, {"content-type": "text/html"}, picture("PNG")))
    file = await load_input(line, URL, IMAGE, timeout_s=7.0)
    assert (file.content_type, file.width) == ("image/png", 64)
    assert line.asked == [(Request("GET", URL), 7.0, 100_000)]


@pytest.mark.parametrize(
    ("outcome", "code", "says"),
    [
        (NeverSentError("cannot connect: the address is not public"), "BSE2009", "cannot be reached"),
        (AnswerLostError("no answer: TimeoutError while reading"), "BSE2009", "whole and in time"),
        (AnswerTooLargeError("the answer is larger than 100000 bytes"), "BSE2007", "more than 100000 bytes"),
        (Answer(404, {}, b"no"), "BSE2009", "HTTP 404"),
        (Answer(302, {"location": "/login"}, b""), "BSE2009", "HTTP 302"),
        (Answer(206, {}, picture("PNG")), "BSE2009", "HTTP 206"),
        (Answer(200, {}, b"no picture"), "BSE2004", "no known type"),
    ],
)
async def test_a_file_that_cannot_be_had_is_refused(
    outcome: Answer | Exception, code: str, says: str
) -> None:
    with pytest.raises(InputRefusedError, match=says) as caught:
        await load_input(Line(outcome), URL, IMAGE, timeout_s=7.0)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)
    assert "customer" not in str(caught.value)
