"""Commands on accounts, keys, credits and the ledger, beside a running server and without one."""

import asyncio
import os
import re
from pathlib import Path

import asyncpg
import pytest
from tests.cli.conftest import Commands, Installation

from babysea_server.db.embedded import EmbeddedPostgres
from babysea_server.keys.scopes import PRESETS
from babysea_server.kit.ids import uuid7

UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def test_an_account_with_a_key_and_credits_beside_a_running_server(installation: Installation) -> None:
    account = installation.json(
        "accounts", "create", "--region", "us", "--name", "Ann", "--plan", "unlimited"
    )
    assert re.fullmatch(UUID, account["account_id"])
    assert (account["name"], account["plan"], account["region"], account["credit_balance"]) == (
        "Ann",
        "unlimited",
        "us",
        0,
    )
    assert account in installation.json("accounts", "list", "--region", "us", "--limit", "1000")

    key = installation.json(
        "keys", "create", "--region", "us", "--account", account["account_id"], "--name", "K",
        "--preset", "generate_only", "--expires", "2099-01-31T00:00:00Z",
        "--allow-ip", "10.1.2.3/8", "--allow-ip", "2001:db8::1",
    )  # fmt: skip
    assert re.fullmatch(r"bye_[A-Za-z0-9_-]{40}", key["api_key"])
    assert key["prefix"] == key["api_key"][:9]
    assert key["scopes"] == list(PRESETS["generate_only"])
    assert key["expires_at"] == "2099-01-31T00:00:00.000Z"
    assert key["allowlist"] == ["10.0.0.0/8", "2001:db8::1/128"]

    listed = installation("keys", "list", "--account", account["account_id"], "--json")
    assert [found["apikey_id"] for found in listed.json] == [key["apikey_id"]]
    assert key["api_key"] not in listed.out

    add = ("credits", "add", "--account", account["account_id"], "--amount")
    assert installation.json(*add, "10")["credit_balance"] == 10
    assert installation.json(*add, "0.000001", "--description", "a micro")["credit_balance"] == 10.000001
    assert installation.json("ledger", "verify", "--region", "us") == {"clean": True, "differences": []}


def test_custom_scopes_are_joined_by_commas(installation: Installation) -> None:
    account = installation.account()
    key = installation.json(
        "keys", "create", "--account", account, "--name", "K", "--scopes", "library:read, account:read"
    )
    assert key["scopes"] == ["account:read", "library:read"]


def test_regions_share_nothing(installation: Installation) -> None:
    account = installation.account("only in eu", region="eu")
    assert account in installation("accounts", "list", "--region", "eu").out
    assert account not in installation("accounts", "list", "--region", "us", "--limit", "10000").out
    refused = installation("credits", "add", "--region", "us", "--account", account, "--amount", "1")
    assert (refused.code, refused.err) == (1, f"error: no account {account} in this region\n")


def test_an_external_database_is_used_by_its_url_and_needs_no_data_folder(
    commands: Commands, postgres: EmbeddedPostgres, dsn: str, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL_JP": dsn, "BABYSEA_DATA_DIR": str(tmp_path / "unused")}
    made = commands("accounts", "create", "--region", "jp", "--name", "A", "--json", environment=environment)
    assert made.json["region"] == "jp"
    assert (
        made.json["account_id"] in commands("accounts", "list", "--region", "jp", environment=environment).out
    )
    assert not (tmp_path / "unused").exists()
    empty = {**environment, "DATABASE_URL_JP": postgres.dsn("postgres")}
    refused = commands("accounts", "list", "--region", "jp", environment=empty)
    assert refused.code == 1
    assert re.fullmatch(
        r"error: .* region jp has no schema yet.* run `babysea-server migrate`\n", refused.err
    )


def test_without_a_server_a_command_starts_one_for_itself(commands: Commands, tmp_path: Path) -> None:
    installation = Installation(commands, tmp_path / "fresh")
    made = installation("accounts", "create", "--name", "A", "--json")
    assert made.err == f"note: there is no database in {tmp_path / 'fresh'} yet; making one\n"
    account = made.json["account_id"]
    assert not EmbeddedPostgres(tmp_path / "fresh").is_running(), "the last one out stops it"
    listed = installation("accounts", "list", "--json")
    assert [found["account_id"] for found in listed.json] == [account]
    assert listed.err == ""
    assert not EmbeddedPostgres(tmp_path / "fresh").is_running()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["accounts", "create", "--name", ""], 2, "an account's name has 1 to 100 characters"),
        (["accounts", "create", "--name", "n" * 101], 2, "an account's name has 1 to 100 characters"),
        (["accounts", "create", "--name", "A", "--plan", "[/gold]"], 2, "unknown plan '[/gold]'; plans are free,"),
        (["accounts", "create", "--name", "A", "--email", "a"], 2, "'a' is not an e-mail address"),
        (["accounts", "create", "--name", "A", "--region", "mars"], 2, "unknown region 'mars'; regions are us, eu, jp"),
        (["keys", "create", "--account", "1", "--name", "K", "--preset", "read_only"], 2, "'1' is not an account id"),
        (["keys", "list", "--account", "x"], 2, "'x' is not an account id"),
        (["keys", "create", "--account", str(uuid7()), "--name", "K"], 2, "a key needs at least one scope"),
        (["keys", "create", "--account", str(uuid7()), "--name", "K", "--preset", "all"], 2, "unknown preset 'all'"),
        (["keys", "create", "--account", str(uuid7()), "--name", "K", "--scopes", "all"], 2, "unknown scope all"),
        (["keys", "create", "--account", str(uuid7()), "--name", "K", "--preset", "read_only"], 1, "no account "),
        (
            ["keys", "create", "--account", str(uuid7()), "--name", "", "--preset", "read_only"],
            2, "a key's name has 1 to 100 characters",
        ),
        (
            ["keys", "create", "--account", str(uuid7()), "--name", "K", "--preset", "read_only", "--expires", "soon"],
            2, "Invalid isoformat string: 'soon'",
        ),
        (
            ["keys", "create", "--account", str(uuid7()), "--name", "K", "--preset", "read_only",
             "--expires", "2020-01-01T00:00:00Z"],
            2, "the key would have expired at 2020-01-01T00:00:00.000Z already",
        ),
        (
            ["keys", "create", "--account", str(uuid7()), "--name", "K", "--preset", "read_only",
             "--allow-ip", "here"],
            2, "'here' is not an IP address or network",
        ),
        (["accounts", "create", "--name", "A", "--email", "@" * 321], 2, "is not an e-mail address"),
        (["accounts", "show", "x"], 2, "'x' is not an account id"),
        (["accounts", "show", str(uuid7())], 1, "no account "),
        (["accounts", "set-plan", "x", "pro"], 2, "'x' is not an account id"),
        (["accounts", "set-plan", str(uuid7()), "gold"], 2, "unknown plan 'gold'; plans are free, starter, pro,"),
        (["accounts", "set-plan", str(uuid7()), "pro"], 1, "no account "),
        (["keys", "show", "bye_zzzz"], 2, "name a key by its id or its first 9 characters, not by more or less"),
        (["keys", "show", "first"], 2, "'first' is not the id of a key, nor its first 9 characters"),
        (["keys", "show", "bye_-----"], 1, "no key bye_-----... in this region"),
        *((["keys", command, str(uuid7())], 1, "no key ") for command in ("show", "rotate", "revoke", "delete")),
        (["keys", "rotate", str(uuid7()), "--grace-hours", "2"], 2, "a grace period has 1, 6, 12, 24, 48, 72,"),
        (["credits", "add", "--account", str(uuid7()), "--amount", "ten"], 2, "not an amount: 'ten'"),
        (["credits", "add", "--account", str(uuid7()), "--amount", "0.0000001"], 2, "more than six decimals"),
        (["credits", "add", "--account", str(uuid7()), "--amount", "1e99999"], 2, "out of range"),
        (["credits", "add", "--account", str(uuid7()), "--amount", "-1"], 2, "credits to add must be more than zero"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_an_exit_code(
    installation: Installation, arguments: list[str], code: int, message: str
) -> None:
    refused = installation(*arguments)
    assert refused.code == code
    assert refused.out == ""
    assert refused.err.startswith("error: ")
    assert refused.err.count("\n") == 1
    assert message in refused.err


def test_a_missing_option_is_named(installation: Installation) -> None:
    refused = installation("keys", "create", "--name", "K")
    assert refused.code == 2
    assert "--account" in refused.err


def test_a_data_folder_that_cannot_be_used_is_one_line(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = commands("accounts", "list", "--data-dir", str(tmp_path / "file"))
    assert refused.code == 2
    assert refused.err.startswith(f"error: settings file {tmp_path / 'file'}")
    assert refused.err.count("\n") == 1


def test_differences_are_listed_and_the_exit_code_is_1(commands: Commands, dsn: str) -> None:
    environment = {"DATABASE_URL_US": dsn}
    account = commands("accounts", "create", "--name", "A", "--json", environment=environment).json[
        "account_id"
    ]
    clean = commands("ledger", "verify", environment=environment)
    assert (clean.code, clean.out) == (0, "ledger  clean: every balance and every generation adds up\n")
    plant(dsn)
    found = commands("ledger", "verify", environment=environment)
    assert found.code == 1
    assert f"{account}  -           balance is 5, the ledger says 1000000" in found.out
    listed = commands("ledger", "verify", "--json", environment=environment)
    assert listed.code == 1
    assert '"clean": false' in listed.out


def plant(dsn: str) -> None:
    async def work() -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute("UPDATE accounts SET credit_balance = 5")
        await connection.close()

    asyncio.run(work())


# ------------------------------------------------------------------------------------------ for people

NASTY = "[/red] \x1b[31mé\n名前"


def test_what_is_not_a_terminal_gets_one_line_a_row_and_whole_ids(installation: Installation) -> None:
    account = installation.account(NASTY)
    key = installation.json(
        "keys", "create", "--account", account, "--name", "[/]", "--preset", "full_access"
    )
    listed = installation("keys", "list", "--account", account)
    header, row = listed.out.splitlines()
    assert header.split()[:3] == ["apikey_id", "account_id", "name"]
    assert row.split()[:3] == [key["apikey_id"], account, "[/]"]
    assert ", ".join(key["scopes"]) in row
    (line,) = [
        line
        for line in installation("accounts", "list", "--limit", "10000").out.splitlines()
        if account in line
    ]
    assert r"[/red] \x1b[31mé\n名前" in line
    assert installation.json("accounts", "list", "--limit", "10000")[-1]["name"] == NASTY


def test_columns_are_aligned_by_the_width_of_their_characters(installation: Installation) -> None:
    account = installation.account("x")
    for name in ("名前", "abcd"):
        installation("keys", "create", "--account", account, "--name", name, "--preset", "monitor_only")
    _, wide, narrow = installation("keys", "list", "--account", account).out.splitlines()
    assert wide.index("bye_") == narrow.index("bye_") - 2


def test_one_record_is_a_line_for_each_name(installation: Installation) -> None:
    made = installation("accounts", "create", "--name", "A")
    assert [line.split()[0] for line in made.out.splitlines()] == [
        "account_id", "region", "name", "email", "plan", "credit_balance", "period_starts_at",
        "period_ends_at", "created_at",
    ]  # fmt: skip
    assert "email             -" in made.out


def test_nothing_to_list_is_said(installation: Installation) -> None:
    assert installation("keys", "list", "--account", str(uuid7())).out == "no keys\n"
    assert installation.json("keys", "list", "--account", str(uuid7())) == []


@pytest.mark.parametrize(("columns", "drawn"), [("400", True), ("60", False)])
def test_a_terminal_gets_a_table_where_it_fits_and_records_where_not(
    installation: Installation, columns: str, drawn: bool
) -> None:
    account = installation.account()
    key = installation.json(
        "keys", "create", "--account", account, "--name", "[/red]", "--preset", "full_access"
    )
    master, slave = os.openpty()
    try:
        installation(
            "keys", "list", "--account", account,
            environment={"COLUMNS": columns, "TERM": "xterm"}, stdout=os.ttyname(slave),
        )  # fmt: skip
        shown = os.read(master, 100_000).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert key["apikey_id"] in shown
    assert "[/red]" in shown
    assert ("│" in shown) is drawn
