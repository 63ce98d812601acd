"""Which font can draw which text.

Pillow's built-in face covers little beyond English, so well-known fonts of the machine, when it has any,
stand behind it. Nothing depends on them: what no font can draw is said in words instead (`[rocket]`,
`[6 CJK characters]`), never shown as empty boxes.
"""

import functools
import os
import sys
import unicodedata
from pathlib import Path

from PIL import ImageFont

#: The built-in face; the other numbers index `_installed()` from 1.
BUILT_IN = 0

#: File names in order of preference: broad faces first, then one script each.
_PREFERRED = (
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "SourceHanSans-Regular.ttc",
    "wqy-zenhei.ttc",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "NotoSansArabic-Regular.ttf",
    "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf",
    "NotoSansBengali-Regular.ttf",
    "NotoSansTamil-Regular.ttf",
    "NotoSansSymbols2-Regular.ttf",
    "NotoEmoji-Regular.ttf",
    "Symbola.ttf",
)

#: A noncharacter: whatever a face draws for it is the face's sign for "missing".
_MISSING = "\U0010ffff"
_PROBE_PX = 20


def _directories() -> tuple[Path, ...]:
    if sys.platform == "darwin":
        return (Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library/Fonts")
    if sys.platform == "win32":
        return (Path(os.environ.get("WINDIR", "C:\\Windows")) / "Fonts",)
    return (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts")


@functools.cache
def _installed() -> tuple[str, ...]:
    """Paths of the preferred fonts this machine has; the file system is read once per process."""
    found: dict[str, str] = {}
    for directory in _directories():
        for parent, _, names in os.walk(directory):
            for name in names:
                if name in _PREFERRED:
                    found.setdefault(name, str(Path(parent) / name))
    return tuple(found[name] for name in _PREFERRED if name in found and _opens(found[name]))


def _opens(path: str) -> bool:
    try:
        ImageFont.truetype(path, _PROBE_PX)
    except OSError:
        return False
    return True


def count() -> int:
    """How many faces there are, the built-in one included."""
    return 1 + len(_installed())


@functools.cache
def face(number: int, px: int) -> ImageFont.FreeTypeFont:
    """A face at a size in pixels. Callers keep to few sizes: each stays in memory."""
    if number != BUILT_IN:
        return ImageFont.truetype(_installed()[number - 1], px)
    font = ImageFont.load_default(px)
    assert isinstance(font, ImageFont.FreeTypeFont), "a size needs FreeType, which Pillow's wheels carry"
    return font


@functools.lru_cache(maxsize=32_768)
def draws(number: int, character: str) -> bool:
    """Whether the face has a glyph for the character."""
    probe = face(number, _PROBE_PX)
    drawn, missing = probe.getmask(character), probe.getmask(_MISSING)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def covers(number: int, text: str) -> bool:
    """Whether the face has a glyph for every character."""
    return all(draws(number, character) for character in text)


@functools.lru_cache(maxsize=16_384)
def advance(number: int, px: int, text: str) -> float:
    """Width of the text in pixels."""
    return float(face(number, px).getlength(text))


#: Signs the built-in face lacks and plain ones that mean the same.
_PLAIN = str.maketrans(
    {"–": "-", "—": "-", "−": "-", "‐": "-", "‑": "-", "×": "x", "→": ">", "←": "<", "•": "·", "€": "EUR"}
    | dict.fromkeys("ßẞ", "ss")
    | {"æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D"}
)


@functools.lru_cache(maxsize=8192)
def spelled_plainly(number: int, word: str) -> str | None:
    """The word without accents and with plain signs, if the face can draw that; else None."""
    decomposed = unicodedata.normalize("NFKD", word.translate(_PLAIN))
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    return plain if plain and covers(number, plain) else None


def in_words(run: str) -> list[str]:
    """What a run of characters without glyphs is called: emoji by name, letters by script and number."""
    said: list[str] = []
    scripts: dict[str, int] = {}
    flag = ""
    for character in run:
        category, name = unicodedata.category(character), unicodedata.name(character, "")
        if category.startswith("M") or "EMOJI MODIFIER" in name:
            continue  # marks and skin tones only change the character before them
        if name.startswith("REGIONAL INDICATOR"):
            flag += name[-1]
            if len(flag) == 2:
                said.append(f"[flag {flag}]")
                flag = ""
        elif category.startswith("S") and name:
            said.append(f"[{name.lower()}]")
        elif category[0] in "LN":
            first = name.split(" ")[0].split("-")[0]
            script = first if first == "CJK" else first.capitalize() or "unnamed"
            scripts[script] = scripts.get(script, 0) + 1
    if scripts:
        total = sum(scripts.values())
        said.append(f"[{total} {'/'.join(scripts)} character{'s' if total > 1 else ''}]")
    return said
