"""A bar chart as an SVG file: small, and readable on a light page and on a dark one."""

from collections.abc import Mapping, Sequence
from html import escape
from statistics import mean, stdev

_WIDTH = 960
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 118, 44
_HEIGHT = 430
_BAR = 22

_STYLE = """
    .page { fill: #f4f8fa; stroke: #cfdde3; }
    .grid { stroke: #cfdde3; stroke-width: 1; }
    .axis, .whisker { stroke: #3c6674; stroke-width: 1.5; }
    .b0 { fill: #9db7c1; } .b1 { fill: #dcb878; } .b2 { fill: #0b7a8f; }
    text { font-family: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: #12313c; }
    .h { font-size: 17px; font-weight: 600; } .t { font-size: 13.5px; } .s { font-size: 13px; fill: #3d5a65; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0c161b; stroke: #24414c; }
      .grid { stroke: #24414c; }
      .axis, .whisker { stroke: #8fbccb; }
      .b0 { fill: #51707d; } .b1 { fill: #a5803f; } .b2 { fill: #1fb0c9; }
      text { fill: #e3f0f4; } .s { fill: #a9c6d1; }
    }
"""


def bars(
    title: str,
    note: str,
    names: Sequence[str],
    groups: Mapping[str, Sequence[Sequence[float]]],
    *,
    top: float,
) -> str:
    """A picture of groups of bars.

    Args:
        names: of the bars in every group, three at most.
        groups: the values behind each bar, by the group's name; a bar is as high as their mean.
        top: value at the upper edge; a bar that is higher is cut there and its value written on it.
    """
    width = (_WIDTH - _LEFT - _RIGHT) / len(groups)
    parts = [*_head(title, note), *_legend(names), *_scale(top)]
    for number, (name, group) in enumerate(groups.items()):
        middle = _LEFT + (number + 0.5) * width
        parts.append(_text(middle, _HEIGHT - _BOTTOM + 22, name, "t", "middle"))
        for at, values in enumerate(group):
            parts += _bar(middle + (at - len(group) / 2) * (_BAR + 3), at, values, top)
    zero = _y(0, top)
    parts.append(f'<path d="M{_LEFT} {zero:.1f}H{_WIDTH - _RIGHT}" class="axis"/>')
    return "\n  ".join(parts) + "\n</svg>\n"


def _head(title: str, note: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(note)} The figures stand in the table of the page.</desc>',
        f"<style>{_STYLE}  </style>",
        f'<rect x="1" y="1" width="{_WIDTH - 2}" height="{_HEIGHT - 2}" rx="14" class="page"/>',
        _text(_LEFT, 36, title, "h"),
        _text(_LEFT, 60, note, "s"),
    ]


def _legend(names: Sequence[str]) -> list[str]:
    parts, x = [], float(_LEFT)
    for at, name in enumerate(names):
        parts.append(f'<rect x="{x:.0f}" y="76" width="14" height="14" rx="3" class="b{at}"/>')
        parts.append(_text(x + 20, 88, name, "t"))
        x += 44 + 7.2 * len(name)
    return parts


def _scale(top: float) -> list[str]:
    parts = []
    for step in range(5):
        value = top * step / 4
        y = _y(value, top)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" class="grid"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{value:g} s", "s", "end"))
    return parts


def _bar(x: float, at: int, values: Sequence[float], top: float) -> list[str]:
    value = mean(values)
    shown = min(max(value, 0.0), top)
    y, zero = _y(shown, top), _y(0, top)
    parts = [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{_BAR}" height="{max(1.0, zero - y):.1f}" class="b{at}"/>'
    ]
    centre = x + _BAR / 2
    if value > top:
        parts.append(_text(centre, y - 5, f"{value:.1f}", "s", "middle"))
    elif len(values) > 1:
        low, high = (_y(min(max(value + sign * stdev(values), 0.0), top), top) for sign in (-1, 1))
        parts.append(f'<path d="M{centre:.1f} {low:.1f}V{high:.1f}" class="whisker"/>')
    return parts


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
