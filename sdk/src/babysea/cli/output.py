"""Output for people and for programs.

Results go to standard output, everything that is said meanwhile to standard error, so that a pipe gets results only.
Nothing is coloured or drawn where no terminal is.
"""

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]

_ANY_WIDTH = 10_000


class Output:
    """The two streams, and whether programs read the first."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False, markup=False, emoji=False)
        self.err = Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def can_ask(self) -> bool:
        """Whether somebody is there to answer a question."""
        return sys.stdin.isatty() and self.err.is_terminal

    def say(self, sentence: str, *, style: str = "") -> None:
        """Tell people something; programs never see it."""
        self.err.print(Text(cell(sentence), style=style), soft_wrap=not self.err.is_terminal)

    def error(self, sentence: str, hint: str = "") -> None:
        """Tell what went wrong, in one line, and in another what to do."""
        line = Text.assemble(("error:", "bold red"), " ", cell(sentence))
        self.err.print(line, soft_wrap=not self.err.is_terminal)
        if hint:
            self.err.print(Text(cell(hint), style="dim"), soft_wrap=not self.err.is_terminal)

    def line(self, text: str) -> None:
        """One line of result, never wrapped: an id or a path."""
        sys.stdout.write(cell(text) + "\n")
        sys.stdout.flush()

    def document(self, value: Any) -> None:
        """A result for programs."""
        sys.stdout.write(_json(value, indent=2) + "\n")
        sys.stdout.flush()

    def json_line(self, value: Any) -> None:
        """One of several results for programs."""
        sys.stdout.write(_json(value) + "\n")
        sys.stdout.flush()

    def record(self, row: Row) -> None:
        """One thing for people: a line for each of its names."""
        _write_records([row], self._width)

    def gap(self) -> None:
        """An empty line between results."""
        sys.stdout.write("\n")

    @property
    def _width(self) -> int:
        return self.out.width if self.out.is_terminal else _ANY_WIDTH

    def table(self, rows: Sequence[Row], *, none: str) -> None:
        """Several things for people: a table where one fits, else lines that can be searched and copied."""
        if not rows:
            self.say(none)
            return
        if not self.out.is_terminal:
            _write_columns(rows)
            return
        table = Table(*rows[0], box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(cell(value), no_wrap=True) for value in row.values()))
        options = self.out.options.update(width=_ANY_WIDTH)
        if Measurement.get(self.out, options, table).maximum > self.out.width:
            _write_records(rows, self._width)
        else:
            self.out.print(table)


def _json(value: Any, indent: int | None = None) -> str:
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    return json.dumps(value, indent=indent, ensure_ascii=ascii_only, default=str)


def _write_columns(rows: Sequence[Row]) -> None:
    lines = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        text = "  ".join(set_cell_size(value, width) for value, width in zip(line, widths, strict=True))
        sys.stdout.write(text.rstrip() + "\n")


def _write_records(rows: Sequence[Row], width: int) -> None:
    """Lines are broken between words only: what has none, such as an id, stays in one piece for copying."""
    indent = max(len(name) for row in rows for name in row) + 2
    room = max(1, width - indent)
    blocks = []
    for row in rows:
        lines = []
        for name, value in row.items():
            parts = textwrap.wrap(cell(value), room, break_long_words=False, break_on_hyphens=False)
            lines += [
                f"{head.ljust(indent)}{part}\n" for head, part in zip_longest([name], parts, fillvalue="")
            ]
        blocks.append("".join(lines))
    sys.stdout.write("\n".join(blocks))


def cell(value: Any) -> str:
    """A value for people, on one line; control characters of foreign texts never reach the terminal."""
    if isinstance(value, datetime):
        value = value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        value = "yes" if value else "no"
    if isinstance(value, Mapping):
        value = [f"{name} {item}" for name, item in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value)
    text = "" if value is None else " ".join(str(value).split())
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text) or "-"


def short(text: str | None, width: int = 40) -> str:
    """The beginning of a text that may be long."""
    line = cell(text)
    return line if len(line) <= width else line[: width - 3].rstrip() + "..."


def in_credits(amount: float) -> str:
    """An amount of credits, exact to the millionth."""
    number = f"{amount:.6f}".rstrip("0").rstrip(".")
    return f"{number} credit{'' if number == '1' else 's'}"


def seconds(elapsed: float) -> str:
    """A time for people."""
    if elapsed < 60:
        return f"{elapsed:.1f} s"
    minutes, rest = divmod(int(elapsed), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
