"""How large a file is and how long, and whether it is whole.

All functions here are synchronous and use the processor; callers run them in a thread.
"""

import io
from fractions import Fraction
from typing import TYPE_CHECKING

from babysea_server.media.images import BrokenImageError, image_size
from babysea_server.media.isobmff import BrokenBoxError, boxes
from babysea_server.media.sniff import sniff
from babysea_server.media.types import FrameTooLargeError, Kind, Measure, Media, UnreadableMediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MAX_SECONDS = 24 * 3600
#: No frame larger than this (8192 x 8192) is decoded; beyond it a file is taken for an attack.
MAX_FRAME_PIXELS = 8192 * 8192

_AUDIO_DEMUXERS = {"mp3": "mp3", "wav": "wav", "m4a": "mov", "flac": "flac", "ogg": "ogg", "aac": "aac"}
#: Of a container's length: FFmpeg's AV_TIME_BASE.
_TICKS_PER_SECOND = 1_000_000
_WEBM_SEGMENT = b"\x18\x53\x80\x67"


def measure(data: bytes, media: Media) -> Measure:
    """Dimensions of a file whose type is known, which shows at the same time that the file is whole.

    Raises:
        UnreadableMediaError: the file is cut off or broken.
    """
    if media.kind == "video":
        return _measure_video(data, media)
    try:
        width, height = image_size(data, media.extension)
    except BrokenImageError as error:
        raise UnreadableMediaError(f"the {media.content_type} file is broken: {error}") from error
    return Measure(width, height, None)


def measure_image(data: bytes) -> tuple[int, int]:
    """Width and height of a picture in pixels; an SVG without dimensions has a browser's 300 x 150.

    Raises:
        UnreadableMediaError: not a picture, or one that is cut off or broken.
    """
    found = measure(data, _known(data, "image"))
    return found.width, found.height


def measure_video(data: bytes) -> float:
    """Length of a video in seconds.

    Raises:
        UnreadableMediaError: not a video, or one that is cut off, broken or without a picture.
    """
    seconds = measure(data, _known(data, "video")).seconds
    assert seconds is not None
    return seconds


def _known(data: bytes, kind: Kind) -> Media:
    media = sniff(data)
    if media is None or media.kind != kind:
        raise UnreadableMediaError(f"the file is not {'a video' if kind == 'video' else 'a picture'}")
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
        with _opened(data, demuxer) as container:
            return _first_frame(container)
    except UnreadableMediaError:
        raise
    except BrokenBoxError as error:
        raise UnreadableMediaError(f"the {media.content_type} file is broken: {error}") from error
    except Exception as error:  # demuxers and decoders raise all sorts on malformed bytes
        raise UnreadableMediaError(f"the {media.content_type} file cannot be read: {error}") from error


def measure_audio(data: bytes, media: Media) -> float:
    """Length in seconds of a sound file whose type is known; an estimate where the format does not state it.

    Raises:
        UnreadableMediaError: the file is broken, or cut off and its format tells.
    """
    try:
        if media.extension == "m4a":
            for _ in boxes(data):
                pass
        demuxer = _AUDIO_DEMUXERS[media.extension]
        with _opened(data, demuxer) as container:
            return _first_sound(container)
    except UnreadableMediaError:
        raise
    except BrokenBoxError as error:
        raise UnreadableMediaError(f"the {media.content_type} file is broken: {error}") from error
    except Exception as error:  # demuxers and decoders raise all sorts on malformed bytes
        raise UnreadableMediaError(f"the {media.content_type} file cannot be read: {error}") from error


def _opened(data: bytes, demuxer: str) -> "InputContainer":
    import av  # here: it takes a fifth of a second, and a process that serves requests need not wait for it

    # Naming the demuxer keeps the library from guessing one that would open other files or addresses.
    return av.open(io.BytesIO(data), mode="r", format=demuxer, metadata_errors="ignore")


def _first_sound(container: "InputContainer") -> float:
    if not container.streams.audio:
        raise UnreadableMediaError("the sound file has no sound")
    stream = container.streams.audio[0]
    if next(iter(container.decode(stream)), None) is None:
        raise UnreadableMediaError("the sound file holds nothing that can be decoded")
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = float(Fraction(container.duration, _TICKS_PER_SECOND))
    else:
        raise UnreadableMediaError("the sound file does not say how long it is")
    if not 0 < seconds <= MAX_SECONDS:
        raise UnreadableMediaError(f"a sound of {seconds:.3f} seconds makes no sense")
    return seconds


def _first_frame(container: "InputContainer") -> Measure:
    if not container.streams.video:
        raise UnreadableMediaError("the video file has no video stream")
    stream = container.streams.video[0]
    context = stream.codec_context
    if context.width * context.height > MAX_FRAME_PIXELS:
        raise FrameTooLargeError(f"a frame of {context.width} x {context.height} pixels is too large")
    context.thread_count = 1
    context.options = {**context.options, "max_pixels": str(MAX_FRAME_PIXELS)}
    frame = next(iter(container.decode(stream)), None)
    if frame is None:
        raise UnreadableMediaError("the video file holds no frame that can be decoded")
    seconds = _seconds(container, stream)
    if not 0 < seconds <= MAX_SECONDS:
        raise UnreadableMediaError(f"a video of {seconds:.3f} seconds makes no sense")
    return Measure(frame.width, frame.height, seconds)


def _seconds(container: "InputContainer", stream: "VideoStream") -> float:
    """The picture's own length, without a longer sound track; files made live state none: they are read."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None:
        return float(Fraction(container.duration, _TICKS_PER_SECOND))
    container.seek(0)
    first, last, step = None, 0, 0
    for packet in container.demux(stream):
        if packet.pts is not None:
            step = packet.duration or max(packet.pts - last, 0) or step
            first = packet.pts if first is None else min(first, packet.pts)
            last = max(last, packet.pts)
    if first is None or stream.time_base is None:
        raise UnreadableMediaError("the video file does not say how long it is")
    return float((last + step - first) * stream.time_base)


def _check_webm(data: bytes) -> None:
    """Refuse a file whose segment, or an element right inside it, reaches beyond the end."""
    at = _element(data, 0)[1]
    if at is None or data[at : at + 4] != _WEBM_SEGMENT:
        raise UnreadableMediaError("the webm file has no segment")
    inside, end = _element(data, at)
    if end is None:  # recorded live: the segment's length is unknown, its elements' may be known
        while inside + 12 < len(data):
            end = _element(data, inside)[1]
            if end is None or end > len(data):
                break
            inside = end
    if end is not None and end > len(data):
        raise UnreadableMediaError("the webm file is cut off")


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
