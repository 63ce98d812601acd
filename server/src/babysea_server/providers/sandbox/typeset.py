"""Turning any Unicode text into lines that fit a box.

Words are placed one by one, so that each may come from another font, in the visual order of the
line's direction (a word-level form of the Unicode bidirectional algorithm; inside a word the shaping
engine orders the letters).
"""

import unicodedata
from collections.abc import Iterator, Sequence

import msgspec

from babysea_server.providers.sandbox import fonts

#: More than any card holds; what is beyond is cut before it costs anything.
_CHARACTERS_MAX = 1600
_ELLIPSIS = "…"
_OPENS_NO_LINE = frozenset("、。，．！？：；）」』】》〉・ーっッゃゅょャュョ")


class Word(msgspec.Struct, frozen=True):
    """A piece of text that is drawn at once, in one font."""

    text: str
    font: int
    right_to_left: bool | None
    """None for digits and signs, which follow the paragraph."""
    spaced: bool
    """Whether a space stands before it."""
    stand_in: bool = False
    """Whether it describes characters no font could draw."""
    source: str | None = None
    """What it stands for, where that is not `text`."""


class Placed(msgspec.Struct, frozen=True):
    """A word at its horizontal place in a line, in pixels from the line's left end."""

    x: float
    word: Word


class Block(msgspec.Struct, frozen=True):
    """Lines of text at one size."""

    px: int
    lines: tuple[tuple[Placed, ...], ...]
    widths: tuple[float, ...]
    sources: tuple[str, ...]
    """The original text of each line, in reading order, for viewers with fonts of their own."""
    right_to_left: bool
    whole: bool
    """False when an ellipsis stands for the rest."""

    @property
    def leading(self) -> int:
        """Distance between baselines in pixels."""
        return round(self.px * 1.34)

    @property
    def height(self) -> int:
        """Of all lines, in pixels."""
        return self.leading * len(self.lines)

    @property
    def width(self) -> float:
        """Of the longest line, in pixels."""
        return max(self.widths, default=0.0)


def clean(text: str) -> str:
    """One line of composed text without control, format, surrogate, private or unassigned characters."""
    head = text[: 2 * _CHARACTERS_MAX]
    # Line breaks and tabs are controls, and separate words; the other kinds leave no gap.
    kept = (
        character
        if not (category := unicodedata.category(character)).startswith("C")
        else " "
        if category == "Cc"
        else ""
        for character in head
    )
    joined = " ".join(unicodedata.normalize("NFC", "".join(kept)).split())
    if len(joined) <= _CHARACTERS_MAX and len(head) == len(text):
        return joined
    return joined[: _CHARACTERS_MAX - 1].rstrip() + _ELLIPSIS


def direction(text: str) -> bool | None:
    """True for right-to-left, False for left-to-right, by the first strong character; else None."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("R", "AL"):
            return True
        if kind == "L":
            return False
    return None


def words_of(text: str) -> tuple[Word, ...]:
    """The words of cleaned text, each with a font that can draw it."""
    chunks = text.split(" ") if text else []
    order = _font_order(chunks)
    words: list[Word] = []
    for chunk in chunks:
        words.extend(_fonted(chunk, order, spaced=bool(words)))
    if chunks and not words:
        # Marks and punctuation without glyphs say nothing by themselves; an empty card would deny them.
        said = f"[{len(text)} sign{'s' if len(text) > 1 else ''}]"
        return (Word(said, fonts.BUILT_IN, False, spaced=False, stand_in=True, source=text),)
    return tuple(words)


def _font_order(chunks: Sequence[str]) -> Sequence[int]:
    """The fonts to try, first the one that draws most of the words.

    One font is chosen for the whole text where possible: a lone accent must not change one word's look.
    """
    distinct = set(chunks)
    if all(fonts.covers(fonts.BUILT_IN, chunk) for chunk in distinct):
        return (fonts.BUILT_IN,)
    covered = [sum(fonts.covers(number, chunk) for chunk in distinct) for number in range(fonts.count())]
    primary = covered.index(max(covered))
    return (primary, *(number for number in range(fonts.count()) if number != primary))


def _fonted(chunk: str, order: Sequence[int], *, spaced: bool) -> Iterator[Word]:
    """A chunk without spaces in one font if one draws all of it, else split where the fonts change."""
    whole = next((number for number in order if fonts.covers(number, chunk)), None)
    if whole is None and (plain := fonts.spelled_plainly(order[0], chunk)) is not None:
        yield Word(plain, order[0], direction(plain), spaced, source=chunk)
        return
    runs = _runs(chunk, order) if whole is None else iter([(chunk, whole)])
    for run, number in runs:
        if number is None:
            for at, said in enumerate(fonts.in_words(run)):
                yield Word(said, fonts.BUILT_IN, False, spaced, stand_in=True, source="" if at else run)
                spaced = True
            continue
        for piece in _pieces(run):
            yield Word(piece, number, direction(piece), spaced)
            spaced = False


def _pieces(run: str) -> Iterator[str]:
    """Parts between which a line may break: Chinese and Japanese break at every character."""
    start = 0
    for at in range(1, len(run)):
        wide = any(unicodedata.east_asian_width(neighbour) in "WF" for neighbour in run[at - 1 : at + 1])
        attached = run[at] in _OPENS_NO_LINE or unicodedata.category(run[at]).startswith("M")
        if wide and not attached:
            yield run[start:at]
            start = at
    if run:
        yield run[start:]


def _runs(chunk: str, order: Sequence[int]) -> Iterator[tuple[str, int | None]]:
    """The chunk cut where another font, or none, draws the next character."""
    run, font = "", None
    for character in chunk:
        has = next((number for number in order if fonts.draws(number, character)), None)
        if run and has != font:
            yield run, font
            run = ""
        run, font = run + character, has
    if run:
        yield run, font


def fit(
    words: Sequence[Word], *, width: int, height: int, sizes: Sequence[int], lines_max: int = 14
) -> Block:
    """The words at the largest of the sizes (descending, pixels) at which they fit the box.

    At the smallest size the text is cut with an ellipsis; one line is always shown.
    """
    characters = sum(len(word.text) + 1 for word in words)
    for px in sizes[:-1]:
        lines = min(lines_max, height // round(px * 1.34))
        # A glyph is hardly ever narrower than a quarter of the size: no need to measure then.
        if lines < 1 or characters * px * 0.25 > lines * width:
            continue
        block = _set(words, px, width, lines)
        if block.whole:
            return block
    lines = max(1, min(lines_max, height // round(sizes[-1] * 1.34)))
    return _set(words, sizes[-1], width, lines)


def _set(words: Sequence[Word], px: int, width: int, lines_max: int) -> Block:
    rtl = next((word.right_to_left for word in words if word.right_to_left is not None), False)
    space = _space(px)
    lines: list[list[Word]] = []
    line: list[Word] = []
    used = 0.0
    for word in _split_long(words, px, width):
        advance = fonts.advance(word.font, px, word.text)
        gap = space if line and word.spaced else 0.0
        if line and used + gap + advance > width:
            if len(lines) == lines_max - 1:
                lines.append(_ellipsized([*line, word], px, width))
                return _block(px, lines, rtl, whole=False)
            lines.append(line)
            line, used, gap = [], 0.0, 0.0
        line.append(word)
        used += gap + advance
    if line:
        lines.append(line)
    return _block(px, lines, rtl, whole=True)


def _space(px: int) -> float:
    return px * 0.27


def _split_long(words: Sequence[Word], px: int, width: int) -> Iterator[Word]:
    """Words no wider than a line; longer ones are cut between characters, never before a mark."""
    for word in words:
        rest = word
        while len(rest.text) > 1 and fonts.advance(rest.font, px, rest.text) > width:
            cut = _cut(rest, px, width)
            yield msgspec.structs.replace(rest, text=rest.text[:cut])
            source = None if rest.source is None else ""
            rest = msgspec.structs.replace(rest, text=rest.text[cut:], spaced=False, source=source)
        yield rest


def _cut(word: Word, px: int, width: float) -> int:
    """How many leading characters fit the width; at least one, with its marks."""
    low, high = 1, len(word.text) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if fonts.advance(word.font, px, word.text[:middle]) <= width:
            low = middle
        else:
            high = middle - 1
    while low < len(word.text) - 1 and unicodedata.combining(word.text[low]):
        low += 1
    return low


def _ellipsized(line: Sequence[Word], px: int, width: int) -> list[Word]:
    """The line with an ellipsis at its end, shortened as far as that needs."""
    kept = list(line)
    dots = fonts.advance(fonts.BUILT_IN, px, _ELLIPSIS)
    while True:
        last = kept[-1]
        advance = fonts.advance(last.font, px, last.text)
        room = width - dots - (_width(kept, px) - advance)
        if advance <= room:
            break
        # A stump of one or two letters says less than ending at the word before.
        if room >= 2 * px or len(kept) == 1:
            if len(last.text) > 1:
                kept[-1] = msgspec.structs.replace(last, text=last.text[: _cut(last, px, room)])
            break
        kept.pop()
    return [*kept, Word(_ELLIPSIS, fonts.BUILT_IN, None, spaced=False)]


def _width(line: Sequence[Word], px: int) -> float:
    gaps = sum(_space(px) for word in line[1:] if word.spaced)
    return gaps + sum(fonts.advance(word.font, px, word.text) for word in line)


def _block(px: int, lines: Sequence[Sequence[Word]], rtl: bool, *, whole: bool) -> Block:
    placed = tuple(_placed(line, px, rtl) for line in lines)
    widths = tuple(_width(line, px) for line in lines)
    sources = tuple(_source(line) for line in lines)
    return Block(px, placed, widths, sources, rtl, whole)


def _source(line: Sequence[Word]) -> str:
    parts = (
        (" " if word.spaced else "") + (word.text if word.source is None else word.source) for word in line
    )
    return "".join(parts).strip()


def _placed(line: Sequence[Word], px: int, rtl: bool) -> tuple[Placed, ...]:
    """The line's words from left to right as they are read on the page."""
    groups: list[tuple[bool, list[int]]] = []
    for at, word in enumerate(line):
        way = rtl if word.right_to_left is None else word.right_to_left
        if groups and groups[-1][0] == way:
            groups[-1][1].append(at)
        else:
            groups.append((way, [at]))
    order = [at for way, group in groups[:: -1 if rtl else 1] for at in (group[::-1] if way else group)]
    placed: list[Placed] = []
    x = 0.0
    for position, at in enumerate(order):
        if position:
            before = order[position - 1]
            # Neighbours on the page may be far apart in the text, at the seam of two directions.
            x += _space(px) if abs(at - before) > 1 or line[max(at, before)].spaced else 0.0
        placed.append(Placed(x, line[at]))
        x += fonts.advance(line[at].font, px, line[at].text)
    return tuple(placed)
