"""The catalog's files as they are written: read, laid over one another, and checked for shape.

A fault never stops the reading: all of them are collected and told together.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import tomli  # as tomllib, and three times as fast: a third of reading the catalog is this

#: The data that comes with the server.
DATA_DIR = Path(__file__).parent / "data"

_PriceSource = Decimal | dict[str, Decimal]
_ConditionSource = dict[str, str | int | bool]
_FIELD_TYPES = Literal[
    "string", "integer", "number", "boolean", "enum", "url", "url-array", "string-array", "object"
]


class ProviderSource(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One table of `providers.toml`."""

    name: str
    description: str
    website: str | None = None
    docs: str | None = None
    optional: bool = False
    note: str | None = None


class FieldSource(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One table of `fields.toml`, with what a model adds to it."""

    type: _FIELD_TYPES
    description: str
    required: bool = False
    default: bool | int | float | str | None = None
    enum: tuple[str | int, ...] | None = None
    min: int | float | None = None
    max: int | float | None = None
    max_length: int | None = None
    max_items: int | None = None


class ModelSource(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One model, without its fields and providers."""

    media: Literal["image", "video"]
    name: str
    description: str
    workflows: tuple[str, ...]
    pricing_unit: Literal["generation", "second"]
    provider_order: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    pricing: _PriceSource | None = None
    pricing_tiers: dict[str, Decimal] = {}
    pricing_covers_all_providers: bool = True
    max_seconds: int | None = None
    excludes: tuple[_ConditionSource, ...] = ()
    ignored: tuple[str, ...] = ()
    unverified: bool = False
    note: str | None = None


class ProviderModelSource(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One provider of a model."""

    model: str
    price_confidence: Literal["official", "tracker", "third_party", "unknown"] = "unknown"
    models_by_workflow: dict[str, str] = {}
    models_by_resolution: dict[str, dict[str, str]] = {}
    route: str | None = None
    params: dict[str, str] = {}
    ratio_map: dict[str, str | dict[str, str]] = {}
    value_map: dict[str, dict[str, str | int | float | bool]] = {}
    formats: dict[str, str] = {}
    fixed_params: dict[str, Any] = {}
    limits: dict[str, bool | int | str | list[str | int]] = {}
    partial: bool = False
    excludes: tuple[_ConditionSource, ...] = ()
    usd: _PriceSource | None = None
    usd_formula: str | None = None
    usd_basis: str | None = None
    usd_derived: bool = False
    deprecated_on: date | None = None
    unverified: bool = False
    params_unverified: bool = False
    note: str | None = None


class Faults(msgspec.Struct):
    """The faults found so far, each a line that names file, model and field."""

    lines: list[str] = []

    def add(self, file: str, place: str, message: str) -> None:
        self.lines.append(f"{file}: {place}: {message}" if place else f"{file}: {message}")


class Entry(msgspec.Struct):
    """One table of a file with the tables laid over it, and which file each part came from last."""

    file: str
    data: Mapping[str, Any]
    overlaid: dict[str, str] = {}

    def lay_over(self, data: Mapping[str, Any], file: str) -> None:
        """Replace key by key; `fields` and `providers` are merged by name, and each of those key by key."""
        for key, value in data.items():
            present = self.data.get(key)
            if key in ("fields", "providers") and isinstance(value, dict) and isinstance(present, dict):
                merged = dict(present)
                for name, part in value.items():
                    both = isinstance(part, dict) and isinstance(present.get(name), dict)
                    merged[name] = present[name] | part if both else part
                    self.overlaid[f"{key}.{name}"] = file
                self.data = {**self.data, key: merged}
            else:
                self.data = {**self.data, key: value}
                self.overlaid[key] = file

    def file_of(self, part: str) -> str:
        """The file that had the last word on a part, e.g. `pricing` or `providers.fal`."""
        head = ".".join(part.split(".")[:2])
        return self.overlaid.get(head) or self.overlaid.get(head.split(".")[0]) or self.file


class Sources(msgspec.Struct):
    """All tables of all files, after laying over."""

    providers: dict[str, Entry] = {}
    fields: dict[str, Entry] = {}
    labs: dict[str, str] = {}
    """Lab name by identifier prefix."""
    models: dict[str, Entry] = {}
    """By identifier."""


def read_sources(overrides: Path | None, faults: Faults, packages: Iterable[Path] = ()) -> Sources:
    """Read the server's own files, then those of provider packages, then the operator's over them."""
    sources = Sources()
    _read_directory(DATA_DIR, sources, faults, "")
    for directory in packages:
        _read_directory(directory, sources, faults, f"{directory}/")
    if overrides is not None:
        if overrides.is_dir():
            _read_directory(overrides, sources, faults, f"{overrides}/")
        else:
            faults.add(str(overrides), "", "is not a directory")
    for identifier, entry in sources.models.items():
        prefix = identifier.partition("/")[0]
        if prefix not in sources.labs:
            faults.add(entry.file, "", f"a file of models starts with `lab`, the name of the lab {prefix!r}")
            sources.labs[prefix] = prefix
    return sources


def _read_directory(directory: Path, sources: Sources, faults: Faults, label: str) -> None:
    for name, tables in (("providers.toml", sources.providers), ("fields.toml", sources.fields)):
        if (directory / name).exists():
            for key, value in _tables(directory / name, label + name, faults):
                _lay(tables, key, value, label + name)
    for path in sorted((directory / "models").glob("*.toml")):
        file = f"{label}models/{path.name}"
        for key, value in _tables(path, file, faults, lab=(sources.labs, path.stem)):
            _lay(sources.models, f"{path.stem}/{key}", value, file)
    known = {"providers.toml", "fields.toml"}
    for path in sorted(directory.glob("*.toml")):
        if path.name not in known:
            faults.add(label + path.name, "", "is not read; models belong in models/<prefix>.toml")


def _lay(tables: dict[str, Entry], key: str, value: dict[str, Any], file: str) -> None:
    if key in tables:
        tables[key].lay_over(value, file)
    else:
        tables[key] = Entry(file, value)


@functools.lru_cache(maxsize=64)
def _document(text: str) -> Mapping[str, Any]:
    """A file's tables, which nobody changes: a process that reads the catalog again need not parse it again."""
    return tomli.loads(text, parse_float=Decimal)


def _tables(
    path: Path, file: str, faults: Faults, lab: tuple[dict[str, str], str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        document = _document(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError) as error:
        faults.add(file, "", f"cannot be read: {error}")
        return
    for key, value in document.items():
        if isinstance(value, dict):
            yield key, value
        elif lab is not None and key == "lab" and isinstance(value, str):
            lab[0][lab[1]] = value
        else:
            faults.add(file, key, "is not a table")


S = TypeVar("S", bound=msgspec.Struct)


def shaped(value: object, shape: type[S], entry: Entry, place: str, part: str, faults: Faults) -> S | None:
    """`value` as `shape`, or None and a fault that names the key at fault."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        key = path.removesuffix("`").lstrip(".")
        unknown = message.partition("unknown field `")[2].removesuffix("`")
        if unknown:
            key, message = f"{key}.{unknown}" if key else unknown, "is not a known key"
        full = ".".join(piece for piece in (part, key) if piece)
        faults.add(entry.file_of(full), f"{place}: {full}" if full else place, message)
        return None
