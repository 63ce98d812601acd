"""Several records for people: a table where it fits, lines that can be searched elsewhere."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from babysea_server.cli.common import cell, write_records


def print_rows(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Print records with the same members, at least one."""
    console = Console(highlight=False)
    table = Table(*rows[0], title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row.values()))
    if not console.is_terminal:
        _write_columns(rows)
    elif Measurement.get(console, console.options.update(width=10_000), table).maximum > console.width:
        write_records(rows)
    else:
        console.print(table)


def _write_columns(rows: Sequence[dict[str, Any]]) -> None:
    lines = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        text = "  ".join(set_cell_size(value, width) for value, width in zip(line, widths, strict=True))
        sys.stdout.write(text.rstrip() + "\n")
