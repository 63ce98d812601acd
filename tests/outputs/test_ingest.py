import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.media.samples import SVG, film, picture
from tests.outputs.samples import TurnedClock

from babysea_server.outputs.ingest import BadOutputError, OutputKind, StoredOutput, keep
from babysea_server.outputs.store import ObjectStore, StorageError, open_store

GENERATION = UUID("0190a5b0-0000-7000-8000-000000000001")
CREATED_AT = datetime(2026, 4, 28, 12, 0, tzinfo=UTC)


async def kept(
    store: ObjectStore, clock: TurnedClock, data: bytes, media: OutputKind = "image", **limits: int
) -> StoredOutput:
    return await keep(
        store,
        generation_id=GENERATION,
        created_at=CREATED_AT,
        index=2,
        data=data,
        media=media,
        clock=clock,
        **limits,
    )


def stored_files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def test_picture_is_stored_with_its_facts(store: ObjectStore, clock: TurnedClock) -> None:
    data = picture("PNG")
    stored = await kept(store, clock, data)
    assert stored.content_type == "image/png"
    assert (stored.width, stored.height, stored.seconds) == (64, 48, None)
    assert stored.bytes == len(data)
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert stored.key.startswith(f"outputs/2026/04/28/{GENERATION}/")
    assert stored.key.endswith("-2.png")
    assert b"".join([chunk async for chunk in store.stream(stored.key, 0, len(data))]) == data


async def test_video_is_stored_with_its_length(store: ObjectStore, clock: TurnedClock) -> None:
    stored = await kept(store, clock, film("mp4", "libx264"), "video")
    assert stored.content_type == "video/mp4"
    assert (stored.width, stored.height) == (64, 48)
    assert stored.seconds == pytest.approx(2.0, abs=0.05)


async def test_svg_counts_as_image(store: ObjectStore, clock: TurnedClock) -> None:
    stored = await kept(store, clock, SVG)
    assert (stored.content_type, stored.width, stored.height) == ("image/svg+xml", 40, 30)


async def test_record_survives_json(store: ObjectStore, clock: TurnedClock) -> None:
    for data, media in ((picture("PNG"), "image"), (film("mp4", "libx264"), "video")):
        stored = await kept(store, clock, data, "video" if media == "video" else "image")
        assert msgspec.json.decode(msgspec.json.encode(stored), type=StoredOutput) == stored
        assert msgspec.convert(msgspec.to_builtins(stored), StoredOutput) == stored


@pytest.mark.parametrize(
    ("data", "media", "reason"),
    [
        (b"", "image", "empty"),
        (b"<html>Busy</html>", "image", "neither"),
        (picture("PNG"), "video", "makes video and the file is image/png"),
        (film("mp4", "libx264"), "image", "makes image and the file is video/mp4"),
    ],
)
async def test_what_is_no_output_is_refused_and_not_stored(
    tmp_path: Path, clock: TurnedClock, data: bytes, media: OutputKind, reason: str
) -> None:
    with pytest.raises(BadOutputError, match=reason):
        await kept(open_store(None, tmp_path), clock, data, media)
    assert stored_files(tmp_path) == []


async def test_cut_off_file_is_refused_and_not_stored(tmp_path: Path, clock: TurnedClock) -> None:
    for data, media in ((picture("PNG"), "image"), (film("mp4", "libx264"), "video")):
        with pytest.raises(BadOutputError):
            await kept(
                open_store(None, tmp_path), clock, data[:-300], "video" if media == "video" else "image"
            )
    assert stored_files(tmp_path) == []


async def test_size_caps_go_by_media(store: ObjectStore, clock: TurnedClock) -> None:
    image, video = picture("PNG"), film("mp4", "libx264")
    await kept(store, clock, image, max_image_bytes=len(image), max_video_bytes=1)
    await kept(store, clock, video, "video", max_image_bytes=1, max_video_bytes=len(video))
    with pytest.raises(BadOutputError, match="are kept at most"):
        await kept(store, clock, image, max_image_bytes=len(image) - 1)
    with pytest.raises(BadOutputError, match="are kept at most"):
        await kept(store, clock, video, "video", max_video_bytes=len(video) - 1)


class Flaky:
    """A backend whose first puts fail."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.keys: list[str] = []

    async def put_async(self, key: str, *_: object, **__: object) -> None:
        self.keys.append(key)
        if len(self.keys) <= self.failures:
            raise OSError("busy")


async def test_storing_is_tried_three_times_with_growing_pauses(clock: TurnedClock) -> None:
    backend: Any = Flaky(2)
    stored = await kept(ObjectStore(backend, name="x"), clock, picture("PNG"))
    assert backend.keys == [stored.key] * 3
    assert clock.slept == sorted(clock.slept)
    assert len(clock.slept) == 2


async def test_storing_is_given_up_after_the_third_try(clock: TurnedClock) -> None:
    backend: Any = Flaky(3)
    with pytest.raises(StorageError, match="busy"):
        await kept(ObjectStore(backend, name="x"), clock, picture("PNG"))
    assert len(backend.keys) == 3
