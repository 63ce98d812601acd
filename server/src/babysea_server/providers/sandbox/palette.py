"""Colours that go together, chosen by a scene.

Hues and lightness are picked in OKLCH (Ottosson, 2020), where equal steps look equal, and reach the
painters as sRGB in 0..1.
"""

import math

import msgspec

from babysea_server.providers.sandbox.scene import Scene

Rgb = tuple[float, float, float]

#: Base hues in degrees. The dark yellow-greens between 60 and 150 look muddy and are left out.
_HUES = (15.0, 38.0, 165.0, 195.0, 220.0, 245.0, 262.0, 285.0, 310.0, 340.0)


class _Mood(msgspec.Struct, frozen=True):
    """Lightness, chroma and hue offset (degrees) from the top of the sky to the horizon, then the sea's."""

    sky: tuple[tuple[float, float, float], ...]
    sea: tuple[tuple[float, float, float], ...]


_MOODS = (
    _Mood(  # dusk
        sky=((0.36, 0.11, 0), (0.52, 0.14, 22), (0.70, 0.14, 55), (0.86, 0.09, 80)),
        sea=((0.62, 0.11, 28), (0.50, 0.12, 12), (0.39, 0.10, 0), (0.28, 0.08, -10)),
    ),
    _Mood(  # day
        sky=((0.68, 0.11, 0), (0.78, 0.09, 12), (0.88, 0.06, 38), (0.95, 0.04, 70)),
        sea=((0.76, 0.10, 8), (0.65, 0.12, 0), (0.53, 0.12, -8), (0.42, 0.10, -14)),
    ),
    _Mood(  # night
        sky=((0.20, 0.06, 0), (0.31, 0.10, 14), (0.46, 0.13, 34), (0.62, 0.12, 60)),
        sea=((0.44, 0.10, 20), (0.35, 0.10, 8), (0.26, 0.08, 0), (0.19, 0.05, -6)),
    ),
    _Mood(  # bloom
        sky=((0.56, 0.15, 0), (0.68, 0.14, 34), (0.80, 0.11, 66), (0.90, 0.07, 92)),
        sea=((0.72, 0.12, 50), (0.61, 0.14, 26), (0.48, 0.14, 6), (0.36, 0.12, -8)),
    ),
)


class Palette(msgspec.Struct, frozen=True):
    """Every colour a painter needs; sky from top to horizon, sea from far to near."""

    sky: tuple[Rgb, ...]
    sea: tuple[Rgb, ...]
    glow: tuple[Rgb, ...]
    sun: Rgb
    ink: Rgb
    """The panels behind text; dark enough for white text at the panels' opacity."""
    accent: Rgb
    """Marks and stand-ins for text on a panel."""
    text: Rgb
    muted: Rgb
    """Text of second rank on a panel."""


def palette_of(scene: Scene) -> Palette:
    """The colours of all outputs of the scene's request."""
    hue, jitter, mood, turn = scene.draws("palette", 4, per_index=False)
    base = _HUES[int(hue * len(_HUES))] + (jitter - 0.5) * 14
    chosen = _MOODS[int(mood * len(_MOODS))]
    # Both ways round the wheel give a harmony; the sign decides between warm and cold horizons.
    sign = 1.0 if turn < 0.5 else -1.0

    def colours(stops: tuple[tuple[float, float, float], ...]) -> tuple[Rgb, ...]:
        return tuple(oklch(lightness, chroma, base + sign * offset) for lightness, chroma, offset in stops)

    horizon = base + sign * chosen.sky[-1][2]
    return Palette(
        sky=colours(chosen.sky),
        sea=colours(chosen.sea),
        glow=(
            oklch(0.82, 0.12, horizon),
            oklch(0.62, 0.17, base - sign * 40),
            oklch(0.76, 0.13, base + sign * 75),
            oklch(0.55, 0.16, base + sign * 10),
        ),
        sun=oklch(0.97, 0.035, horizon),
        ink=oklch(0.17, 0.035, base),
        accent=oklch(0.86, 0.09, horizon),
        text=(1.0, 1.0, 1.0),
        muted=oklch(0.82, 0.012, base),
    )


def oklch(lightness: float, chroma: float, hue_degrees: float) -> Rgb:
    """sRGB in 0..1 of an OKLCH colour; chroma is lowered until the colour exists in sRGB."""
    while True:
        linear = _linear_srgb(lightness, chroma, math.radians(hue_degrees))
        if chroma < 0.002 or all(-0.001 <= channel <= 1.001 for channel in linear):
            r, g, b = (_encoded(min(1.0, max(0.0, channel))) for channel in linear)
            return (r, g, b)
        chroma *= 0.93


def _linear_srgb(lightness: float, chroma: float, hue: float) -> Rgb:
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def _encoded(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def hex_of(colour: Rgb) -> str:
    """`#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*bytes_of(colour))


def bytes_of(colour: Rgb) -> tuple[int, int, int]:
    """The colour in 0..255."""
    r, g, b = (round(channel * 255) for channel in colour)
    return (r, g, b)
