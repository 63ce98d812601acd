"""Kinds of files: what is told apart, and what is said when a file cannot be told."""

from typing import Literal

import msgspec

Kind = Literal["image", "video", "audio"]

#: Pictures and videos, as they are kept and served, by the extension of their files' names.
CONTENT_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "avif": "image/avif",
    "svg": "image/svg+xml",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
}
#: Sound, which is only taken as input.
AUDIO_TYPES = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "m4a": "audio/mp4",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "aac": "audio/aac",
}


class UnreadableMediaError(Exception):
    """A file that is cut off, broken or of another kind; the message says why, in a sentence for people."""


class FrameTooLargeError(UnreadableMediaError):
    """A video whose frames are too large to decode one of them."""


class Media(msgspec.Struct, frozen=True):
    """A file's type."""

    content_type: str
    extension: str
    kind: Kind


class Measure(msgspec.Struct, frozen=True):
    """A file's dimensions: pixels, and seconds when it moves as a video does."""

    width: int
    height: int
    seconds: float | None
