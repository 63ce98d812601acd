"""The picture behind the words: a sky of soft gradients, a low sun, and translucent waves.

All lengths are in units of the frame's shorter edge, so circles stay round and every frame shape shows
the same composition. Painting happens on a small grid that the caller enlarges: the art is soft by
design, and a full-size canvas would cost thirty times as much.
"""

import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from babysea_server.providers.sandbox.palette import Palette, Rgb, palette_of
from babysea_server.providers.sandbox.scene import Scene

Floats = NDArray[np.float32]

_RAMP_STEPS = 1024


class Orb(msgspec.Struct, frozen=True):
    """A disc in the sky: centre as fractions of the frame, radius, drift per second."""

    x: float
    y: float
    radius: float
    opacity: float
    colour: Rgb
    drift_x: float
    drift_y: float

    def centre(self, seconds: float) -> tuple[float, float]:
        """Where it is, as fractions of the frame; it sways and never wanders off."""
        return (
            self.x + self.drift_x * math.sin(0.45 * seconds),
            self.y + self.drift_y * math.sin(0.37 * seconds),
        )


class Wave(msgspec.Struct, frozen=True):
    """One translucent layer of water: the crest is the sum of two sines."""

    level: float
    """Height of the crest's mean, as a fraction of the frame from its top."""
    tilt: float
    amplitude: float
    length: float
    phase: float
    speed: float
    opacity: float
    colour: Rgb

    def crest(self, u: Floats, frame_height: float, seconds: float) -> Floats:
        """The crest's distance from the top over the horizontal positions `u`."""
        turn = u * (2 * math.pi / self.length) + self.phase
        swell = np.sin(turn + self.speed * seconds)
        chop = np.sin(turn * 1.73 - 0.6 * self.speed * seconds + 1.3)
        mean = self.level * frame_height + self.tilt * (u - u[-1] / 2)
        line: Floats = (mean + self.amplitude * (swell + 0.45 * chop)).astype(np.float32)
        return line


class Artwork(msgspec.Struct, frozen=True):
    """Everything that is drawn, in numbers; the raster and the vector painters share it."""

    palette: Palette
    angle: float
    """Direction of the sky's gradient from straight down, in radians."""
    orbs: tuple[Orb, ...]
    """Blurred: opacity falls as exp(-(distance / radius)**2). The last one is the sun's halo."""
    sun: Orb
    """Sharp."""
    waves: tuple[Wave, ...]
    """From far to near; each hides part of those before it."""


def artwork_of(scene: Scene) -> Artwork:
    """The composition of the scene, independent of its size."""
    palette = palette_of(scene)
    draws = iter(scene.draws("artwork", 64, per_index=True))

    def between(low: float, high: float) -> float:
        return low + (high - low) * next(draws)

    angle = between(-0.6, 0.6)
    orbs = tuple(
        Orb(
            x=between(-0.1, 1.1),
            y=between(-0.05, 0.7),
            radius=between(0.22, 0.5),
            opacity=between(0.35, 0.7),
            colour=colour,
            drift_x=between(-0.12, 0.12),
            drift_y=between(-0.08, 0.08),
        )
        for colour in palette.glow
    )
    sun = Orb(
        x=between(0.42, 0.84),
        y=between(0.24, 0.42),
        radius=between(0.065, 0.125),
        opacity=0.92,
        colour=palette.sun,
        drift_x=0.0,
        drift_y=between(0.01, 0.025),
    )
    horizon, tilt = between(0.47, 0.56), between(-0.1, 0.1)
    waves = tuple(
        Wave(
            level=horizon + step * 0.115,
            tilt=tilt * (1 - step / 4) + between(-0.03, 0.03),
            amplitude=between(0.018, 0.032) * (1 + 0.45 * step),
            length=between(0.75, 1.25) * (1 + 0.3 * step),
            phase=between(0, 2 * math.pi),
            speed=between(0.5, 0.9) * (-1 if step % 2 else 1),
            opacity=(0.62, 0.66, 0.72, 0.8)[step],
            colour=colour,
        )
        for step, colour in enumerate(palette.sea)
    )
    halo = msgspec.structs.replace(sun, radius=sun.radius * 2.6, opacity=0.5)
    return Artwork(palette, angle, (*orbs, halo), sun, waves)


class Painter:
    """Paints one artwork on a grid of a fixed size, at any moment.

    Args:
        space: turns an sRGB colour into the channels to paint in. Blending is linear, so any linear map
            of sRGB will do; video is painted as luma and chroma at once.
    """

    def __init__(
        self, artwork: Artwork, width: int, height: int, space: Callable[[Rgb], tuple[float, float, float]]
    ) -> None:
        short = min(width, height)
        self._art = artwork
        self._frame = (width / short, height / short)
        self._u = _centres(width, short)
        self._v = _centres(height, short)[:, None]
        # One grid pixel: the narrowest edge that does not show stairs when enlarged.
        self._edge = 1.6 / short
        self._space = space
        self._ramp = self._sky_ramp()

    def paint(self, seconds: float = 0.0) -> Floats:
        """The picture as channels x height x width in the space's units."""
        canvas = self._sky(seconds)
        for orb in self._art.orbs:
            self._blend(canvas, self._disc(orb, seconds, soft=True), orb.colour)
        sun = self._art.sun
        self._blend(canvas, self._disc(sun, seconds, soft=False), sun.colour)
        for wave in self._art.waves:
            self._wave(canvas, wave, seconds)
        return canvas

    def _sky_ramp(self) -> Floats:
        stops = np.array([self._space(colour) for colour in self._art.palette.sky])
        at = np.linspace(0, len(stops) - 1, _RAMP_STEPS)
        ramp = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
        return np.array(ramp, dtype=np.float32)

    def _sky(self, seconds: float) -> Floats:
        width, height = self._frame
        down, across = math.cos(self._art.angle) / height, math.sin(self._art.angle) / width
        warp = 0.05 * np.sin(self._u * 3.1 + self._art.waves[0].phase + 0.3 * seconds)
        # The stops end a little below the horizon, where the water covers the rest.
        fall = (self._v * down + (self._u - width / 2) * across + warp) / 0.66
        steps = np.clip(fall * (_RAMP_STEPS - 1), 0, _RAMP_STEPS - 1).astype(np.intp)
        sky: Floats = self._ramp.take(steps, axis=1)
        return sky

    def _disc(self, orb: Orb, seconds: float, *, soft: bool) -> Floats:
        x, y = orb.centre(seconds)
        du = self._u - x * self._frame[0]
        dv = self._v - y * self._frame[1]
        if soft:
            # exp(-(a+b)) is the outer product of two short vectors.
            scale = 1 / (orb.radius * orb.radius)
            column = np.exp(-dv * dv * scale) * np.float32(orb.opacity)
            return column * np.exp(-du * du * scale)
        distance = np.sqrt(du * du + dv * dv)
        disc: Floats = np.clip((orb.radius - distance) / self._edge + 0.5, 0, 1)
        return disc * np.float32(orb.opacity)

    def _wave(self, canvas: Floats, wave: Wave, seconds: float) -> None:
        crest = wave.crest(self._u, self._frame[1], seconds)
        rows = self._v[:, 0]
        first = int(np.searchsorted(rows, float(crest.min()) - self._edge))
        depth = self._v[first:] - crest
        water = np.clip(depth / self._edge + 0.5, 0, 1)
        below = canvas[:, first:]
        self._blend(below, water * np.float32(wave.opacity), wave.colour)
        # Light caught by the crest, fading with depth.
        shine = water * np.clip(1 - depth / 0.07, 0, 1)
        shine *= shine * np.float32(0.26)
        self._blend(below, shine, self._art.palette.sun)

    def _blend(self, canvas: Floats, alpha: Floats, colour: Rgb) -> None:
        for plane, value in enumerate(self._space(colour)):
            canvas[plane] += alpha * (np.float32(value) - canvas[plane])


def _centres(pixels: int, unit: int) -> Floats:
    """Where the pixels' middles are, in units of so many pixels."""
    return ((np.arange(pixels) + 0.5) / unit).astype(np.float32)
