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


#: Bounds beyond any use, so that no sum or moment that follows from a plan leaves its type.
_Credits = Annotated[int, Meta(ge=0, le=1_000_000)]
_Limit = Annotated[int, Meta(ge=1, le=1_000_000_000)]
_Time = Annotated[int, Meta(ge=1, le=100_000)]
_Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,50}$")]


class _PlanRow(msgspec.Struct, forbid_unknown_fields=True):
    monthly_credits: _Credits = 0
    welcome_credits: _Credits = 0
    requests_per_minute: _Limit | None = None
    generations_in_flight: _Limit | None = None
    keep_files_hours: _Time | None = None
    keep_records_days: _Time | None = None


def load_plans(path: Path | None = None) -> Mapping[str, Plan]:
    """Plans by name.

    Raises:
        PlanError: unreadable file, no plan in it, unknown field, value out of range.
    """
    path = path or Path(__file__).with_name("plans.toml")
    try:
        with path.open("rb") as file:
            rows = msgspec.convert(tomllib.load(file), dict[_Name, _PlanRow])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PlanError(f"plans file {path}: {error}") from error
    if not rows:
        raise PlanError(f"plans file {path}: there is no plan in it")
    return {name: Plan(name=name, **msgspec.structs.asdict(row)) for name, row in rows.items()}


def plan_named(plans: Mapping[str, Plan], name: str) -> Plan:
    """One of the plans.

    Raises:
        ValueError: there is none of this name; the message names all.
    """
    if name not in plans:
        raise ValueError(f"unknown plan {name!r}; plans are {', '.join(plans)}")
    return plans[name]
