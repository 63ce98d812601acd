"""Still pictures: their dimensions and whether the file is whole, read from structure and not from pixels.

Every walker below goes through the whole file by its own lengths and ends at its own end marker, so that a
file that was cut off is noticed without decoding it, at no more than one pass over the bytes. Dimensions
come from headers, so a picture that would need gigabytes to decode costs nothing.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable
from xml.parsers import expat

from babysea_server.media.isobmff import boxes

Size = tuple[int, int]

#: Pictures up to this many pixels (512 x 512) are decoded as well; it takes at most some milliseconds.
DECODED_PIXELS = 512 * 512

_PILLOW_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "gif": "GIF", "avif": "AVIF"}
_SVG_ROOT = "http://www.w3.org/2000/svg svg"
_SVG_LENGTH = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{0,9})?)(?:px)?\s*")
_SVG_DEFAULT: Size = (300, 150)  # what browsers give a picture without dimensions (CSS 2.2, 10.3.2)


class BrokenImageError(ValueError):
    """A picture that is cut off or malformed."""


def image_size(data: bytes, extension: str) -> Size:
    """Width and height in pixels of a whole picture of the kind that `extension` names.

    Raises:
        BrokenImageError: the file is cut off, malformed, or (when it is small) cannot be decoded.
    """
    try:
        width, height = _WALKERS[extension](data)
    except (ValueError, IndexError, struct.error) as error:
        raise BrokenImageError(str(error)) from error
    if width < 1 or height < 1:
        raise BrokenImageError("the picture has no area")
    if extension in _PILLOW_FORMATS and width * height <= DECODED_PIXELS:
        _decode(data, _PILLOW_FORMATS[extension], (width, height))
    return width, height


def _decode(data: bytes, format: str, size: Size) -> None:
    from PIL import Image  # here: a process that serves requests need not wait for it

    try:
        with Image.open(io.BytesIO(data), formats=[format]) as image:
            # Checked before pixels are touched: a second, larger header must not get us to allocate for it.
            if image.size != size:
                raise BrokenImageError(f"the picture claims both {size} and {image.size} pixels")
            image.load()
    except BrokenImageError:
        raise
    except Exception as error:  # decoders raise all sorts on malformed bytes, SyntaxError included
        raise BrokenImageError(f"the picture cannot be decoded: {error}") from error


def _png(data: bytes) -> Size:
    size: Size | None = None
    at, pixels = 8, False
    while True:
        length, chunk = struct.unpack_from(">I4s", data, at)
        content = memoryview(data)[at + 4 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(content) != checksum:
            raise BrokenImageError("a PNG chunk does not match its checksum")
        if size is None:
            if chunk != b"IHDR":
                raise BrokenImageError("the PNG does not begin with its header")
            size = struct.unpack_from(">II", data, at + 8)
        pixels = pixels or chunk == b"IDAT"
        if chunk == b"IEND":
            break
        at += 12 + length
    if not pixels:
        raise BrokenImageError("the PNG has no pixels")
    return size


def _jpeg(data: bytes) -> Size:
    size: Size | None = None
    at = 2
    while True:
        if data[at] != 0xFF:
            raise BrokenImageError("a JPEG segment does not begin where the one before it ends")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        at += 2
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # these stand alone
            continue
        (length,) = struct.unpack_from(">H", data, at)
        # Start of frame, in its 13 kinds; DHT, JPG and DAC share the range.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 3)
            size = (width, height)
        at += length
        if marker == 0xDA:
            break
    if size is None:
        raise BrokenImageError("the JPEG has no frame header")
    # Inside a scan 0xFF is always followed by 0x00 or a restart marker, so this finds the true end.
    if data.find(b"\xff\xd9", at) < 0:
        raise BrokenImageError("the JPEG has no end")
    return size


def _gif(data: bytes) -> Size:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, frames = 13 + _gif_colors(flags), 0
    while data[at] != 0x3B:
        if data[at] == 0x21:
            at = _gif_after_blocks(data, at + 2)
        elif data[at] == 0x2C:
            frames += 1
            at = _gif_after_blocks(data, at + 11 + _gif_colors(data[at + 9]))
        else:
            raise BrokenImageError("the GIF holds an unknown block")
    if not frames:
        raise BrokenImageError("the GIF has no frames")
    return width, height


def _gif_colors(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_after_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1


def _webp(data: bytes) -> Size:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise BrokenImageError("the WebP is cut off")
    size: Size | None = None
    at, pixels = 12, False
    while end - at >= 8:
        chunk, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise BrokenImageError("a WebP chunk is cut off")
        size = size or _webp_size(chunk, data, at + 8)
        pixels = pixels or chunk in (b"VP8 ", b"VP8L", b"ANMF")
        at += 8 + length + length % 2
    if size is None or not pixels:
        raise BrokenImageError("the WebP has no pixels")
    return size


def _webp_size(type: bytes, data: bytes, at: int) -> Size | None:
    if type == b"VP8X":
        sides = data[at + 4 : at + 10]
        return int.from_bytes(sides[:3], "little") + 1, int.from_bytes(sides[3:], "little") + 1
    if type == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, at + 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if type == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, at + 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _avif(data: bytes) -> Size:
    top = {box.type: box for box in boxes(data)}
    if b"meta" not in top:
        raise BrokenImageError("the AVIF has no meta box")
    # meta is a full box: four bytes of version and flags stand before its children.
    inside = {box.type: box for box in boxes(data, top[b"meta"].start + 4, top[b"meta"].end)}
    if b"mdat" not in top and b"idat" not in inside:
        raise BrokenImageError("the AVIF has no pixels")
    properties = inside.get(b"iprp")
    sizes: list[Size] = []
    for container in boxes(data, properties.start, properties.end) if properties else ():
        if container.type == b"ipco":
            sizes += [
                struct.unpack_from(">II", data, box.start + 4)
                for box in boxes(data, container.start, container.end)
                if box.type == b"ispe"
            ]
    if not sizes:
        raise BrokenImageError("the AVIF does not say its size")
    # A picture made of tiles states the tiles' size too; the whole is the largest.
    return max(sizes, key=lambda size: size[0] * size[1])


def _svg(data: bytes) -> Size:
    root: dict[str, str] | None = None

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal root
        if root is None:
            if name != _SVG_ROOT:
                raise BrokenImageError("the root is not svg in the SVG namespace")
            root = attributes

    def doctype(_name: str, _system: str | None, _public: str | None, has_subset: bool) -> None:
        if has_subset:  # the place where entities are declared that expand without end
            raise BrokenImageError("the SVG declares its own entities")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise BrokenImageError(f"the SVG is not well-formed: {error}") from error
    if root is None:
        raise BrokenImageError("the SVG is empty")
    return _svg_size(root)


def _svg_size(root: dict[str, str]) -> Size:
    width, height = (_SVG_LENGTH.fullmatch(root.get(name, "")) for name in ("width", "height"))
    if width and height:
        return round(float(width[1])), round(float(height[1]))
    view = [_SVG_LENGTH.fullmatch(part) for part in re.split(r"[\s,]+", root.get("viewBox", "").strip())[2:4]]
    if len(view) == 2 and view[0] and view[1]:
        return round(float(view[0][1])), round(float(view[1][1]))
    return _SVG_DEFAULT


_WALKERS: dict[str, Callable[[bytes], Size]] = {
    "png": _png,
    "jpg": _jpeg,
    "gif": _gif,
    "webp": _webp,
    "avif": _avif,
    "svg": _svg,
}
