"""Ratios as sizes in pixels, for providers that want those."""

from math import isfinite, sqrt


def shape(ratio: str) -> tuple[float, float] | None:
    """Width and height of a ratio such as `16:9`; None for words such as `auto`."""
    across, _, down = ratio.partition(":")
    try:
        width, height = float(across), float(down)
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 and isfinite(width + height) else None


def pixels(
    ratio: str, *, area: float, multiple: int = 16, low: int = 64, high: int = 4096
) -> tuple[int, int]:
    """Width and height of about `area` pixels in this ratio.

    Both are multiples of `multiple` within `low` and `high`: an area that does not fit gives way to the ratio, a
    ratio that does not fit is drawn less extreme, and what is no ratio gives a square.
    """
    across, down = shape(ratio) or (1.0, 1.0)
    unit = sqrt(area / across / down)
    unit = min(max(unit, low / min(across, down)), high / max(across, down))

    def edge(length: float) -> int:
        return max(-(-low // multiple), min(high // multiple, round(length / multiple))) * multiple

    return edge(across * unit), edge(down * unit)
