"""What a file is and how large: told from its bytes alone, because headers and file names lie.

All functions here are synchronous and use the processor; callers run them in a thread.
"""

import io
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from babysea_server.outputs.images import BrokenImageError, image_size
from babysea_server.outputs.isobmff import BrokenBoxError, boxes, brands
from babysea_server.outputs.keys import CONTENT_TYPES

Kind = Literal["image", "video"]

MAX_SECONDS = 24 * 3600
#: No frame larger than this (8192 x 8192) is decoded; beyond it a file is taken for an attack.
MAX_FRAME_PIXELS = 8192 * 8192

# Atomic groups: each declaration ends at its first end mark, so a hostile prolog costs one pass, not 2^n.
_SVG_PROLOG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?>(?><\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*>)\s*)*+<svg[\s/>]", re.DOTALL
)
_PROLOG_BYTES = 16 * 1024
_VIDEO_BRAND = re.compile(rb"iso.|mp4[12]|avc.|hvc1|hev1|av01|M4V.|dash|MSNV|3g[p2].|f4v |XAVC|msdh|cmfc")
_WEBM_SEGMENT = b"\x18\x53\x80\x67"


class BadOutputError(Exception):
    """A provider's file that cannot be an output; the message says why, in a sentence for people."""


class UnreadableOutputError(BadOutputError):
    """A file of a known type that is cut off or broken."""


@dataclass(frozen=True, slots=True)
class Media:
    """A file type that is kept and served."""

    content_type: str
    extension: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Measure:
    """A file's dimensions: pixels, and seconds when it moves as a video does."""

    width: int
    height: int
    seconds: float | None


def sniff(data: bytes) -> Media | None:
    """The type of a file by its first bytes; None for whatever is neither picture nor video we serve."""
    extension = _extension(data)
    if extension is None:
        return None
    content_type = CONTENT_TYPES[extension]
    return Media(content_type, extension, "video" if content_type.startswith("video/") else "image")


def _extension(data: bytes) -> str | None:
    head = data[:16]
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        # The document type is one of the first elements; Matroska files of other types play in no browser.
        return "webm" if b"webm" in data[:64] else None
    if head[4:8] == b"ftyp":
        return _by_brand(brands(data))
    if head[4:8] in (b"moov", b"mdat", b"wide"):  # QuickTime files from before there were brands
        return "mov"
    return "svg" if _SVG_PROLOG.match(data[:_PROLOG_BYTES]) else None


def _by_brand(names: frozenset[bytes]) -> str | None:
    # Asked in this order because pictures and QuickTime files list general brands beside their own.
    if names & {b"avif", b"avis"}:
        return "avif"
    if names & {b"mif1", b"heic", b"heix"}:
        return None
    if b"qt  " in names:
        return "mov"
    return "mp4" if any(_VIDEO_BRAND.fullmatch(name) for name in names) else None


def measure(data: bytes, media: Media) -> Measure:
    """Dimensions of a file whose type is known, which shows at the same time that the file is whole.

    Raises:
        UnreadableOutputError: the file is cut off or broken.
    """
    if media.kind == "video":
        return _measure_video(data, media)
    try:
        width, height = image_size(data, media.extension)
    except BrokenImageError as error:
        raise UnreadableOutputError(f"the {media.content_type} file is broken: {error}") from error
    return Measure(width, height, None)


def measure_image(data: bytes) -> tuple[int, int]:
    """Width and height of a picture in pixels; an SVG without dimensions has a browser's 300 x 150.

    Raises:
        UnreadableOutputError: not a picture, or one that is cut off or broken.
    """
    found = measure(data, _known(data, "image"))
    return found.width, found.height


def measure_video(data: bytes) -> float:
    """Length of a video in seconds.

    Raises:
        UnreadableOutputError: not a video, or one that is cut off, broken or without a picture.
    """
    seconds = measure(data, _known(data, "video")).seconds
    assert seconds is not None
    return seconds


def _known(data: bytes, kind: Kind) -> Media:
    media = sniff(data)
    if media is None or media.kind != kind:
        raise UnreadableOutputError(f"the file is not {'a video' if kind == 'video' else 'a picture'}")
    return media


def _measure_video(data: bytes, media: Media) -> Measure:
    try:
        if media.extension == "webm":
            _check_webm(data)
            demuxer = "matroska"
        else:
            for _ in boxes(data):  # the demuxer is content with a last box that is cut off
                pass
            demuxer = "mov"
        # Naming the demuxer keeps the library from guessing one that would open other files or addresses.
        with av.open(io.BytesIO(data), mode="r", format=demuxer, metadata_errors="ignore") as container:
            return _first_frame(container)
    except UnreadableOutputError:
        raise
    except BrokenBoxError as error:
        raise UnreadableOutputError(f"the {media.content_type} file is broken: {error}") from error
    except Exception as error:  # demuxers and decoders raise all sorts on malformed bytes
        raise UnreadableOutputError(f"the {media.content_type} file cannot be read: {error}") from error


def _first_frame(container: InputContainer) -> Measure:
    if not container.streams.video:
        raise UnreadableOutputError("the video file has no video stream")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context.width * context.height > MAX_FRAME_PIXELS:
        raise UnreadableOutputError(f"a frame of {context.width} x {context.height} pixels is too large")
    context.thread_count = 1
    context.options = {**context.options, "max_pixels": str(MAX_FRAME_PIXELS)}
    frame = next(iter(container.decode(stream)), None)
    if frame is None:
        raise UnreadableOutputError("the video file holds no frame that can be decoded")
    seconds = _seconds(container, stream)
    if not 0 < seconds <= MAX_SECONDS:
        raise UnreadableOutputError(f"a video of {seconds:.3f} seconds makes no sense")
    return Measure(frame.width, frame.height, seconds)


def _seconds(container: InputContainer, stream: VideoStream) -> float:
    """The picture's own length, without a longer sound track; files made live state none: they are read."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None:
        return float(Fraction(container.duration, av.time_base))
    container.seek(0)
    first, last, step = None, 0, 0
    for packet in container.demux(stream):
        if packet.pts is not None:
            step = packet.duration or max(packet.pts - last, 0) or step
            first = packet.pts if first is None else min(first, packet.pts)
            last = max(last, packet.pts)
    if first is None or stream.time_base is None:
        raise UnreadableOutputError("the video file does not say how long it is")
    return float((last + step - first) * stream.time_base)


def _check_webm(data: bytes) -> None:
    """Refuse a file whose segment, or an element right inside it, reaches beyond the end."""
    at = _element(data, 0)[1]
    if at is None or data[at : at + 4] != _WEBM_SEGMENT:
        raise UnreadableOutputError("the webm file has no segment")
    inside, end = _element(data, at)
    if end is None:  # recorded live: the segment's length is unknown, its elements' may be known
        while inside + 12 < len(data):
            end = _element(data, inside)[1]
            if end is None or end > len(data):
                break
            inside = end
    if end is not None and end > len(data):
        raise UnreadableOutputError("the webm file is cut off")


def _element(data: bytes, at: int) -> tuple[int, int | None]:
    """Where the content of the EBML element at `at` (RFC 8794) lies; no end when its size is unknown."""
    at += _vint_length(data[at])
    length = _vint_length(data[at])
    ones = (1 << 7 * length) - 1
    size = int.from_bytes(data[at : at + length], "big") & ones
    start = at + length
    return start, None if size == ones else start + size


def _vint_length(first: int) -> int:
    return 9 - first.bit_length()
