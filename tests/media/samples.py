"""Real files, made with the real encoders."""

import io
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from PIL import Image

SVG = b"""<?xml version="1.0"?><!-- drawn -->
<svg xmlns="http://www.w3.org/2000/svg" width="40px" height="30"><rect width="9" height="9"/></svg>
"""


def _pixels(width: int, height: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@cache
def picture(format: str, width: int = 64, height: int = 48, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(_pixels(width, height)).save(out, format, **options)
    return out.getvalue()


@cache
def animation(format: str) -> bytes:
    frames = [Image.fromarray(_pixels(64, 48, seed)) for seed in range(3)]
    out = io.BytesIO()
    frames[0].save(out, format, save_all=True, append_images=frames[1:], duration=100)
    return out.getvalue()


@cache
def film(format: str, codec: str, frames: int = 48, options: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A film of 64 x 48 pixels at 24 frames a second."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "film"
        with av.open(str(path), "w", format=format, options=dict(options)) as container:
            stream = container.add_stream(codec, rate=24)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(_pixels(64, 48, index), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path.read_bytes()


class Samples(Mapping[str, bytes]):
    """Files by name, each made when it is first asked for: who only collects the tests makes none."""

    def __init__(self, makers: Mapping[str, Callable[[], bytes]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> bytes:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def films() -> Samples:
    return Samples(
        {
            "mp4": partial(film, "mp4", "libx264"),
            "mp4 with its index first": partial(film, "mp4", "libx264", options=(("movflags", "faststart"),)),
            "mp4 in fragments": partial(
                film, "mp4", "libx264", options=(("movflags", "frag_keyframe+empty_moov"),)
            ),
            "mov": partial(film, "mov", "libx264"),
            "webm": partial(film, "webm", "libvpx-vp9"),
            "webm made live": partial(film, "webm", "libvpx-vp9", options=(("live", "1"),)),
        }
    )


@cache
def sound(format: str, codec: str, layout: str = "mono") -> bytes:
    """A second of noise."""
    out = io.BytesIO()
    with av.open(out, "w", format=format) as container:
        stream = container.add_stream(codec, rate=48_000, layout=layout)
        assert isinstance(stream, AudioStream)
        resampler = av.AudioResampler(
            stream.format, stream.layout, 48_000, frame_size=stream.frame_size or 1024
        )
        noise = np.random.default_rng(0).integers(-9000, 9000, (1, 48_000), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(noise, format="s16", layout="mono")
        frame.sample_rate = 48_000
        for piece in (frame, None):
            for resampled in resampler.resample(piece):
                container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return out.getvalue()
