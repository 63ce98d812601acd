"""Small line plots as SVG, drawn by hand: no library, no script, readable on light and dark."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT, _LEFT, _TOP, _BETWEEN = 640, 130, 60, 28, 34
_COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626")


class Panel(NamedTuple):
    """One plot: lines by name, each of points (x, y). The y axis begins at 0."""

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


def panels_svg(panels: Sequence[Panel]) -> str:
    """Plots one above the other."""
    height = len(panels) * (_HEIGHT + _TOP + _BETWEEN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH + _LEFT + 20} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, number * (_HEIGHT + _TOP + _BETWEEN) + _TOP)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, top: float) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    right = max((x for x, _ in points), default=1.0) or 1.0
    most = max((y for _, y in points), default=1.0) or 1.0
    bottom = top + _HEIGHT
    parts = [
        f'<text x="{_LEFT}" y="{top - 10:g}" font-weight="bold">{escape(panel.title)}</text>',
        f'<path d="M{_LEFT} {top:g}V{bottom:g}H{_LEFT + _WIDTH}" fill="none" stroke="#6b7280"/>',
        f'<text x="{_LEFT - 6}" y="{top + 10:g}" text-anchor="end">{most:,.4g}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom:g}" text-anchor="end">0</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{bottom + 16:g}" text-anchor="end">{right:,.0f}</text>',
    ]
    for place, (name, line) in enumerate(panel.lines.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        path = " ".join(
            f"{_LEFT + x / right * _WIDTH:.1f},{bottom - y / most * _HEIGHT:.1f}" for x, y in line
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(panel.lines) > 1:
            x = _LEFT + _WIDTH - 80 * (len(panel.lines) - place)
            parts.append(f'<text x="{x}" y="{top - 10:g}" fill="{colour}">{escape(name)}</text>')
    return parts
