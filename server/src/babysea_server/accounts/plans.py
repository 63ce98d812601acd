"""Plans, and what is sold for money, read from one data file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from babysea_server.kit.calls import Plan


class PlanError(ValueError):
    """The plans file is not usable; the message names file, plan and field."""


#: Bounds beyond any use, so that no sum or moment that follows from a plan leaves its type.
_Credits = Annotated[int, Meta(ge=0, le=1_000_000)]
_Limit = Annotated[int, Meta(ge=1, le=1_000_000_000)]
_Time = Annotated[int, Meta(ge=1, le=100_000)]
#: A table of this name holds no plan.
_PACKS = "packs"
_Price = Annotated[str, Meta(pattern="^price_[A-Za-z0-9_]{1,200}$")]
_Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,50}$")]


class _PlanRow(msgspec.Struct, forbid_unknown_fields=True):
    monthly_credits: _Credits = 0
    welcome_credits: _Credits = 0
    requests_per_minute: _Limit | None = None
    generations_in_flight: _Limit | None = None
    keep_files_hours: _Time | None = None
    keep_records_days: _Time | None = None
    stripe_price: _Price | None = None


class _PackRow(msgspec.Struct, forbid_unknown_fields=True):
    credits: Annotated[int, Meta(ge=1, le=1_000_000)]
    stripe_price: _Price


class Pack(msgspec.Struct, frozen=True):
    """Credits that are bought once."""

    name: str
    credits: int
    price_id: str
    """At the payment service."""


class Offers(msgspec.Struct, frozen=True):
    """What an account can buy by itself."""

    packs: Mapping[str, Pack] = {}
    """By name, in the file's order."""
    plans: Mapping[str, str] = {}
    """The price at the payment service of each plan that is sold, by the plan's name."""

    def plan_of(self, price_id: str) -> str | None:
        """The plan that has this price."""
        return next((plan for plan, price in self.plans.items() if price == price_id), None)


def load_plans(path: Path | None = None) -> Mapping[str, Plan]:
    """Plans by name.

    Raises:
        PlanError: unreadable file, no plan in it, unknown field, value out of range.
    """
    return {
        name: Plan(
            name,
            **{key: value for key, value in msgspec.structs.asdict(row).items() if key != "stripe_price"},
        )
        for name, row in _read(path)[0].items()
    }


def load_offers(path: Path | None = None) -> Offers:
    """What is sold for money: plans with a price, and packs of credits.

    Raises:
        PlanError: as for `load_plans`; also two things with one price.
    """
    plans, packs = _read(path)
    offers = Offers(
        {name: Pack(name, row.credits, row.stripe_price) for name, row in packs.items()},
        {name: row.stripe_price for name, row in plans.items() if row.stripe_price is not None},
    )
    prices = [*offers.plans.values(), *(pack.price_id for pack in offers.packs.values())]
    if len(set(prices)) < len(prices):
        raise PlanError("plans file: two plans or packs have the same stripe_price")
    return offers


def _read(path: Path | None) -> tuple[dict[str, _PlanRow], dict[str, _PackRow]]:
    path = path or Path(__file__).with_name("plans.toml")
    try:
        with path.open("rb") as file:
            tables: dict[str, Any] = tomllib.load(file)
        packs = msgspec.convert(tables.pop(_PACKS, {}), dict[_Name, _PackRow])
        rows = msgspec.convert(tables, dict[_Name, _PlanRow])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PlanError(f"plans file {path}: {error}") from error
    if not rows:
        raise PlanError(f"plans file {path}: there is no plan in it")
    return rows, packs


def plan_named(plans: Mapping[str, Plan], name: str) -> Plan:
    """One of the plans.

    Raises:
        ValueError: there is none of this name; the message names all.
    """
    if name not in plans:
        raise ValueError(f"unknown plan {name!r}; plans are {', '.join(plans)}")
    return plans[name]
