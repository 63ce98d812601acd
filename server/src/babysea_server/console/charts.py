"""Charts: drawn here as SVG, coloured by the style sheet, with their figures as a table beneath.

A page has thousands of marks and cells, so they are written as text, with `escape` for every word that is not ours.
"""

import math
from collections.abc import Callable, Sequence

import msgspec
from markupsafe import Markup, escape

_WIDTH = 720
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 10, 24
_LABEL_PX = 76
_CHAR_PX = 8.5
"""At the size that figures beside the axis have on a phone."""
_TICKS = 4
#: Classes `series-1` to `series-8` of the style sheet.
COLOURS = 8

Format = Callable[[float], str]


class Series(msgspec.Struct, frozen=True):
    """One line, or one layer of the bars."""

    name: str
    values: Sequence[float]
    """One for each label."""
    colour: int = 0
    """1 to 8, a place in the style sheet; 0: by its own place among the series."""
    tone: str = ""
    """`good`, `bad`, `warn` or `muted` in place of a colour, where the name means one."""

    def css(self, place: int) -> str:
        """The class that colours it."""
        return f"tone-{self.tone}" if self.tone else f"series-{self.colour or place % COLOURS + 1}"


def plain(value: float) -> str:
    """A figure in short: 1,200 is 1.2k."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3g}"


def lines(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    description: str = "",
    height: int = 220,
    format: Format = plain,
    area: bool = False,
) -> Markup:
    """Lines over time.

    Args:
        labels: what the places on the horizontal axis are called, e.g. hours.
        area: fill what is below the first line.
    """
    frame = _Frame(height, len(labels), max((v for s in series for v in s.values), default=0.0), format)
    marks: list[str] = []
    for place, each in enumerate(series):
        points = [(frame.centre(index), frame.y(value)) for index, value in enumerate(each.values)]
        path = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
        css = each.css(place)
        if area and place == 0 and points:
            closed = f"{path} L{points[-1][0]:.1f} {frame.y(0):.1f} L{points[0][0]:.1f} {frame.y(0):.1f} Z"
            marks.append(f'<path class="area {css}" d="{closed}"/>')
        marks.append(f'<path class="line {css}" d="{path}"/>')
        if len(points) == 1:
            x, y = points[0]
            marks.append(f'<circle class="dot {css}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    return _figure(title, description, labels, series, frame, marks, format)


def bars(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    description: str = "",
    height: int = 220,
    format: Format = plain,
) -> Markup:
    """Bars over time, the series stacked from the first at the bottom."""
    totals = [sum(each.values[index] for each in series) for index in range(len(labels))]
    frame = _Frame(height, len(labels), max(totals, default=0.0), format)
    width = max(1.0, min(32.0, frame.step * 0.72))
    marks: list[str] = []
    for index in range(len(labels)):
        below, left = 0.0, frame.centre(index) - width / 2
        for place, each in enumerate(series):
            value = each.values[index]
            if value <= 0:
                continue
            top, bottom = frame.y(below + value), frame.y(below)
            marks.append(
                f'<rect class="bar {each.css(place)}" x="{left:.1f}" y="{top:.1f}"'
                f' width="{width:.1f}" height="{max(bottom - top, 0.5):.1f}"/>'
            )
            below += value
    return _figure(title, description, labels, series, frame, marks, format)


class _Frame:
    """Where values lie in the picture."""

    def __init__(self, height: int, places: int, largest: float, format: Format) -> None:
        self.height = height
        self.places = places
        self.top = _round_up(largest)
        widest = max(len(format(value)) for value in self.ticks())
        self.left = max(_LEFT, round(12 + widest * _CHAR_PX))
        self.step = (_WIDTH - self.left - _RIGHT) / max(1, places)

    def ticks(self) -> Sequence[float]:
        return [self.top * tick / _TICKS for tick in range(_TICKS + 1)]

    def centre(self, index: int) -> float:
        return self.left + (index + 0.5) * self.step

    def y(self, value: float) -> float:
        inner = self.height - _TOP - _BOTTOM
        return _TOP + inner * (1 - min(max(value, 0.0), self.top) / self.top)


def _round_up(largest: float) -> float:
    """The end of an axis: 1, 2, 4 or 5 times a power of ten, at or above the largest value."""
    if largest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next(power * step for step in (1, 2, 4, 5, 10) if power * step >= largest * 0.999999)


def _figure(
    title: str,
    description: str,
    labels: Sequence[str],
    series: Sequence[Series],
    frame: _Frame,
    marks: Sequence[str],
    format: Format,
) -> Markup:
    told = description or f"{', '.join(each.name for each in series)}. The figures are in the table below."
    picture = Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" preserveAspectRatio="xMidYMid meet">'
        "<title>{}</title><desc>{}</desc>{}{}</svg>"
    ).format(_WIDTH, frame.height, title, told, _axes(labels, frame, format), Markup("".join(marks)))
    return Markup('<figure class="figure">{}{}{}</figure>').format(
        _legend(series), picture, _table(title, labels, series, format)
    )


def _axes(labels: Sequence[str], frame: _Frame, format: Format) -> Markup:
    parts = []
    for value in frame.ticks():
        y = frame.y(value)
        parts.append(
            f'<line class="grid" x1="{frame.left}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{frame.left - 8}" y="{y + 3.5:.1f}" text-anchor="end">'
            f"{escape(format(value))}</text>"
        )
    every = max(1, math.ceil(len(labels) / max(1, (_WIDTH - frame.left) // _LABEL_PX)))
    parts += [
        f'<text class="tick" x="{frame.centre(index):.1f}" y="{frame.height - 6}" text-anchor="middle">'
        f"{escape(labels[index])}</text>"
        for index in range(0, len(labels), every)
    ]
    return Markup("".join(parts))


def _legend(series: Sequence[Series]) -> Markup:
    if len(series) < 2:
        return Markup("")
    items = [
        Markup('<li><span class="swatch {}"></span>{}</li>').format(each.css(place), each.name)
        for place, each in enumerate(series)
    ]
    return Markup('<ul class="legend" aria-hidden="true">{}</ul>').format(Markup("").join(items))


def _table(title: str, labels: Sequence[str], series: Sequence[Series], format: Format) -> Markup:
    head = "".join(f'<th scope="col">{escape(each.name)}</th>' for each in series)
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join(f"<td>{escape(format(each.values[index]))}</td>" for each in series)
        + "</tr>"
        for index, label in enumerate(labels)
    )
    return Markup(
        '<details class="figures"><summary>Show as table</summary><div class="scroll"><table class="plain">'
        f'<caption class="hidden">{escape(title)}</caption>'
        f'<thead><tr><th scope="col">Time</th>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div></details>"
    )
