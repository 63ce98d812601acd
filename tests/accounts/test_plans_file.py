"""Plans as they are read from their file."""

from pathlib import Path

import pytest

from babysea_server.accounts.plans import PlanError, load_plans, plan_named
from babysea_server.kit.calls import Plan


def test_the_plans_are_those_of_the_contract() -> None:
    day = 24
    assert list(load_plans().values()) == [
        Plan("free", 60, 2, welcome_credits=1, keep_files_hours=1, keep_records_days=1),
        Plan("starter", 120, 5, monthly_credits=9, keep_files_hours=12, keep_records_days=7),
        Plan("pro", 300, 20, monthly_credits=29, keep_files_hours=day, keep_records_days=30),
        Plan("scale", 1000, 100, monthly_credits=99, keep_files_hours=5 * day, keep_records_days=180),
        Plan("enterprise", 3000, 500, monthly_credits=199, keep_files_hours=7 * day, keep_records_days=365),
        Plan("unlimited", None, None),
    ]


def test_a_plan_without_any_field_has_no_limits_and_gives_nothing(tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    file.write_text("[Own_plan-2]")
    assert load_plans(file) == {"Own_plan-2": Plan("Own_plan-2", None, None)}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[free]\nrequests_per_hour = 60", "requests_per_hour"),
        (b"[free]\ngenerations_in_flight = 0", "generations_in_flight"),
        (b"[free]\nmonthly_credits = 'one'", "monthly_credits"),
        (b"[free]\nmonthly_credits = -1", "monthly_credits"),
        (b"[free]\nwelcome_credits = 1000001", "welcome_credits"),
        (b"[free]\nkeep_records_days = 100001", "keep_records_days"),
        (b"[free]\nkeep_files_hours = 0", "keep_files_hours"),
        (b"['a:b']\nmonthly_credits = 1", "A-Za-z0-9_-"),
        (b"free = 1", "Expected `object`"),
        (b"# none", "there is no plan in it"),
        (b"[free", "end of document"),
        (b"[free]\nname = '\xff'", "utf-8"),
    ],
)
def test_a_plans_file_that_cannot_be_used_is_named_with_the_fault(
    tmp_path: Path, content: bytes, fault: str
) -> None:
    file = tmp_path / "plans.toml"
    file.write_bytes(content)
    with pytest.raises(PlanError, match=f"plans file {file}.*{fault}"):
        load_plans(file)


def test_a_missing_plans_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"plans file .*absent\.toml"):
        load_plans(tmp_path / "absent.toml")


def test_a_plan_that_there_is_not_is_refused_with_the_names_there_are() -> None:
    plans = load_plans()
    assert plan_named(plans, "pro") is plans["pro"]
    with pytest.raises(ValueError, match="unknown plan 'gold'; plans are free, starter, pro"):
        plan_named(plans, "gold")
