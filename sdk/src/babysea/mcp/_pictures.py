"""The files of a generation as content of an answer: pictures themselves, everything else as links."""

import base64
from collections.abc import Sequence
from mimetypes import guess_type
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import anyio
from mcp_types import ContentBlock, ImageContent, ResourceLink

from babysea import AsyncBabySea, BabySeaError, Generation

PICTURES_MAX_BYTES = 1024**2  # of all pictures in an answer; more is refused by assistants

_FETCH_MAX_BYTES = 32 * 1024**2  # of one file
_SHOWN = {".png": "image/png", ".jpg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}


def links(generation: Generation) -> list[ContentBlock]:
    """A link for each file."""
    return [
        ResourceLink(
            type="resource_link",
            uri=url,
            name=f"{generation.model_identifier} {number}",
            mime_type=_kind(url),
        )
        for number, url in enumerate(generation.urls, 1)
    ]


async def pictures(client: AsyncBabySea, generation: Generation) -> tuple[list[ContentBlock], str | None]:
    """The pictures, byte for byte, as long as they fit in an answer; and a note on those that do not.

    Nothing is raised: whoever paid for a generation gets its links in any case.
    """
    if all((_kind(url) or "").startswith("video/") for url in generation.urls):
        return [], None
    with TemporaryDirectory(prefix="babysea-mcp-") as folder:
        try:
            files = await client.download(generation, folder, max_bytes=_FETCH_MAX_BYTES)
        except (BabySeaError, OSError):
            return [], "The pictures could not be read; their links are here."
        return await _shown(files)


def _kind(url: str) -> str | None:
    return guess_type(urlsplit(url).path)[0]


async def _shown(files: Sequence[Path]) -> tuple[list[ContentBlock], str | None]:
    blocks: list[ContentBlock] = []
    left = PICTURES_MAX_BYTES
    for path in files:
        kind, size = _SHOWN.get(path.suffix), path.stat().st_size
        if kind is None or size > left:
            continue
        left -= size
        data = base64.b64encode(await anyio.Path(path).read_bytes()).decode()
        blocks.append(ImageContent(type="image", data=data, mime_type=kind))
    missing = len(files) - len(blocks)
    note = f"{missing} of {len(files)} files are too large to show, or no pictures: use the links."
    return blocks, note if missing else None
