"""Conditional and partial requests (RFC 9110, sections 13 and 14), as far as one file needs them."""

import re

# More digits than any size has: such a range is ignored like any other malformed one.
_RANGE = re.compile(r"bytes=[ \t]*(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))[ \t]*", re.IGNORECASE)


class UnsatisfiableRangeError(Exception):
    """A well-formed range that holds not one byte of the file."""


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """The part of a file of `size` bytes that a Range header asks for, as start and exclusive end.

    None means the whole file: for several ranges at once, other units and malformed texts, all of which a
    server may ignore.

    Raises:
        UnsatisfiableRangeError: it begins behind the end, or asks for the last zero bytes.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        if int(suffix) == 0:
            raise UnsatisfiableRangeError
        return (max(size - int(suffix), 0), size) if size else None
    start = int(first)
    if last is not None and int(last) < start:
        return None
    if start >= size:
        raise UnsatisfiableRangeError
    return start, size if last is None else min(int(last) + 1, size)


def lists_etag(text: str, etag: str) -> bool:
    """Whether an If-None-Match header names `etag`, compared weakly, or any (`*`)."""
    return text.strip() == "*" or etag in {part.strip().removeprefix("W/") for part in text.split(",")}
