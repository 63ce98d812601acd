"""Keeping an output: a provider's bytes become a checked, stored file and the record of it."""

import asyncio
import hashlib
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from babysea_server.kit.clock import Clock
from babysea_server.media.measure import measure
from babysea_server.media.sniff import sniff
from babysea_server.media.types import Measure, Media, UnreadableMediaError
from babysea_server.outputs.keys import output_key
from babysea_server.outputs.store import ObjectStore, StorageError

OutputKind = Literal["image", "video"]

MAX_IMAGE_BYTES = 64 * 1024 * 1024
MAX_VIDEO_BYTES = 1024 * 1024 * 1024

#: Seconds before the second and the third try at storing.
_PAUSES_S = (0.25, 1.0)


class BadOutputError(Exception):
    """A provider's file that cannot be an output; the message says why, in a sentence for people."""


class StoredOutput(msgspec.Struct, frozen=True, kw_only=True):
    """One stored file, as the generation's record keeps it (in JSON).

    `sha256` is 64 lower-case hex digits; `width` and `height` are pixels; `seconds` is None for pictures.
    """

    key: str
    content_type: str
    bytes: int
    sha256: str
    width: int
    height: int
    seconds: float | None = None


async def keep(
    store: ObjectStore,
    *,
    generation_id: UUID,
    created_at: datetime,
    index: int,
    data: bytes,
    media: OutputKind,
    clock: Clock,
    max_image_bytes: int = MAX_IMAGE_BYTES,
    max_video_bytes: int = MAX_VIDEO_BYTES,
) -> StoredOutput:
    """Check one output file and store it under a fresh key.

    Args:
        store: the region's store.
        generation_id: whose output it is.
        created_at: when the generation was accepted; gives the key its date.
        index: the file's place among the generation's outputs, from 0.
        data: the file.
        media: what the generation makes; SVG counts as image.
        clock: waits between tries.
        max_image_bytes: the largest picture that is kept.
        max_video_bytes: the largest video that is kept.

    Raises:
        BadOutputError: empty, too large, unknown, of the other media, cut off or broken; nothing is stored.
        StorageError: the store failed three times.
    """
    if not data:
        raise BadOutputError("the file is empty")
    limit = max_video_bytes if media == "video" else max_image_bytes
    if len(data) > limit:
        raise BadOutputError(f"the file has {len(data)} bytes; {limit} are kept at most")
    found, measured, digest = await asyncio.to_thread(_examine, data, media)
    key = output_key(generation_id, created_at, index, found.extension)
    await _put(store, key, data, found.content_type, clock)
    return StoredOutput(
        key=key,
        content_type=found.content_type,
        bytes=len(data),
        sha256=digest,
        width=measured.width,
        height=measured.height,
        seconds=measured.seconds,
    )


def _examine(data: bytes, media: OutputKind) -> tuple[Media, Measure, str]:
    found = sniff(data)
    if found is None:
        raise BadOutputError("the file is neither a picture nor a video of a known type")
    if found.kind != media:
        raise BadOutputError(f"the generation makes {media} and the file is {found.content_type}")
    try:
        measured = measure(data, found)
    except UnreadableMediaError as error:
        raise BadOutputError(str(error)) from error
    return found, measured, hashlib.sha256(data).hexdigest()


async def _put(store: ObjectStore, key: str, data: bytes, content_type: str, clock: Clock) -> None:
    # The key stays the same: a try that succeeded without our hearing of it is overwritten with its equal.
    for pause_s in _PAUSES_S:
        try:
            return await store.put(key, data, content_type)
        except StorageError:
            await clock.sleep(pause_s)
    return await store.put(key, data, content_type)
