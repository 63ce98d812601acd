"""The table of a batch: rows read, checked, and each given an identity that editing the others does not change."""

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babysea import BabySeaError, Job
from babysea.cli.faults import CommandError
from babysea.cli.fields import spelled, value_of

_ROWS_MAX = 100_000
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_])?")
_SLUG = 40


@dataclass(frozen=True, slots=True)
class Row:
    """One picture or clip to be made; `id` depends on what it is, not on where it stands."""

    id: str
    line: int
    name: str
    model: str
    fields: Mapping[str, Any]

    @property
    def label(self) -> str:
        """How people know it."""
        return f"line {self.line} ({self.name})"

    def file_names(self) -> list[str]:
        """The names of its files, without their endings."""
        count = self.fields.get("generation_output_number")
        if isinstance(count, int) and count > 1:
            return [f"{self.name}-{number + 1}" for number in range(count)]
        return [self.name]


def read_rows(path: Path, default_model: str | None) -> list[Row]:
    """The rows of a CSV file with a header: prompt, and perhaps model, name, and any input of the models.

    Raises:
        CommandError: something is wrong in it; the message tells the line.
        OSError: it cannot be read.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = list(_rows(csv.DictReader(file, strict=True), default_model))
        except (csv.Error, UnicodeDecodeError) as error:
            raise CommandError(f"{path} is not a CSV file in UTF-8: {error}") from None
    if not rows:
        raise CommandError(f"{path} has no rows", "The first line names the columns, such as prompt,name.")
    _check_names(rows)
    return rows


def _rows(table: "csv.DictReader[str]", default_model: str | None) -> Iterable[Row]:
    columns = [(name or "").strip() for name in table.fieldnames or ()]
    names = [name if name in ("model", "name") else spelled(name) for name in columns]
    if "" in columns or len(set(names)) < len(names):
        raise CommandError("a column has no name, or two have the same", "The first line names the columns.")
    seen: Counter[str] = Counter()
    for values in table:
        if None in values or None in values.values():
            raise CommandError(f"line {table.line_num} has not as many values as there are columns")
        texts = dict(zip(names, (text.strip() for text in values.values()), strict=True))
        if not any(texts.values()):
            continue
        if len(seen) >= _ROWS_MAX:
            raise CommandError(f"there are more than {_ROWS_MAX} rows")
        yield _row(texts, table.line_num, default_model, seen)


def _row(texts: dict[str, str], line: int, default_model: str | None, seen: Counter[str]) -> Row:
    model = texts.pop("model", "") or default_model
    name = texts.pop("name", "")
    if not model:
        raise CommandError(f"line {line} has no model", "Add a column model, or --model.")
    if name and not _NAME.fullmatch(name):
        raise CommandError(
            f"line {line}: {name!r} cannot be the name of a file",
            "Use letters, digits, . _ and -; 100 at most.",
        )
    given = {field: value_of(field, text) for field, text in texts.items() if text}
    try:
        job = Job(model, **given)
        job.checked()
    except BabySeaError as error:
        raise CommandError(f"line {line}: {error.message}") from None
    digest = hashlib.sha256(json.dumps([model, name, job.fields], sort_keys=True).encode()).hexdigest()[:16]
    seen[digest] += 1
    id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    return Row(id, line, name or _made_name(job.fields, id), model, job.fields)


def _made_name(fields: Mapping[str, Any], id: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", str(fields.get("generation_prompt", "")).lower()).strip("-")
    return f"{slug[:_SLUG].rstrip('-') or 'file'}-{id[:8]}{id[16:]}"


def _check_names(rows: Iterable[Row]) -> None:
    lines: dict[str, int] = {}
    for row in rows:
        for name in row.file_names():
            # Some file systems know no difference between upper and lower case.
            other = lines.setdefault(name.casefold(), row.line)
            if other != row.line:
                raise CommandError(f"lines {other} and {row.line} would make the same file {name}")
