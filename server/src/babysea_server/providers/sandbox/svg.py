"""The scene as a self-contained SVG document: shapes and text, no scripts, links or fonts.

The text is left to the viewer's fonts, so it shows scripts that the raster pictures can only name; the
lines break where they break there.
"""

import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

import numpy as np

from babysea_server.providers.sandbox import typeset
from babysea_server.providers.sandbox.artwork import Artwork, Wave, artwork_of
from babysea_server.providers.sandbox.image import COMMENT
from babysea_server.providers.sandbox.overlay import (
    EMPTY_PROMPT,
    PANEL_OPACITY,
    PILL_TEXT,
    Layout,
    layout_of,
    spaced_width,
    tracking,
)
from babysea_server.providers.sandbox.palette import Palette, Rgb, hex_of
from babysea_server.providers.sandbox.scene import Scene

_CREST_POINTS = 48
_FALL_STOPS = 6
_FONTS = "Aileron, Inter, 'Helvetica Neue', Arial, sans-serif"


def render_svg(scene: Scene) -> bytes:
    """The document in UTF-8; one user unit is one pixel of the scene."""
    width, height = scene.width, scene.height
    artwork, layout = artwork_of(scene), layout_of(scene)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}">',
        f"<title>{escape(typeset.clean(scene.prompt) or EMPTY_PROMPT)}</title>",
        f"<desc>{escape(COMMENT)}</desc>",
        "<defs>",
        *_definitions(artwork, width, height),
        "</defs>",
        '<rect width="100%" height="100%" fill="url(#sky)"/>',
        *(f'<rect width="100%" height="100%" fill="url(#orb{n})"/>' for n in range(len(artwork.orbs))),
        _sun(artwork, width, height),
        *(_wave(number, wave, width, height) for number, wave in enumerate(artwork.waves)),
        f'<g font-family="{_FONTS}">',
        *_pill(layout, artwork.palette),
        *_card(layout, artwork.palette),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts).encode()


def _definitions(artwork: Artwork, width: int, height: int) -> Iterator[str]:
    short = min(width, height)
    sky = artwork.palette.sky
    # The raster's sky ends at two thirds of the frame, along a slanted line.
    slant = math.sin(artwork.angle) / 2 * 0.66
    yield f'<linearGradient id="sky" x1="{0.5 - slant:.3f}" y1="0" x2="{0.5 + slant:.3f}" y2="0.66">'
    for number, colour in enumerate(sky):
        yield f'<stop offset="{number / (len(sky) - 1):.3f}" stop-color="{hex_of(colour)}"/>'
    yield "</linearGradient>"
    for number, orb in enumerate(artwork.orbs):
        # Two radii out, a Gaussian has fallen to two percent.
        yield (
            f'<radialGradient id="orb{number}" gradientUnits="userSpaceOnUse" cx="{orb.x * width:.1f}"'
            f' cy="{orb.y * height:.1f}" r="{2 * orb.radius * short:.1f}">'
        )
        for step in range(_FALL_STOPS + 1):
            share = step / _FALL_STOPS
            opacity = orb.opacity * math.exp(-((2 * share) ** 2)) if share < 1 else 0.0
            yield _stop(share, orb.colour, opacity)
        yield "</radialGradient>"
    for number, wave in enumerate(artwork.waves):
        yield f'<linearGradient id="wave{number}" x1="0" y1="0" x2="0" y2="1">'
        yield _stop(0, artwork.palette.sun, 0.5)
        yield _stop(0.18, wave.colour, wave.opacity)
        yield _stop(1, wave.colour, wave.opacity)
        yield "</linearGradient>"


def _stop(offset: float, colour: Rgb, opacity: float) -> str:
    return f'<stop offset="{offset:.3f}" stop-color="{hex_of(colour)}" stop-opacity="{opacity:.3f}"/>'


def _sun(artwork: Artwork, width: int, height: int) -> str:
    sun = artwork.sun
    return (
        f'<circle cx="{sun.x * width:.1f}" cy="{sun.y * height:.1f}"'
        f' r="{sun.radius * min(width, height):.1f}" fill="{hex_of(sun.colour)}" opacity="{sun.opacity}"/>'
    )


def _wave(number: int, wave: Wave, width: int, height: int) -> str:
    short = min(width, height)
    across = np.linspace(0, width / short, _CREST_POINTS, dtype=np.float32)
    crest = wave.crest(across, height / short, 0.0)
    line = " ".join(f"{x * short:.1f},{y * short:.1f}" for x, y in zip(across, crest, strict=True))
    return f'<path d="M0,{height} L{line} L{width},{height} Z" fill="url(#wave{number})"/>'


def _pill(layout: Layout, palette: Palette) -> Iterator[str]:
    box = layout.pill
    middle = box.y + box.height / 2
    yield _panel(box.x, box.y, box.width, box.height, box.height / 2, palette)
    if layout.dot:
        x = box.x + layout.pill_text_x - 1.4 * layout.dot
        yield f'<circle cx="{x:.1f}" cy="{middle}" r="{layout.dot / 2}" fill="{hex_of(palette.accent)}"/>'
    length = spaced_width(PILL_TEXT, layout.pill_px)
    yield (
        f'<text x="{box.x + layout.pill_text_x}" y="{middle + 0.36 * layout.pill_px:.1f}"'
        f' font-size="{layout.pill_px}" letter-spacing="{tracking(layout.pill_px):.2f}"'
        f' textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"'
        f' fill="{hex_of(palette.text)}">{PILL_TEXT}</text>'
    )


def _card(layout: Layout, palette: Palette) -> Iterator[str]:
    box = layout.card
    yield _panel(box.x, box.y, box.width, box.height, layout.radius, palette)
    colour = palette.accent if layout.prompt_is_empty else palette.text
    yield from _lines(layout, layout.prompt, layout.pad, colour)
    if layout.label:
        yield from _lines(layout, layout.label, layout.label_y, palette.muted)


def _lines(layout: Layout, block: typeset.Block, top: int, colour: Rgb) -> Iterator[str]:
    box = layout.card
    baseline = box.y + top + block.leading / 2 + block.px * 0.36
    at_right = layout.prompt.right_to_left
    x = box.x + (box.width - layout.pad if at_right else layout.pad)
    # "start" is the right end of right-to-left text.
    anchor = "start" if at_right == block.right_to_left else "end"
    way = "rtl" if block.right_to_left else "ltr"
    for line, width, source in zip(block.lines, block.widths, block.sources, strict=True):
        # The viewer's font may be wider than ours; where the words are the same, so is their length.
        fixed = all(placed.word.source is None for placed in line)
        length = f' textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs"' if fixed else ""
        yield (
            f'<text x="{x}" y="{baseline:.1f}" font-size="{block.px}" direction="{way}"'
            f' text-anchor="{anchor}"{length} fill="{hex_of(colour)}">{escape(source)}</text>'
        )
        baseline += block.leading


def _panel(x: int, y: int, width: int, height: int, radius: float, palette: Palette) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"'
        f' fill="{hex_of(palette.ink)}" fill-opacity="{PANEL_OPACITY}"/>'
    )
