"""Sniffing and measuring, on files from real encoders, whole and broken."""

import struct
import zlib
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media.samples import SVG, Samples, animation, film, films, picture

from babysea_server.media.measure import measure, measure_image, measure_video
from babysea_server.media.sniff import sniff
from babysea_server.media.types import UnreadableMediaError

PICTURES = Samples(
    {
        "png": partial(picture, "PNG"),
        "jpg": partial(picture, "JPEG"),
        "progressive jpg": partial(picture, "JPEG", progressive=True),
        "lossy webp": partial(picture, "WEBP"),
        "lossless webp": partial(picture, "WEBP", lossless=True),
        "animated webp": partial(animation, "WEBP"),
        "gif": partial(picture, "GIF"),
        "animated gif": partial(animation, "GIF"),
        "avif": partial(picture, "AVIF"),
    }
)
FILMS = films()


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_recognised_and_measured(name: str) -> None:
    media = sniff(PICTURES[name])
    assert media is not None
    assert (media.kind, media.extension) == ("image", name.split()[-1])
    assert media.content_type.startswith("image/")
    assert measure_image(PICTURES[name]) == (64, 48)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kept", [0.99, 0.6, 0.1])
def test_cut_off_picture_is_unreadable(name: str, kept: float) -> None:
    with pytest.raises(UnreadableMediaError):
        measure_image(PICTURES[name][: int(len(PICTURES[name]) * kept)])


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "AVIF"])
@pytest.mark.parametrize("kept", [0.99, 0.6])
def test_cut_off_large_picture_is_unreadable_without_decoding(format: str, kept: float) -> None:
    data = picture(format, 1024, 600)
    assert measure_image(data) == (1024, 600)
    with pytest.raises(UnreadableMediaError):
        measure_image(data[: int(len(data) * kept)])


def test_jpeg_thumbnail_does_not_pass_for_the_end() -> None:
    whole = picture("JPEG", 1024, 600)
    thumbnail = b"Exif\0\0" + picture("JPEG", 16, 16)
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = whole[:2] + segment + whole[2:]
    assert measure_image(data) == (1024, 600)
    with pytest.raises(UnreadableMediaError):
        measure_image(data[:-1000])


def test_flipped_bit_in_a_png_is_unreadable() -> None:
    data = bytearray(picture("PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(UnreadableMediaError, match="checksum"):
        measure_image(bytes(data))


def test_small_picture_whose_pixels_are_garbage_is_unreadable() -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"not deflate") + chunk(b"IEND", b"")
    with pytest.raises(UnreadableMediaError, match="decoded"):
        measure_image(data)


def test_enormous_picture_is_measured_and_not_decoded() -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 16, 6, 0, 0, 0))
    bomb = chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    data = b"\x89PNG\r\n\x1a\n" + header + bomb + chunk(b"IEND", b"")
    assert measure_image(data) == (2**31 - 1, 2**31 - 1)


def test_picture_that_claims_two_sizes_is_unreadable() -> None:
    data = picture("WEBP", 600, 700)  # the still frame's own header follows the container's
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + bytes([9, 0, 0, 9, 0, 0])
    body = b"WEBP" + extended + data[12:]
    with pytest.raises(UnreadableMediaError):
        measure_image(b"RIFF" + struct.pack("<I", len(body)) + body)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        (b'width="40" height="30px"', (40, 30)),
        (b'width="40.6" height="30.2"', (41, 30)),
        (b'viewBox="0 0 640 480"', (640, 480)),
        (b'width="100%" height="100%" viewBox="-5,-5, 64, 48"', (64, 48)),
        (b"", (300, 150)),
        (b'viewBox="nonsense"', (300, 150)),
    ],
)
def test_svg_is_measured_as_a_browser_would(attributes: bytes, size: tuple[int, int]) -> None:
    assert measure_image(b'<svg xmlns="http://www.w3.org/2000/svg" ' + attributes + b"/>") == size


@pytest.mark.parametrize(
    "data",
    [
        SVG[:-10],
        b"<svg><rect/></svg>",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="0" height="5"/>',
        b'<svg xmlns="http://www.w3.org/2000/svg">&undeclared;</svg>',
    ],
)
def test_svg_that_is_no_picture_is_unreadable(data: bytes) -> None:
    media = sniff(data)
    assert media is not None
    assert media.content_type == "image/svg+xml"
    with pytest.raises(UnreadableMediaError):
        measure_image(data)


def test_svg_with_entities_of_its_own_is_refused() -> None:
    subset = b'<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    assert sniff(subset + SVG.partition(b"?>")[2].strip()) is None


def test_hostile_svg_prolog_costs_one_pass() -> None:
    assert sniff(b"<!----><??>" * 100_000) is None


@pytest.mark.parametrize("name", FILMS)
def test_film_is_recognised_and_measured(name: str) -> None:
    media = sniff(FILMS[name])
    assert media is not None
    assert (media.kind, media.extension) == ("video", name.split()[0])
    assert measure_video(FILMS[name]) == pytest.approx(2.0, abs=0.05)
    found = measure(FILMS[name], media)
    assert (found.width, found.height) == (64, 48)


# A live recording states no lengths: what came is all there was.
@pytest.mark.parametrize("name", sorted(FILMS.keys() - {"webm made live"}))
@pytest.mark.parametrize("kept", [0.95, 0.5, 0.02])
def test_cut_off_film_is_unreadable(name: str, kept: float) -> None:
    with pytest.raises(UnreadableMediaError):
        measure_video(FILMS[name][: int(len(FILMS[name]) * kept)])


def test_film_whose_frames_are_garbage_is_unreadable() -> None:
    data = film("mp4", "libx264", options=(("movflags", "faststart"),))
    content = data.index(b"mdat") + 4
    with pytest.raises(UnreadableMediaError):
        measure_video(data[:content] + bytes(len(data) - content))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 64,
        b"<!doctype html><html><svg></svg></html>",
        b'{"error": "no image"}',
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"%PDF-1.7",
        b"ID3\x04\0",
    ],
)
def test_other_files_are_not_recognised(data: bytes) -> None:
    assert sniff(data) is None
    with pytest.raises(UnreadableMediaError):
        measure_image(data)
    with pytest.raises(UnreadableMediaError):
        measure_video(data)


def test_picture_is_no_video_and_a_video_no_picture() -> None:
    with pytest.raises(UnreadableMediaError, match="not a video"):
        measure_video(PICTURES["png"])
    with pytest.raises(UnreadableMediaError, match="not a picture"):
        measure_image(FILMS["mp4"])


@given(
    st.deferred(lambda: st.sampled_from([*PICTURES.values(), *FILMS.values(), SVG])),
    st.integers(0, 2**20),
    st.binary(max_size=12),
    st.one_of(st.none(), st.integers(0, 400)),
)
def test_damage_is_measured_or_refused_and_never_anything_else(
    data: bytes, place: int, damage: bytes, cut: int | None
) -> None:
    at = place % len(data)
    broken = (data[:at] + damage + data[at + len(damage) :])[:cut]
    media = sniff(broken)
    if media is None:
        return
    try:
        found = measure(broken, media)
    except UnreadableMediaError:
        return
    assert found.width >= 1
    assert found.height >= 1
