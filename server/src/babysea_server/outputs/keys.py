"""Object keys: how they are built, what they may look like, and what can be read off them."""

import re
from datetime import UTC, datetime
from uuid import UUID

from babysea_server.kit import ids
from babysea_server.media.types import CONTENT_TYPES

MAX_KEY_LENGTH = 512

# A segment never starts with a dot, which rules out `.`, `..` and hidden files in one stroke. What is not
# in the class (`%`, `#`, NUL, back slash, anything beyond ASCII) means something to some file system,
# shell or URL parser, and nothing we name needs it.
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")


class InvalidKeyError(ValueError):
    """A text that is not an object key."""


def is_key(text: str) -> bool:
    """Whether `text` is an object key: up to 512 characters in segments of `A-Z a-z 0-9 . _ -`."""
    return len(text) <= MAX_KEY_LENGTH and _KEY.fullmatch(text) is not None


def check_key(text: str) -> str:
    """`text`, when it is an object key.

    Raises:
        InvalidKeyError: it is not.
    """
    if not is_key(text):
        raise InvalidKeyError(f"not an object key: {text[:80]!r}")
    return text


def output_key(generation_id: UUID, created_at: datetime, index: int, extension: str) -> str:
    """A fresh key for one output file: `outputs/2026/04/28/<generation>/<32 random characters>-0.png`.

    The day comes first so that a bucket can be listed, expired and measured by date; the 192 random bits
    keep a key unguessable from the generation's id, which callers and logs know.
    """
    day = created_at.astimezone(UTC).strftime("%Y/%m/%d")
    return check_key(f"outputs/{day}/{generation_id}/{ids.token(24)}-{index}.{extension}")


def content_type(key: str) -> str:
    """The media type a key's extension stands for; `application/octet-stream` when it stands for none."""
    return CONTENT_TYPES.get(key.rpartition(".")[2], "application/octet-stream")


def download_name(key: str) -> str:
    """A name for the saved file, e.g. `<generation>-0.png`: the random part means nothing to people."""
    directory, _, name = key.rpartition("/")
    owner = directory.rpartition("/")[2]
    return f"{owner}-{name.rpartition('-')[2]}" if owner else name
