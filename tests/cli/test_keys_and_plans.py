"""Commands on the life of a key, and on the plan of an account."""

from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Commands, Installation

from babysea_server.kit.clock import parse_rfc3339


@pytest.fixture
def account(installation: Installation) -> str:
    return installation.account()


def issue(installation: Installation, account: str, *options: str) -> dict[str, Any]:
    made: dict[str, Any] = installation.json("keys", "create", "--account", account, "--name", "K", *options)
    return made


def test_a_key_is_rotated_revoked_and_deleted(installation: Installation, account: str) -> None:
    old = issue(
        installation, account, "--scopes", "health:read", "--allow-ip", "10.0.0.0/8",
        "--expires", "2099-01-31T00:00:00Z",
    )  # fmt: skip
    assert (old["state"], old["grace_until"], old["replaced_by"]) == ("active", None, None)

    new = installation.json("keys", "rotate", old["apikey_id"], "--grace-hours", "6")
    assert new["api_key"].startswith("bye_")
    assert new["api_key"] != old["api_key"]
    inherited = ("account_id", "name", "scopes", "allowlist", "expires_at")
    assert [new[name] for name in inherited] == [old[name] for name in inherited]
    assert new["replaces"] == old["apikey_id"]
    shown = installation.json("keys", "show", old["apikey_id"])
    assert (shown["state"], shown["replaced_by"]) == ("rotated", new["apikey_id"])
    assert shown["grace_until"] == new["replaced_works_until"]
    grace = parse_rfc3339(shown["grace_until"]) - parse_rfc3339(new["created_at"])
    assert grace.total_seconds() == 6 * 3600

    refused = installation("keys", "rotate", old["apikey_id"])
    assert (refused.code, refused.out) == (1, "")
    assert refused.err == f"error: only an active key can be rotated, and key {old['apikey_id']} is rotated\n"

    for _again in range(2):
        assert installation.json("keys", "revoke", old["apikey_id"])["state"] == "revoked"
    assert installation.json("keys", "show", new["apikey_id"])["state"] == "active"

    deleted = installation.json("keys", "delete", new["apikey_id"])
    assert (deleted["deleted"], deleted["apikey_id"]) == (True, new["apikey_id"])
    gone = installation("keys", "show", new["apikey_id"])
    assert (gone.code, gone.err) == (1, f"error: no key {new['apikey_id']} in this region\n")
    assert [key["apikey_id"] for key in installation.json("keys", "list", "--account", account)] == [
        old["apikey_id"]
    ]


def test_without_a_length_the_grace_is_a_day(installation: Installation, account: str) -> None:
    new = installation.json(
        "keys", "rotate", issue(installation, account, "--preset", "read_only")["apikey_id"]
    )
    grace = parse_rfc3339(new["replaced_works_until"]) - parse_rfc3339(new["created_at"])
    assert grace.total_seconds() == 24 * 3600


def test_a_key_is_named_by_its_prefix_too(installation: Installation, account: str) -> None:
    key = issue(installation, account, "--preset", "read_only")
    shown = installation("keys", "show", key["prefix"])
    assert key["apikey_id"] in shown.out
    assert key["api_key"] not in shown.out
    assert installation.json("keys", "revoke", key["prefix"])["apikey_id"] == key["apikey_id"]


def test_a_whole_key_is_refused_and_not_repeated(installation: Installation, account: str) -> None:
    key = issue(installation, account, "--preset", "read_only")
    refused = installation("keys", "revoke", key["api_key"])
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "error: name a key by its id or its first 9 characters, not by more or less\n"
    assert installation.json("keys", "show", key["apikey_id"])["state"] == "active"


def test_a_new_account_gets_what_its_plan_gives_at_once(installation: Installation) -> None:
    made = installation.json("accounts", "create", "--name", "A", "--plan", "pro")
    assert made["credit_balance"] == 29
    assert made["period_starts_at"][:16] == made["created_at"][:16]
    free = installation.json("accounts", "create", "--name", "A")
    assert (free["plan"], free["credit_balance"], free["period_ends_at"]) == ("free", 1, None)


def test_a_plan_is_set_and_shown(installation: Installation, account: str) -> None:
    changed = installation.json("accounts", "set-plan", account, "starter")
    assert (changed["plan"], changed["credit_balance"]) == ("starter", 10)
    assert changed["period_ends_at"] is not None
    assert installation.json("accounts", "show", account) == changed
    again = installation.json("accounts", "set-plan", account, "starter")
    assert again == changed
    assert "starter" in installation("accounts", "show", account).out


def test_the_plans_are_those_of_the_operators_file(
    commands: Commands, installation: Installation, account: str, tmp_path: Path
) -> None:
    file = tmp_path / "plans.toml"
    file.write_text("[gold]\nwelcome_credits = 7\n")
    environment = {"BABYSEA_PLANS_FILE": str(file)}
    changed = installation("accounts", "set-plan", account, "gold", "--json", environment=environment)
    # The welcome of `free` was this account's.
    assert (changed.json["plan"], changed.json["credit_balance"]) == ("gold", 1)
    refused = installation("accounts", "set-plan", account, "pro", environment=environment)
    assert (refused.code, refused.err) == (2, "error: unknown plan 'pro'; plans are gold\n")
    file.write_text("[gold")
    refused = installation("accounts", "set-plan", account, "gold", environment=environment)
    assert refused.code == 2
    assert refused.err.startswith(f"error: plans file {file}: ")
    assert refused.err.count("\n") == 1
