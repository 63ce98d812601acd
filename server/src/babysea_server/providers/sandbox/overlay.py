"""What is written over the picture: a pill that says SANDBOX, and a card with the prompt and the label."""

from collections.abc import Sequence

import msgspec
from PIL import Image, ImageDraw

from babysea_server.providers.sandbox import fonts, typeset
from babysea_server.providers.sandbox.palette import Palette, Rgb, bytes_of
from babysea_server.providers.sandbox.scene import Scene

PILL_TEXT = "SANDBOX"
EMPTY_PROMPT = "No prompt"
PANEL_OPACITY = 0.68
#: Frames with a shorter edge below this have room for the pill and some of the prompt only.
_SPACIOUS_PX = 160
#: Corners are drawn this much larger and reduced, because Pillow's shapes have hard edges.
_SMOOTHING = 4


class Box(msgspec.Struct, frozen=True):
    """A rectangle in pixels; position and size are even, so that video can halve them for chroma."""

    x: int
    y: int
    width: int
    height: int


class Layout(msgspec.Struct, frozen=True):
    """Where everything stands, in pixels; the raster and the vector painters share it."""

    pill: Box
    pill_px: int
    pill_text_x: int
    """Left edge of the pill's text, from the pill's."""
    dot: int
    """Diameter of the mark in the pill; 0 where there is no room."""
    card: Box
    pad: int
    prompt: typeset.Block
    prompt_is_empty: bool
    label: typeset.Block | None
    """None where the frame is too small to read it."""
    radius: int

    @property
    def label_y(self) -> int:
        """Top of the label from the card's top."""
        return self.card.height - self.pad - (self.label.height if self.label else 0)


class Patch(msgspec.Struct, frozen=True):
    """A translucent picture (RGBA) and where its top left corner goes."""

    x: int
    y: int
    image: Image.Image


def label_of(scene: Scene) -> str:
    """The line under the prompt; "Sandbox" first, so that an ellipsis never takes it away."""
    label = typeset.clean(scene.label)
    return f"Sandbox · {label}" if label else "Sandbox"


def layout_of(scene: Scene) -> Layout:
    """Places the pill and the card for the scene's frame."""
    width, height = scene.width, scene.height
    short = min(width, height)
    margin = _even(max(4, short * 0.045))
    pill_px = _size(max(9, short * 0.0215))
    spacious = short >= _SPACIOUS_PX
    dot = round(pill_px * 0.5) if spacious else 0
    inset = round(pill_px * (0.85 if spacious else 0.4))
    text_x = inset + (round(dot * 1.9) if dot else 0)
    pill = Box(
        margin,
        margin,
        _even(min(width - 2 * margin, text_x + spaced_width(PILL_TEXT, pill_px) + inset)),
        _even(pill_px * (1.95 if spacious else 1.5)),
    )

    pad = round(short * 0.034) if spacious else 4
    # Long lines are hard to read: wide frames keep the card to the left.
    inner_max = min(width - 2 * margin, round(short * 1.3)) - 2 * pad
    label = None
    if spacious:
        px = _size(max(10, short * 0.022))
        line = typeset.words_of(label_of(scene))
        label = typeset.fit(line, width=inner_max, height=px, sizes=(px,), lines_max=1)
    label_space = round(label.height + label.px * 0.55) if label else 0
    below_pill = height - 3 * margin - pill.height - 2 * pad - label_space
    text = typeset.clean(scene.prompt)
    prompt = typeset.fit(
        typeset.words_of(text or EMPTY_PROMPT),
        width=inner_max,
        height=min(below_pill, round(height * 0.36), round(short * 0.6)) if spacious else below_pill,
        sizes=_prompt_sizes(short),
        lines_max=14 if spacious else 3,
    )
    inner = max(prompt.width, label.width if label else 0.0)
    card_width = _even(min(width - 2 * margin, inner + 2 * pad + 1))
    card_height = _even(min(height - 2 * margin, prompt.height + label_space + 2 * pad))
    # A right-to-left prompt is read from the right: so is its card.
    card_x = _even_floor(width - margin - card_width) if prompt.right_to_left else margin
    card = Box(card_x, _even_floor(height - margin - card_height), card_width, card_height)
    return Layout(
        pill=pill,
        pill_px=pill_px,
        pill_text_x=text_x,
        dot=dot,
        card=card,
        pad=pad,
        prompt=prompt,
        prompt_is_empty=not text,
        label=label,
        radius=round(short * 0.022) if spacious else 3,
    )


def patches_of(scene: Scene, palette: Palette) -> tuple[Patch, ...]:
    """The pill and the card, ready to be laid over a picture of the scene's size."""
    layout = layout_of(scene)
    return (_pill(layout, palette), _card(layout, palette))


def spaced_width(text: str, px: int) -> float:
    """Width of text set with the pill's wide letter spacing, in pixels."""
    letters = sum(fonts.advance(fonts.BUILT_IN, px, letter) for letter in text)
    return letters + tracking(px) * (len(text) - 1)


def tracking(px: int) -> float:
    """Extra space between the pill's letters, in pixels."""
    return px * 0.13 if px > 10 else 0.0


def _pill(layout: Layout, palette: Palette) -> Patch:
    box = layout.pill
    image = _panel(box, box.height // 2, palette.ink)
    draw = ImageDraw.Draw(image)
    middle = box.height / 2
    if layout.dot:
        left = layout.pill_text_x - round(layout.dot * 1.9)
        mark = _rounded(layout.dot, layout.dot, layout.dot // 2)
        image.paste((*bytes_of(palette.accent), 255), (left, round(middle - layout.dot / 2)), mark)
    font = fonts.face(fonts.BUILT_IN, layout.pill_px)
    x, baseline = float(layout.pill_text_x), middle + layout.pill_px * 0.36
    # Small letters keep their own hinted distances.
    for part in PILL_TEXT if tracking(layout.pill_px) else (PILL_TEXT,):
        draw.text((x, baseline), part, _fill(palette.text), font, anchor="ls")
        x += fonts.advance(fonts.BUILT_IN, layout.pill_px, part) + tracking(layout.pill_px)
    return Patch(box.x, box.y, image)


def _card(layout: Layout, palette: Palette) -> Patch:
    box = layout.card
    image = _panel(box, layout.radius, palette.ink)
    draw = ImageDraw.Draw(image)
    colour = palette.accent if layout.prompt_is_empty else palette.text
    _write(draw, layout, layout.prompt, layout.pad, colour, palette.accent)
    if layout.label:
        _write(draw, layout, layout.label, layout.label_y, palette.muted, palette.muted)
    return Patch(box.x, box.y, image)


def _write(
    draw: ImageDraw.ImageDraw,
    layout: Layout,
    block: typeset.Block,
    top: int,
    colour: Rgb,
    stand_in: Rgb,
) -> None:
    baseline = top + block.leading / 2 + block.px * 0.36
    for line, width in zip(block.lines, block.widths, strict=True):
        left = layout.card.width - layout.pad - width if layout.prompt.right_to_left else layout.pad
        for placed in line:
            fill = _fill(stand_in if placed.word.stand_in else colour)
            font = fonts.face(placed.word.font, block.px)
            draw.text((left + placed.x, baseline), placed.word.text, fill, font, anchor="ls")
        baseline += block.leading


def _panel(box: Box, radius: int, ink: Rgb) -> Image.Image:
    image = Image.new("RGBA", (box.width, box.height), (*bytes_of(ink), 0))
    mask = _rounded(box.width, box.height, radius)
    image.putalpha(mask.point([round(level * PANEL_OPACITY) for level in range(256)]))
    return image


def _rounded(width: int, height: int, radius: int) -> Image.Image:
    """A filled rectangle with smooth round corners, as an alpha mask."""
    radius = max(0, min(radius, width // 2, height // 2))
    mask = Image.new("L", (width, height), 255)
    if not radius:
        return mask
    across = 2 * radius * _SMOOTHING
    disc = Image.new("L", (across, across), 0)
    ImageDraw.Draw(disc).ellipse((0, 0, across - 1, across - 1), fill=255)
    disc = disc.resize((2 * radius, 2 * radius), Image.Resampling.BOX)
    for right in (False, True):
        for bottom in (False, True):
            x, y = (radius if right else 0), (radius if bottom else 0)
            corner = disc.crop((x, y, x + radius, y + radius))
            mask.paste(corner, (width - radius if right else 0, height - radius if bottom else 0))
    return mask


def _prompt_sizes(short: int) -> Sequence[int]:
    """Text sizes in pixels, largest first."""
    shares = (0.058, 0.05, 0.043, 0.037, 0.032, 0.028, 0.025)
    return sorted({_size(max(9, short * share)) for share in shares}, reverse=True)


def _size(px: float) -> int:
    # A font stays in memory at each size it was used in, so frames of all shapes share few sizes.
    return round(px) if px < 24 else 2 * round(px / 2)


def _even(value: float) -> int:
    return 2 * round(value / 2)


def _even_floor(value: int) -> int:
    return value - value % 2


def _fill(colour: Rgb) -> tuple[int, int, int, int]:
    return (*bytes_of(colour), 255)
