"""The box structure that MP4, QuickTime and AVIF share (ISO/IEC 14496-12): enough of it to walk."""

from collections.abc import Iterator
from typing import NamedTuple

# A fragmented film of some hours has about two boxes a second.
_MAX_BOXES = 65_536


class Box(NamedTuple):
    """One box: its four-character type and where its content lies in the file."""

    type: bytes
    start: int
    end: int


class BrokenBoxError(ValueError):
    """A box that says it is larger than what holds it, which is how a cut-off file looks."""


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two offsets, in order; up to seven stray bytes after the last are ignored.

    Raises:
        BrokenBoxError: a box reaches beyond `end`, or there are absurdly many.
    """
    limit = len(data) if end is None else end
    for _ in range(_MAX_BOXES):
        if limit - start < 8:
            return
        size, header = int.from_bytes(data[start : start + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        elif size == 0:  # to the end of the file
            size = limit - start
        if size < header or start + size > limit:
            raise BrokenBoxError("a box reaches beyond the end of the file")
        yield Box(data[start + 4 : start + 8], start + header, start + size)
        start += size
    raise BrokenBoxError("the file has too many boxes")


def brands(data: bytes) -> frozenset[bytes]:
    """The major and compatible brands of a file that begins with an `ftyp` box; empty for any other."""
    size = int.from_bytes(data[:4], "big")
    if data[4:8] != b"ftyp" or not 16 <= size <= 4096:
        return frozenset()
    body = data[8:size]
    return frozenset(body[at : at + 4] for at in (0, *range(8, len(body) - 3, 4)))
