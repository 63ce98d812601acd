"""How many pixels a requested ratio and resolution mean. Wrong wishes are never an error here: the
model's schema has already accepted them, and a sandbox picture has to have some size."""

import re

from babysea_server.providers.sandbox.scene import EDGE_MAX_PX, EDGE_MIN_PX

_PAIR = re.compile(r"\s*(\d{1,6}(?:\.\d{1,4})?)\s*[:xX×*/]\s*(\d{1,6}(?:\.\d{1,4})?)\s*", re.ASCII)
_P_NUMBER = re.compile(r"\s*(\d{3,4})\s*[pP]?\s*", re.ASCII)

_SHORT_EDGE_PX = {"2k": 1440, "4k": 2160}
_SHORT_EDGE_DEFAULT_PX = 480
#: Frames of more pixels than 2560x1440 are drawn with that many: a longer wait would show nothing new.
VIDEO_AREA_MAX_PX = 2560 * 1440


def frame_size(ratio: str | None, *, edge: int) -> tuple[int, int]:
    """Even width and height in pixels of a picture whose longer edge is about `edge`.

    `ratio` is `16:9` or a size in pixels such as `1024x768`, of which only the shape counts. None and
    whatever is no ratio (`auto`, `match_input_image`) give a square. Edges stay within 64..4096, so that
    ratios beyond what fits are drawn less extreme.
    """
    across, down = _shape(ratio) or (1.0, 1.0)
    longer = max(across, down)
    return _edge(across / longer * edge), _edge(down / longer * edge)


def video_frame_size(ratio: str | None, resolution: str | None) -> tuple[int, int]:
    """Even width and height in pixels of a clip whose shorter edge is the resolution's number.

    `resolution` is `480p`, `1080p`, any other `<number>p`, `2k` (1440) or `4k` (2160); None and anything
    else give 480. `ratio` is read as in `frame_size`, but None and no ratio give 16:9. Frames of more
    than `VIDEO_AREA_MAX_PX` keep their shape and become smaller.
    """
    across, down = _shape(ratio) or (16.0, 9.0)
    short = _short_edge(resolution)
    unit = short / min(across, down)
    width, height = across * unit, down * unit
    shrink = min(1.0, (VIDEO_AREA_MAX_PX / (width * height)) ** 0.5, EDGE_MAX_PX / max(width, height))
    return _edge(width * shrink), _edge(height * shrink)


def _short_edge(resolution: str | None) -> int:
    name = (resolution or "").strip().lower()
    if name in _SHORT_EDGE_PX:
        return _SHORT_EDGE_PX[name]
    number = _P_NUMBER.fullmatch(name)
    return int(number[1]) if number and int(number[1]) >= EDGE_MIN_PX else _SHORT_EDGE_DEFAULT_PX


def _shape(ratio: str | None) -> tuple[float, float] | None:
    pair = _PAIR.fullmatch(ratio or "")
    if pair is None:
        return None
    across, down = float(pair[1]), float(pair[2])
    return (across, down) if across > 0 and down > 0 else None


def _edge(pixels: float) -> int:
    return max(EDGE_MIN_PX, min(EDGE_MAX_PX, 2 * round(pixels / 2)))
