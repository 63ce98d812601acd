"""The type of a file by its first bytes."""

import re

HEAD_BYTES = 4096  # as much as may come before the root element of an SVG, or among the brands of a video

# Nothing is tried a second time, so that a file that is made for it takes no longer than any other.
_SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?+\s*+(?:(?><\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>]*>)\s*+)*+<svg[\s/>]", re.DOTALL
)
_VIDEO_BRAND = re.compile(rb"iso.|mp4[12]|avc.|hvc1|hev1|av01|M4V.|dash|MSNV|3g[p2].|f4v |msdh|cmfc")

SUFFIXES = frozenset({"png", "jpg", "jpeg", "gif", "webp", "avif", "svg", "mp4", "mov", "webm"})


def suffix(head: bytes) -> str | None:
    """The usual ending of the file's name, without a dot; None when it is no picture and no video we know."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm" if b"webm" in head[:64] else None
    if head[4:8] == b"ftyp":
        return _by_brands(head)
    if head[4:8] in (b"moov", b"mdat", b"wide"):  # QuickTime from before there were brands
        return "mov"
    return "svg" if _SVG.match(head) else None


def _by_brands(head: bytes) -> str | None:
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    if b"qt  " in brands:
        return "mov"
    return "mp4" if any(map(_VIDEO_BRAND.fullmatch, brands)) else None
