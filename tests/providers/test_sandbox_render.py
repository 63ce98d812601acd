"""What the sandbox provider draws: sizes, formats, determinism, text of any kind, and playable clips."""

import io
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import Literal

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.effort import effort

from babysea_server.providers.sandbox import fonts, typeset
from babysea_server.providers.sandbox.overlay import PANEL_OPACITY, layout_of
from babysea_server.providers.sandbox.palette import palette_of
from babysea_server.providers.sandbox.render import (
    ImageFormat,
    Scene,
    frame_size,
    render_image,
    render_video,
    video_frame_size,
)

RASTERS: tuple[Literal["png", "jpg", "webp"], ...] = ("png", "jpg", "webp")
FORMATS: tuple[ImageFormat, ...] = (*RASTERS, "svg")

PROMPTS = {
    "empty": "",
    "short": "A cat",
    "long": "fishing boats and laundry lines between the houses of a harbor " * 80,
    "one endless word": "https://example.com/" + "a" * 3000,
    "hebrew": "חתול קטן יושב על החלון 2025 golden hour",
    "arabic": "قطة صغيرة تجلس على النافذة وتنظر إلى البحر",
    "chinese": "一只猫坐在海边的灯塔上，看着日落。" * 40,
    "emoji": "A 🚀 over 東京タワー 👩‍🚀 🇯🇵 👍🏽 ☕️ café",
    "thai and hindi": "แมวน้อย बिल्ली",
    "controls": "a\x00b\x1b[31m\nc\td\u202ee\ufeff",
    "lone surrogates": "a\ud800b\udfff",
    "unassigned": "\U0010ffff\u0378\ufffe",
    "marks only": "\u0301\u0302",
    "markup": '</text><script>alert("1")</script>&amp;',
}


def scene(prompt: str = "A lighthouse on a cliff", width: int = 192, height: int = 160) -> Scene:
    return Scene(prompt, 7, "bfl/flux-schnell via replicate", width, height)


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


# --- pictures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "name"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
@pytest.mark.parametrize("size", [(64, 64), (256, 256), (255, 333), (768, 64), (64, 768), (672, 288)])
def test_image_has_the_asked_format_and_size(
    format: Literal["png", "jpg", "webp"], name: str, size: tuple[int, int]
) -> None:
    picture = opened(render_image(scene("", *size), format))
    assert picture.format == name
    assert picture.size == size
    assert picture.mode == "RGB"


def test_svg_has_the_asked_size_and_no_reference_to_anything_outside() -> None:
    data = render_image(scene("A cat", 640, 360), "svg")
    root = ET.fromstring(data)
    assert (root.get("width"), root.get("height")) == ("640", "360")
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = data.decode().replace('xmlns="http://www.w3.org/2000/svg"', "")
    for forbidden in ("http", "href", "<script", "<image", "<style", "@import"):
        assert forbidden not in text


@pytest.mark.parametrize("format", FORMATS)
def test_image_bytes_are_the_same_for_the_same_scene(format: ImageFormat) -> None:
    assert render_image(scene(), format) == render_image(scene(), format)


@pytest.mark.parametrize("format", FORMATS)
def test_image_differs_by_index_seed_and_prompt(format: ImageFormat) -> None:
    scenes = [scene(), replace(scene(), index=1), replace(scene(), seed=8), scene("A lighthouse on a hill")]
    assert len({render_image(each, format) for each in scenes}) == len(scenes)


def test_outputs_of_one_request_share_their_colours() -> None:
    assert palette_of(scene()) == palette_of(replace(scene(), index=3))
    assert palette_of(scene()) != palette_of(replace(scene(), seed=8))


@pytest.mark.parametrize("seed", [0, -1, 2**63, -(2**200), 10**6000], ids=range(5))
def test_any_integer_is_a_seed(seed: int) -> None:
    assert opened(render_image(replace(scene(), seed=seed, index=seed), "png")).size == (192, 160)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
@pytest.mark.parametrize("size", [(64, 64), (320, 200)])
def test_any_prompt_can_be_drawn(format: ImageFormat, prompt: str, size: tuple[int, int]) -> None:
    data = render_image(replace(scene(prompt, *size), label=prompt), format)
    if format == "svg":
        ET.fromstring(data)
    else:
        assert opened(data).size == size


@given(
    prompt=st.text(max_size=300),
    label=st.text(max_size=60),
    seed=st.integers(),
    index=st.integers(),
    width=st.integers(64, 260),
    height=st.integers(64, 260),
    format=st.sampled_from(FORMATS),
)
@settings(max_examples=effort(20))
def test_any_scene_can_be_drawn(
    prompt: str, label: str, seed: int, index: int, width: int, height: int, format: ImageFormat
) -> None:
    data = render_image(Scene(prompt, seed, label, width, height, index), format)
    if format == "svg":
        ET.fromstring(data)
    else:
        assert opened(data).size == (width, height)


@given(prompt=st.text(max_size=400), width=st.integers(64, 4096), height=st.integers(64, 4096))
@settings(max_examples=effort(20))
def test_pill_and_card_stand_inside_every_frame_and_apart(prompt: str, width: int, height: int) -> None:
    layout = layout_of(Scene(prompt, 1, "lab/model via provider", width, height))
    for box in (layout.pill, layout.card):
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= width
        assert box.y + box.height <= height
        assert not any(value % 2 for value in (box.x, box.y, box.width, box.height))
    assert layout.pill.y + layout.pill.height <= layout.card.y
    assert layout.prompt.width <= layout.card.width - 2 * layout.pad
    assert layout.prompt.lines


@pytest.mark.parametrize("size", [(63, 64), (64, 4097), (0, 64), (64, -1)])
def test_frame_outside_the_limits_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be 64 to 4096 pixels"):
        scene("", *size)


def test_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="png, jpg, webp or svg"):
        render_image(scene(), "gif")  # type: ignore[arg-type]  # what untyped callers may send


def test_large_png_stays_small() -> None:
    assert len(render_image(scene("A lighthouse on a cliff, " * 20, 1024, 1024), "png")) < 600_000


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_says_sandbox(format: ImageFormat) -> None:
    data = render_image(scene("A cat"), format)
    if format == "svg":
        assert b"sandbox" in data.split(b"<desc>")[1].split(b"</desc>")[0]
        return
    picture = opened(data)
    said = (
        picture.getexif().get(0x010E)
        if format == "webp"
        else picture.info.get("comment") or (picture.info.get("Comment"))
    )
    assert "sandbox" in (said.decode() if isinstance(said, bytes) else str(said))


def test_picture_says_sandbox_and_shows_the_prompt() -> None:
    """The pill and the card are where the layout says, and the prompt's ink changes the card."""
    blank, worded = (opened(render_image(scene(prompt, 512, 512), "png")) for prompt in ("", "WWWW WWWW"))
    layout = layout_of(scene("WWWW WWWW", 512, 512))
    for picture, box in ((blank, layout.pill), (worded, layout.pill), (worded, layout.card)):
        pixels = np.asarray(picture.crop((box.x, box.y, box.x + box.width, box.y + box.height)))
        assert pixels.min(axis=2).max() > 235, "white text"
        assert np.median(pixels.max(axis=2)) < 160, "dark panel"
    texts = b"".join(render_image(scene("A cat", 512, 512), "svg").split())
    assert b">SANDBOX<" in texts
    assert b">Acat<" in texts
    assert "Sandbox·bfl/flux-schnellviareplicate".encode() in texts


@given(seed=st.integers(0, 10_000))
@settings(max_examples=effort(20))
def test_panels_keep_text_readable_on_every_palette(seed: int) -> None:
    palette = palette_of(Scene("", seed, "", 64, 64))
    # The worst that can lie under a panel is the sun.
    behind = tuple(
        PANEL_OPACITY * i + (1 - PANEL_OPACITY) * s for i, s in zip(palette.ink, palette.sun, strict=True)
    )
    assert _contrast(palette.text, behind) > 4.5
    for stop in (*palette.sky, *palette.sea, *palette.glow):
        r, g, b = (
            PANEL_OPACITY * i + (1 - PANEL_OPACITY) * s for i, s in zip(palette.ink, stop, strict=True)
        )
        assert _contrast(palette.muted, (r, g, b)) > 3


def _contrast(light: tuple[float, ...], dark: tuple[float, ...]) -> float:
    """WCAG 2.2 contrast ratio."""

    def luminance(colour: tuple[float, ...]) -> float:
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    return (luminance(light) + 0.05) / (luminance(dark) + 0.05)


# --- text -------------------------------------------------------------------------------------------


def fitted(text: str, *, width: int = 300, height: int = 80) -> typeset.Block:
    return typeset.fit(typeset.words_of(typeset.clean(text)), width=width, height=height, sizes=(24, 16, 12))


def spoken(block: typeset.Block) -> list[str]:
    return [" ".join(placed.word.text for placed in line) for line in block.lines]


def test_short_text_is_set_large_and_long_text_small() -> None:
    assert fitted("A cat").px == 24
    assert fitted("harbor town at dawn " * 4).px < 24


def test_text_that_does_not_fit_ends_in_an_ellipsis() -> None:
    block = fitted("harbor town at dawn " * 60)
    assert not block.whole
    assert block.px == 12
    assert block.height <= 80
    assert spoken(block)[-1].endswith("…")


def test_no_line_is_wider_than_the_box() -> None:
    for prompt in PROMPTS.values():
        assert fitted(prompt).width <= 300


def test_control_and_direction_characters_are_left_out() -> None:
    assert typeset.clean("a\x00b\n\n c\u202ed\u200de\ud800f") == "a b cdef"


def test_right_to_left_words_run_from_the_right() -> None:
    block = typeset.fit(
        tuple(
            typeset.Word(text, fonts.BUILT_IN, rtl, spaced)
            for text, rtl, spaced in (
                ("one", True, False),
                ("two", True, True),
                ("en", False, True),
                ("glish", False, True),
            )
        ),
        width=500,
        height=40,
        sizes=(16,),
    )
    assert block.right_to_left
    assert spoken(block) == ["en glish two one"]
    assert block.sources == ("one two en glish",)


def test_characters_without_glyphs_are_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "count", lambda: 1)
    words = typeset.words_of(typeset.clean("A 🚀 by 東京タワー 🇯🇵 👍🏽 café"))
    assert [word.text for word in words] == [
        "A", "[rocket]", "by", "[5 CJK/Katakana characters]", "[flag JP]", "[thumbs up sign]", "cafe",
    ]  # fmt: skip
    assert [word.stand_in for word in words] == [False, True, False, True, True, True, False]
    assert (
        "".join(word.text if word.source is None else word.source for word in words)
        == "A🚀by東京タワー🇯🇵👍🏽café"
    )


def test_signs_alone_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "count", lambda: 1)
    assert [word.text for word in typeset.words_of("。。")] == ["[2 signs]"]


def test_svg_keeps_the_original_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "count", lambda: 1)
    text = render_image(scene("A 🚀 over 東京 <b>", 640, 360), "svg").decode()
    assert ">A 🚀 over 東京 &lt;b&gt;<" in text


# --- clips ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "fps"), [(1, 24), (0.5, 30), (2.04, 25), (0.01, 24), (1.3, 10)])
def test_video_has_exactly_the_asked_frames(seconds: float, fps: int) -> None:
    frames = max(1, round(seconds * fps))
    with av.open(io.BytesIO(render_video(scene("A cat", 128, 72), seconds=seconds, fps=fps)), "r") as clip:
        stream = clip.streams.video[0]
        shown = list(clip.decode(stream))
        assert len(shown) == stream.frames == frames
        assert stream.average_rate == fps
        assert stream.duration is not None
        assert stream.time_base is not None
        assert abs(stream.duration * stream.time_base - seconds) <= 1 / fps
        assert [round(frame.time * fps) for frame in shown] == list(range(frames))
        assert not clip.streams.audio


def test_video_plays_in_browsers() -> None:
    data = render_video(scene("A cat", 193, 161), seconds=0.5)
    with av.open(io.BytesIO(data)) as clip:
        context = clip.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.width, context.height) == (192, 160)
        assert "sandbox" in clip.metadata["comment"]
    names = [name for name, _ in _boxes(data)]
    assert names[:2] == ["ftyp", "moov"]
    assert names.index("moov") < names.index("mdat")


def _boxes(data: bytes) -> list[tuple[str, int]]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        found.append((data[at + 4 : at + 8].decode("ascii"), size))
        at += size
    assert at == len(data)
    return found


@pytest.mark.parametrize(("seconds", "fps"), [(0.04, 24), (1.0, 24), (2.5, 30), (12.0, 12)])
def test_audio_is_as_long_as_the_video(seconds: float, fps: int) -> None:
    with av.open(
        io.BytesIO(render_video(scene("A cat", 64, 64), seconds=seconds, fps=fps, audio=True)), "r"
    ) as clip:
        sound, video = clip.streams.audio[0], clip.streams.video[0]
        assert sound.codec_context.name == "aac"
        assert sound.codec_context.sample_rate == 48_000
        assert sound.codec_context.layout.name == "stereo"
        lengths = [float((track.duration or 0) * (track.time_base or 0)) for track in (sound, video)]
        assert abs(lengths[0] - lengths[1]) < 0.05
        heard = np.concatenate([frame.to_ndarray() for frame in clip.decode(sound)], axis=1)
    assert np.abs(heard).max() < 0.6
    if seconds >= 1:
        assert np.abs(heard).max() > 0.05
        assert abs(heard.shape[1] / 48_000 - seconds) < 0.05


def test_video_moves_and_shows_the_colours_of_the_picture() -> None:
    drawn = scene("A cat", 160, 160)
    with av.open(io.BytesIO(render_video(drawn, seconds=2, fps=12)), "r") as clip:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in clip.decode(video=0)]
    still = np.asarray(opened(render_image(drawn, "png")).convert("RGB")).astype(int)
    assert np.abs(frames[0] - still).mean() < 8
    assert np.abs(frames[0] - frames[-1]).mean() > 1


def test_video_differs_by_index() -> None:
    first, second = (render_video(replace(scene("", 64, 64), index=i), seconds=0.2) for i in (0, 1))
    assert first != second


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_any_prompt_can_be_filmed(prompt: str) -> None:
    assert render_video(scene(prompt, 98, 66), seconds=0.1)[4:8] == b"ftyp"


@pytest.mark.parametrize("seconds", [0, -1, 601, float("nan"), float("inf")])
def test_impossible_length_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be above 0"):
        render_video(scene(), seconds=seconds)


@pytest.mark.parametrize("fps", [0, -24, 121])
def test_impossible_frame_rate_is_refused(fps: int) -> None:
    with pytest.raises(ValueError, match="fps must be 1 to 120"):
        render_video(scene(), seconds=1, fps=fps)


# --- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "edge", "size"),
    [
        (None, 1024, (1024, 1024)),
        ("1:1", 1024, (1024, 1024)),
        ("16:9", 1024, (1024, 576)),
        ("9:16", 1024, (576, 1024)),
        ("21:9", 1344, (1344, 576)),
        ("4:3", 1000, (1000, 750)),
        ("2.35:1", 1024, (1024, 436)),
        (" 3 : 2 ", 768, (768, 512)),
        ("1024x768", 1024, (1024, 768)),
        ("2048X1536", 512, (512, 384)),
        ("1280:720", 640, (640, 360)),
        ("1024*1024", 256, (256, 256)),
        ("match_input_image", 512, (512, 512)),
        ("auto", 512, (512, 512)),
        ("", 512, (512, 512)),
        ("0:9", 512, (512, 512)),
        ("16:0", 512, (512, 512)),
        ("-16:9", 512, (512, 512)),
        ("١٦:٩", 512, (512, 512)),
        ("1:100", 1024, (64, 1024)),
        ("1:1", 100_000, (4096, 4096)),
        ("1:1", 1, (64, 64)),
    ],
)
def test_frame_size(ratio: str | None, edge: int, size: tuple[int, int]) -> None:
    assert frame_size(ratio, edge=edge) == size


@pytest.mark.parametrize(
    ("ratio", "resolution", "size"),
    [
        (None, None, (854, 480)),
        ("auto", "whatever", (854, 480)),
        ("16:9", "360p", (640, 360)),
        ("16:9", "480p", (854, 480)),
        ("1:1", "512p", (512, 512)),
        ("16:9", "540p", (960, 540)),
        ("16:9", "720p", (1280, 720)),
        ("9:16", "720P", (720, 1280)),
        ("4:3", "768p", (1024, 768)),
        ("16:9", "1080p", (1920, 1080)),
        ("21:9", "1080p", (2520, 1080)),
        ("16:9", "2k", (2560, 1440)),
        ("16:9", "4K", (2560, 1440)),
        ("9:16", "4k", (1440, 2560)),
        ("1:1", "4k", (1920, 1920)),
        ("1280:720", "480p", (854, 480)),
        ("16:9", "0p", (854, 480)),
    ],
)
def test_video_frame_size(ratio: str | None, resolution: str | None, size: tuple[int, int]) -> None:
    assert video_frame_size(ratio, resolution) == size


@given(
    ratio=st.none() | st.text(max_size=12) | st.from_regex(r"[0-9]{1,6}[:x][0-9]{1,6}", fullmatch=True),
    resolution=st.none() | st.text(max_size=6) | st.from_regex(r"[0-9]{3,4}p", fullmatch=True),
    edge=st.integers(-10, 10_000),
)
def test_every_size_makes_an_even_frame_that_can_be_drawn(
    ratio: str | None, resolution: str | None, edge: int
) -> None:
    for width, height in (frame_size(ratio, edge=edge), video_frame_size(ratio, resolution)):
        assert width % 2 == height % 2 == 0
        Scene("", 0, "", width, height)
