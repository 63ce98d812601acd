"""Plans, read from a data file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from babysea_server.kit.calls import Plan


class PlanError(ValueError):
    """The plans file is not usable; the message names file, plan and field."""


class _PlanRow(msgspec.Struct, forbid_unknown_fields=True):
    monthly_credits: Annotated[int, Meta(ge=0)] = 0
    welcome_credits: Annotated[int, Meta(ge=0)] = 0
    requests_per_minute: Annotated[int, Meta(ge=1)] | None = None
    generations_in_flight: Annotated[int, Meta(ge=1)] | None = None
    keep_files_hours: Annotated[int, Meta(ge=1)] | None = None
    keep_records_days: Annotated[int, Meta(ge=1)] | None = None


def load_plans(path: Path | None = None) -> Mapping[str, Plan]:
    """Plans by name.

    Raises:
        PlanError: unreadable file, unknown or missing field, value out of range.
    """
    path = path or Path(__file__).with_name("plans.toml")
    try:
        with path.open("rb") as file:
            rows = msgspec.convert(tomllib.load(file), dict[str, _PlanRow])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PlanError(f"plans file {path}: {error}") from error
    return {name: Plan(name=name, **msgspec.structs.asdict(row)) for name, row in rows.items()}
