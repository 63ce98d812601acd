"""Files on the disk: whole or not at all, under safe names, and without the key on the way."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.media import samples
from tests.sdk.clients import (
    ID,
    KINDS,
    JumpingClock,
    Network,
    Scripted,
    generation,
    side,
    success,
)

from babysea import (
    DownloadError,
    GenerationCanceledError,
    GenerationError,
    GenerationFailedError,
    InvalidInputError,
    NetworkError,
    RetriesExhaustedError,
)
from babysea._media import HEAD_BYTES, SUFFIXES, suffix
from babysea_server.media.sniff import sniff

PNG = b"\x89PNG\r\n\x1a\n" + b"p" * 3000
URL = "https://files.example/outputs/a?expires=1&signature=x"
NAME = f"sandbox-image-{ID[-8:]}"


def _made(*urls: str, **members: Any) -> httpx.Response:
    return success(generation(generation_output_file=list(urls or (URL,)), **members))


def _file(content: bytes = PNG, **headers: str) -> httpx.Response:
    return httpx.Response(200, content=content, headers=headers)


@pytest.mark.parametrize(
    "content",
    [
        *(samples.picture(format) for format in ("PNG", "JPEG", "GIF", "WEBP", "AVIF")),
        samples.SVG,
        b"\xef\xbb\xbf <svg/>",
        *samples.films().values(),
        b"\0\0\0\x08wide" + b"\0" * 50,
        b"",
        b"RIFF\0\0\0\0WAVE",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"\x1a\x45\xdf\xa3matroska",
        b"<!-- " * 900,
        b"<?xml?> <html>",
    ],
    ids=lambda content: f"{content[:12]!r}",
)
def test_the_type_of_a_file_is_what_the_server_says(content: bytes) -> None:
    media = sniff(content)
    assert suffix(content[:HEAD_BYTES]) == (media.extension if media else None)
    assert media is None or media.extension in SUFFIXES


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", KINDS)
async def test_files_get_names_of_model_id_and_number(kind: str, tmp_path: Path) -> None:
    network = Network(_made(URL, URL), _file(), _file(b"\xff\xd8\xff" + b"j" * 9))
    paths = await side(kind, network).call("download", ID, tmp_path / "new" / "folder")
    assert paths == [tmp_path / "new" / "folder" / name for name in (f"{NAME}-1.png", f"{NAME}-2.jpg")]
    assert [path.read_bytes()[:4] for path in paths] == [b"\x89PNG", b"\xff\xd8\xffj"]
    assert _files(tmp_path) == [f"{NAME}-1.png", f"{NAME}-2.jpg"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_generation_that_was_read_is_not_read_again(kind: str, tmp_path: Path) -> None:
    network = Network(_made(), _file())
    client = side(kind, network)
    await client.call("download", await client.call("get_generation", ID), tmp_path)
    assert len(network.requests) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_the_key_and_what_belongs_to_it_stay_here(kind: str, tmp_path: Path) -> None:
    network = Network(_made(), _file())
    await side(kind, network).call("download", ID, tmp_path)
    sent = network.requests[1]
    assert str(sent.url) == URL
    assert {name.lower() for name in sent.headers} == {"host", "user-agent", "accept", "accept-encoding"}
    assert "bye_" not in str(sent.headers.raw)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("to", "name", "expected"),
    [
        ("fox.png", None, "fox.png"),
        ("a/fox.JPG", None, "a/fox.JPG"),
        ("v1.5", None, f"v1.5/{NAME}-1.png"),
        ("fox.png/", None, f"fox.png/{NAME}-1.png"),
        (".", "fox", "fox.png"),
        (".", "../../etc/a fox", "etc-a-fox.png"),
        (".", "...", "file.png"),
        (".", "x" * 300, "x" * 100 + ".png"),
    ],
)
async def test_where_a_file_goes(
    kind: str, to: str, name: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = await side(kind, Network(_made(), _file())).call("download", ID, to, name=name)
    assert paths == [Path(expected)]
    assert paths[0].read_bytes() == PNG


@pytest.mark.parametrize("kind", KINDS)
async def test_several_files_of_one_name_are_numbered_and_need_a_folder(kind: str, tmp_path: Path) -> None:
    network = Network(_made(URL, URL), _file(), _file(), _made(URL, URL))
    client = side(kind, network)
    paths = await client.call("download", ID, tmp_path, name="fox")
    assert [path.name for path in paths] == ["fox-1.png", "fox-2.png"]
    with pytest.raises(InvalidInputError, match="folder"):
        await client.call("download", ID, tmp_path / "fox.png")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_there_stays_unless_it_may_be_overwritten(kind: str, tmp_path: Path) -> None:
    for to, place in ((tmp_path, f"{NAME}-1.png"), (tmp_path / "fox.png", "fox.png")):
        taken = tmp_path / place
        taken.write_text("mine")
        with pytest.raises(FileExistsError):
            await side(kind, Network(_made(), _file())).call("download", ID, to)
        assert taken.read_text() == "mine"
        await side(kind, Network(_made(), _file())).call("download", ID, to, overwrite=True)
        assert taken.read_bytes() == PNG
    assert _files(tmp_path) == ["fox.png", f"{NAME}-1.png"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_place_that_is_taken_meanwhile_is_left_alone(kind: str, tmp_path: Path) -> None:
    taken = tmp_path / "fox.png"

    class Late(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield PNG
            taken.write_text("theirs")

        async def __aiter__(self) -> Any:
            for part in self:
                yield part

    network = Network(_made(), httpx.Response(200, stream=Late()))
    with pytest.raises(FileExistsError):
        await side(kind, network).call("download", ID, taken)
    assert taken.read_text() == "theirs"
    assert _files(tmp_path) == ["fox.png"]


REFUSED: dict[str, httpx.Response] = {
    "a page": _file(b"<html>Please log in</html>"),
    "nothing": _file(b""),
    "a program": _file(b"\x7fELF" + b"\0" * 3000),
    "a picture of no known type": _file(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 2000),
    "something large": _file(b"\x89PNG\r\n\x1a\n" + b"p" * 9000),
    "a redirect": httpx.Response(302, headers={"Location": "https://elsewhere.example/"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_such_file_is_refused_and_leaves_nothing(
    kind: str, name: str, tmp_path: Path
) -> None:
    later = [_made(), REFUSED[name]] if name == "a redirect" else []
    network = Network(_made(), REFUSED[name], *later)
    with pytest.raises(DownloadError):
        await side(kind, network).call("download", ID, tmp_path, max_bytes=4000)
    assert _files(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_file_that_does_not_say_how_large_it_is_is_bounded_all_the_same(
    kind: str, tmp_path: Path
) -> None:
    answer = httpx.Response(200, stream=httpx.ByteStream(PNG))
    with pytest.raises(DownloadError, match="larger than 2999 bytes"):
        await side(kind, Network(_made(), answer)).call("download", ID, tmp_path, max_bytes=2999)
    assert _files(tmp_path) == []


SHORTER_THAN_IT_SAYS = _file(PNG, **{"Content-Length": str(len(PNG) + 1)})


@pytest.mark.parametrize("kind", KINDS)
async def test_an_incomplete_file_is_fetched_again_and_given_up_in_the_end(kind: str, tmp_path: Path) -> None:
    time = JumpingClock()
    network = Network(_made(), SHORTER_THAN_IT_SAYS, httpx.ReadError("cut"), _file())
    paths = await side(kind, network, time).call("download", ID, tmp_path)
    assert paths[0].read_bytes() == PNG
    assert time.slept == [0.5, 1.0]

    network = Network(_made(), *[SHORTER_THAN_IT_SAYS] * 3)
    with pytest.raises(NetworkError, match="incomplete") as caught:
        await side(kind, network).call("download", ID, tmp_path, overwrite=True)
    assert isinstance(caught.value, RetriesExhaustedError)
    assert _files(tmp_path) == [paths[0].name]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_second_file_that_fails_takes_the_first_along(kind: str, tmp_path: Path) -> None:
    network = Network(_made(URL, URL), _file(), _file(b"?"))
    with pytest.raises(DownloadError):
        await side(kind, network).call("download", ID, tmp_path)
    assert _files(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_expired_links_are_renewed_once(kind: str, tmp_path: Path) -> None:
    fresh = "https://files.example/fresh"
    network = Network(_made(), httpx.Response(403), _made(fresh), _file())
    assert await side(kind, network).call("download", ID, tmp_path)
    assert str(network.requests[-1].url) == fresh

    network = Network(_made(), httpx.Response(403), _made(fresh), httpx.Response(403))
    with pytest.raises(DownloadError, match="403") as caught:
        await side(kind, network).call("download", ID, tmp_path / "other")
    assert (caught.value.status, caught.value.generation_id) == (403, ID)


@pytest.mark.parametrize("kind", KINDS)
async def test_files_that_were_removed_meanwhile_are_told_as_such(kind: str, tmp_path: Path) -> None:
    removed = success(generation(generation_removed=True))
    network = Network(_made(), httpx.Response(404), removed)
    with pytest.raises(GenerationError, match="removed"):
        await side(kind, network).call("download", ID, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (generation("processing"), GenerationError),
        (generation("failed"), GenerationFailedError),
        (generation("canceled"), GenerationCanceledError),
        (generation(generation_output_file=[]), GenerationError),
        (generation(generation_output_file=["file:///etc/passwd"]), DownloadError),
        (generation(generation_output_file=["http://["]), DownloadError),
    ],
)
async def test_a_generation_without_files_is_refused(
    kind: str, data: dict[str, Any], expected: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(expected):
        await side(kind, Network(success(data))).call("download", ID, tmp_path)
    assert _files(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_disk_leaves_nothing_behind(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _to: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        await side(kind, Network(_made(), _file())).call("download", ID, tmp_path)
    assert _files(tmp_path) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_links_of_a_regional_host_on_ones_own_machine_are_found(kind: str, tmp_path: Path) -> None:
    network = Network(_made("http://api.eu.localhost:81/files/a"), _file())
    client = side(kind, network, base_url="http://127.0.0.1:81", region="eu")
    await client.call("download", ID, tmp_path)
    sent = network.requests[1]
    assert (str(sent.url), sent.headers["Host"]) == ("http://127.0.0.1:81/files/a", "api.eu.localhost:81")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_host_that_is_busy_is_asked_again(kind: str, tmp_path: Path) -> None:
    script: list[Scripted] = [_made(), httpx.Response(503), httpx.Response(429), _file()]
    assert await side(kind, Network(*script)).call("download", ID, tmp_path)


class Stalling(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A file of which the beginning comes, and then, in the place of the rest, Ctrl-C or silence."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    def __iter__(self) -> Iterator[bytes]:
        yield PNG
        raise KeyboardInterrupt

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield PNG * 1000
        self.began.set()
        await asyncio.Event().wait()


async def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    network = Network(_made(), httpx.Response(200, stream=Stalling()))
    with pytest.raises(KeyboardInterrupt):
        await side("sync", network).call("download", ID, tmp_path)
    assert _files(tmp_path) == []


async def test_a_task_that_is_canceled_leaves_nothing_behind(tmp_path: Path) -> None:
    stream = Stalling()
    network = Network(_made(), httpx.Response(200, stream=stream))
    task = asyncio.create_task(side("async", network).call("download", ID, tmp_path))
    await stream.began.wait()
    assert _files(tmp_path) != []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _files(tmp_path) == []
