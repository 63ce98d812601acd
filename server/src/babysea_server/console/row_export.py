"""Lists as files: CSV or JSON, sent while they are read, so that they take no memory."""

import csv
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.responses import Response, StreamingResponse

from babysea_server.kit import json

#: Rows of one file at most; whoever needs others narrows the list.
EXPORT_MAX = 10_000
#: Rows that are read at once.
EXPORT_STEP = 1_000
#: A spreadsheet takes what begins with these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = Mapping[str, Any]


async def export(name: str, columns: Sequence[str], pages: AsyncIterator[Sequence[Row]]) -> Response:
    """The rows as a file to be saved.

    Args:
        name: of the file; its ending, `.csv` or `.json`, says what is in it.
        columns: members of each row, in the order of the file.
        pages: rows, some at a time; the first ones are read before the answer begins, so that a fault is told.
    """
    first = await anext(pages, None)
    is_csv = name.endswith(".csv")
    body = (_csv if is_csv else _json)(columns, _all(first or (), pages))
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return StreamingResponse(body, headers=headers, media_type="text/csv" if is_csv else "application/json")


async def _all(first: Sequence[Row], rest: AsyncIterator[Sequence[Row]]) -> AsyncIterator[Sequence[Row]]:
    yield first
    async for rows in rest:
        yield rows


async def _csv(columns: Sequence[str], pages: AsyncIterator[Sequence[Row]]) -> AsyncIterator[bytes]:
    yield _lines([columns])
    async for rows in pages:
        yield _lines([[_cell(row[name]) for name in columns] for row in rows])


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """A value that a spreadsheet shows as it is and does not run."""
    if isinstance(value, dict | list):
        value = json.dumps(value).decode()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


async def _json(columns: Sequence[str], pages: AsyncIterator[Sequence[Row]]) -> AsyncIterator[bytes]:
    before = b"["
    async for rows in pages:
        for row in rows:
            yield before + b"\n" + json.dumps({name: row[name] for name in columns})
            before = b","
    yield b"[]\n" if before == b"[" else b"\n]\n"
