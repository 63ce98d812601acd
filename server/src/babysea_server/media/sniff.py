"""What a file is: told from its first bytes alone, because headers and file names lie."""

import re

from babysea_server.media.isobmff import brands
from babysea_server.media.types import AUDIO_TYPES, CONTENT_TYPES, Media

# Atomic groups: each declaration ends at its first end mark, so a hostile prolog costs one pass, not 2^n.
_SVG_PROLOG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?>(?><\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*>)\s*)*+<svg[\s/>]", re.DOTALL
)
_PROLOG_BYTES = 16 * 1024
_VIDEO_BRAND = re.compile(rb"iso.|mp4[12]|avc.|hvc1|hev1|av01|M4V.|dash|MSNV|3g[p2].|f4v |XAVC|msdh|cmfc")


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


def sniff_audio(data: bytes) -> Media | None:
    """The type of a sound file by its first bytes; None for whatever is no sound we know."""
    extension = _audio_extension(data)
    return None if extension is None else Media(AUDIO_TYPES[extension], extension, "audio")


def _audio_extension(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    if data.startswith(b"fLaC"):
        return "flac"
    if data.startswith(b"OggS"):
        return "ogg"
    if data.startswith(b"ID3"):
        return "mp3"
    # Only its own brand counts: films list these too, for their sound.
    if data[4:8] == b"ftyp" and data[8:12] in (b"M4A ", b"M4B "):
        return "m4a"
    # MPEG audio without tags begins with eleven set bits and a layer, of which 0 is ADTS.
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        layer, version = data[1] >> 1 & 3, data[1] >> 3 & 3
        if layer == 0:
            return "aac" if version & 2 else None
        return None if version == 1 else "mp3"
    return None
