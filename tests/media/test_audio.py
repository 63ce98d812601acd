"""Sound files from real encoders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.media.samples import film, picture, sound

from babysea_server.media.measure import measure_audio
from babysea_server.media.sniff import sniff_audio
from babysea_server.media.types import Media, UnreadableMediaError

SOUNDS = {
    "wav": sound("wav", "pcm_s16le"),
    "flac": sound("flac", "flac"),
    "ogg": sound("ogg", "libopus"),
    "mp3": sound("mp3", "libmp3lame"),
    "m4a": sound("ipod", "aac"),
    "aac": sound("adts", "aac"),
}


@pytest.mark.parametrize("extension", SOUNDS)
def test_sound_is_recognised_and_measured(extension: str) -> None:
    data = SOUNDS[extension]
    media = sniff_audio(data)
    assert media is not None
    assert (media.kind, media.extension) == ("audio", extension)
    assert media.content_type.startswith("audio/")
    # Encoders pad, and a file of bare ADTS frames states no length: it is estimated from the rate.
    assert measure_audio(data, media) == pytest.approx(1.0, abs=0.2)


def test_mp3_without_tags_is_recognised() -> None:
    data = SOUNDS["mp3"]
    assert data.startswith(b"ID3")
    frames = data[data.index(b"\xff\xfb") :]
    media = sniff_audio(frames)
    assert media is not None
    assert media.extension == "mp3"
    assert measure_audio(frames, media) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\xff\xd8\xff\xe0",
        b"\xff\xe8\0\0",
        picture("PNG"),
        picture("JPEG"),
        film("mp4", "libx264"),
    ],
)
def test_other_files_are_no_sound(data: bytes) -> None:
    assert sniff_audio(data) is None


@pytest.mark.parametrize("extension", SOUNDS)
def test_a_file_without_sound_is_unreadable(extension: str) -> None:
    media = sniff_audio(SOUNDS[extension])
    assert media is not None
    with pytest.raises(UnreadableMediaError):
        measure_audio(SOUNDS[extension][:30], media)


def test_cut_off_m4a_is_unreadable() -> None:
    data = SOUNDS["m4a"]
    with pytest.raises(UnreadableMediaError):
        measure_audio(data[:-100], Media("audio/mp4", "m4a", "audio"))


@given(st.sampled_from(sorted(SOUNDS)), st.integers(0, 2**20), st.binary(max_size=12))
def test_damage_is_measured_or_refused_and_never_anything_else(name: str, place: int, damage: bytes) -> None:
    data = SOUNDS[name]
    at = place % len(data)
    broken = data[:at] + damage + data[at + len(damage) :]
    media = sniff_audio(broken)
    if media is None:
        return
    try:
        assert measure_audio(broken, media) > 0
    except UnreadableMediaError:
        return
