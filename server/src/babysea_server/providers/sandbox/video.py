"""Short clips: the still picture's scene with the sea moving, as H.264 in MP4.

Frames are made as luma and chroma from the start. The art is painted small and enlarged by the scaler of
FFmpeg, the words are mixed in where they stand; no full-size frame ever passes through RGB.
"""

import math
from collections.abc import Iterator
from io import BytesIO

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from babysea_server.providers.sandbox.artwork import Painter, artwork_of
from babysea_server.providers.sandbox.chord import SAMPLES_PER_SECOND, chord
from babysea_server.providers.sandbox.image import COMMENT
from babysea_server.providers.sandbox.overlay import Patch, patches_of
from babysea_server.providers.sandbox.palette import Palette, Rgb
from babysea_server.providers.sandbox.scene import Scene

SECONDS_MAX = 600.0
FPS_MAX = 120

_GRID_AREA_PX = 30_000
_ENCODER_THREADS = 1
#: The fastest preset keeps soft pictures well; only its missing deblocking would show, so that is put back.
_ENCODER = {"preset": "ultrafast", "crf": "20", "x264-params": "no-deblock=0"}
_AUDIO_FRAME_SAMPLES = 1024

_Bytes = NDArray[np.uint8]
_Floats = NDArray[np.float64]
_Words = NDArray[np.uint16]


def render_video(scene: Scene, *, seconds: float, fps: int = 24, audio: bool = False) -> bytes:
    """An MP4 with exactly round(seconds * fps) frames (at least one), ready to stream: its index is first.

    H.264 with yuv420p, BT.709; odd edges are drawn one pixel smaller, as yuv420p demands. With `audio`, an
    AAC stereo track at 48 kHz of the same length holds a soft chord. The comment tag says "sandbox".

    Raises:
        ValueError: `seconds` is not above 0 and up to 600, or `fps` not 1..120.
    """
    if not 0 < seconds <= SECONDS_MAX:
        raise ValueError(f"seconds must be above 0 and at most {SECONDS_MAX:g}, not {seconds}")
    if not 1 <= fps <= FPS_MAX:
        raise ValueError(f"fps must be 1 to {FPS_MAX}, not {fps}")
    frames = max(1, round(seconds * fps))
    file = BytesIO()
    # The index is written into space kept at the front, which needs no second pass over a real file.
    options = {"moov_size": str(_index_bytes_max(frames, frames / fps if audio else 0.0))}
    with av.open(file, "w", format="mp4", options=options) as container:
        container.metadata["comment"] = COMMENT
        width, height = scene.width - scene.width % 2, scene.height - scene.height % 2
        video = container.add_stream("libx264", rate=fps)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {**_ENCODER, "g": str(2 * fps)}
        video.codec_context.thread_count = _ENCODER_THREADS
        _tag_bt709(video.codec_context)
        track = None
        if audio:
            track = container.add_stream("aac", rate=SAMPLES_PER_SECOND, layout="stereo")
            track.bit_rate = 96_000
        sound = _sound(scene, round(frames * SAMPLES_PER_SECOND / fps)) if track else iter(())
        heard = 0
        for at, frame in enumerate(_frames(scene, width, height, frames, fps)):
            container.mux(video.encode(frame))
            # Sound keeps pace with the picture, so that the muxer never has to hold either back.
            while track and heard * fps <= at * SAMPLES_PER_SECOND and (piece := next(sound, None)):
                heard += piece.samples
                container.mux(track.encode(piece))
        container.mux(video.encode(None))
        if track:
            for piece in sound:
                container.mux(track.encode(piece))
            container.mux(track.encode(None))
    return file.getvalue()


def _index_bytes_max(frames: int, audio_seconds: float) -> int:
    """Upper bound of the MP4 index: fixed boxes, and at most 40 bytes for every packet."""
    packets = frames + math.ceil(audio_seconds * SAMPLES_PER_SECOND / _AUDIO_FRAME_SAMPLES) + 8
    return 4096 + 40 * packets


def _tag_bt709(context: av.VideoCodecContext) -> None:
    # 1 is BT.709 in all three of FFmpeg's enumerations; range 1 is the limited one of television.
    context.color_primaries = context.color_trc = context.colorspace = context.color_range = 1


def _frames(scene: Scene, width: int, height: int, frames: int, fps: int) -> Iterator[av.VideoFrame]:
    artwork = artwork_of(scene)
    scale = min(1.0, math.sqrt(_GRID_AREA_PX / (width * height)))
    grid = (max(16, 2 * round(width * scale / 2)), max(16, 2 * round(height * scale / 2)))
    painter = Painter(artwork, *grid, space=_ycbcr)
    overlays = [_Overlay(patch) for patch in patches_of(scene, artwork.palette)]
    scaler = VideoReformatter()
    progress = _Progress(artwork.palette, width, height)
    for at in range(frames):
        painted = (painter.paint(at / fps) + 0.5).clip(0, 255).astype(np.uint8)
        small = av.VideoFrame.from_ndarray(painted, format="yuv444p")
        frame = scaler.reformat(small, width, height, "yuv420p", interpolation=Interpolation.BICUBIC)
        planes = [_view(plane) for plane in frame.planes]
        for overlay in overlays:
            overlay.mix_into(planes)
        progress.draw(planes, (at + 1) / frames)
        frame.pts = at
        yield frame


def _view(plane: VideoPlane) -> _Bytes:
    """The plane's pixels, to be written in place."""
    rows: _Bytes = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _ycbcr(colour: Rgb) -> tuple[float, float, float]:
    """Limited-range BT.709 in 0..255 of an sRGB colour (ITU-R BT.709-6, items 3.2 to 3.5)."""
    r, g, b = colour
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return 16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748


class _Overlay:
    """A patch in the frame's three planes: its colour times its opacity, and what shows through."""

    def __init__(self, patch: Patch) -> None:
        rgba = np.asarray(patch.image, dtype=np.float64)
        opacity = rgba[..., 3] / 255
        planes = _ycbcr_planes(rgba[..., :3] / 255)
        self._parts: list[tuple[tuple[slice, slice], _Words, _Words]] = []
        for number, plane in enumerate(planes):
            step = 2 if number else 1
            colour, shown = plane * opacity, opacity
            if number:
                colour, shown = _halved(colour), _halved(shown)
            rows = slice(patch.y // step, patch.y // step + shown.shape[0])
            columns = slice(patch.x // step, patch.x // step + shown.shape[1])
            # In 256ths; colour and background together stay below 2**16.
            through = np.rint((1 - shown) * 256).astype(np.uint16)
            self._parts.append(((rows, columns), np.rint(colour * 256).astype(np.uint16), through))

    def mix_into(self, planes: list[_Bytes]) -> None:
        for plane, (area, colour, through) in zip(planes, self._parts, strict=True):
            below = plane[area]
            mixed = np.multiply(below, through, dtype=np.uint16)
            mixed += colour
            mixed >>= 8
            below[:] = mixed


class _Progress:
    """A thin line along the lower edge that reaches the right with the last frame."""

    def __init__(self, palette: Palette, width: int, height: int) -> None:
        self._width = width
        self._thickness = max(2, 2 * round(min(width, height) * 0.006 / 2))
        self._colour = [round(channel) for channel in _ycbcr(palette.accent)]

    def draw(self, planes: list[_Bytes], share: float) -> None:
        reach = 2 * round(self._width * share / 2)
        for number, (plane, value) in enumerate(zip(planes, self._colour, strict=True)):
            step = 2 if number else 1
            plane[-(self._thickness // step) :, : reach // step] = value


def _ycbcr_planes(rgb: _Floats) -> list[_Floats]:
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    return [16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748]


def _halved(plane: _Floats) -> _Floats:
    rows, columns = plane.shape
    halved: _Floats = plane.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    return halved


def _sound(scene: Scene, samples: int) -> Iterator[av.AudioFrame]:
    """The chord in frames of the encoder's size; the last one is shorter."""
    wave = chord(scene, samples)
    for start in range(0, samples, _AUDIO_FRAME_SAMPLES):
        piece = np.ascontiguousarray(wave[:, start : start + _AUDIO_FRAME_SAMPLES])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate = SAMPLES_PER_SECOND
        frame.pts = start
        yield frame
