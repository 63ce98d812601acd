"""Commands that describe the server: settings, the OpenAPI document, the operations."""

import json
from pathlib import Path

import pytest
from openapi_spec_validator import validate
from tests.cli.conftest import Commands

from babysea_server.contract.operations import OPERATIONS
from babysea_server.settings import REGIONS


@pytest.mark.parametrize("region", REGIONS)
def test_the_document_of_a_region_is_valid_and_names_its_server(commands: Commands, region: str) -> None:
    printed = commands("openapi", "--region", region)
    document = printed.json
    validate(document)
    assert document["openapi"] == "3.0.3"
    assert [server["url"] for server in document["servers"]] == [f"http://api.{region}.localhost:8000"]
    assert printed.err == ""
    assert commands("openapi", "--region", region, "--json").out == printed.out


def test_the_document_names_the_configured_domain(commands: Commands) -> None:
    document = commands("openapi", environment={"BABYSEA_DOMAIN": "example.org"}).json
    assert [server["url"] for server in document["servers"]] == ["https://api.us.example.org"]


def test_the_operations_are_45_with_host_method_path_and_scope(commands: Commands) -> None:
    rows = commands("openapi", "--operations", "--json").json
    expected = [
        {"host": f"api.{region}.localhost", "method": operation.method, "path": operation.template,
         "scope": operation.scope}
        for region in REGIONS
        for operation in OPERATIONS
    ]  # fmt: skip
    assert rows == expected
    assert len(rows) == 45
    header, *lines = commands("openapi", "--operations").out.splitlines()
    assert header.split() == ["host", "method", "path", "scope"]
    assert [line.split() for line in lines] == [list(row.values()) for row in expected]


def test_an_unknown_region_is_one_line(commands: Commands) -> None:
    refused = commands("openapi", "--region", "moon")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "error: unknown region 'moon'; regions are us, eu, jp\n"


def test_a_catalog_that_cannot_be_read_is_one_line(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[[[")
    refused = commands("openapi", environment={"BABYSEA_CATALOG_DIR": str(tmp_path)})
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("error: ")
    assert refused.err.count("\n") == 1


def test_settings_are_listed_with_value_variable_and_meaning(commands: Commands, tmp_path: Path) -> None:
    environment = {"BABYSEA_PORT": "8123", "MASTER_KEY": "hunter2" * 8}
    listed = commands("settings", "--data-dir", str(tmp_path), environment=environment)
    assert "port = 8123  (default 8000)\n    BABYSEA_PORT: Port the API listens on" in listed.out
    assert f"data_dir = {tmp_path}  (default .data)\n" in listed.out
    assert "master_key = (set)  (default -)\n    MASTER_KEY: " in listed.out
    assert "regions = us, eu, jp\n" in listed.out
    rows = {row["name"]: row for row in commands("settings", "--json", environment=environment).json}
    assert rows["port"]["value"] == 8123
    assert rows["master_key"]["value"] == "(set)"
    assert "hunter2" not in listed.out + json.dumps(rows)
    assert not (tmp_path / "master.key").exists(), "listing makes nothing"


def test_a_setting_that_does_not_fit_stops_every_command_with_one_line(
    commands: Commands, tmp_path: Path
) -> None:
    file = tmp_path / "babysea.toml"
    file.write_text("prot = 1")
    for arguments in (
        ["settings"],
        ["openapi"],
        ["accounts", "list"],
        ["migrate"],
        ["api"],
        ["worker"],
        ["up"],
    ):
        refused = commands(*arguments, "--config", str(file))
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == f"error: settings file {file}: unknown setting 'prot', did you mean port?\n"


def test_help_names_every_command(commands: Commands) -> None:
    shown = commands("--help").out
    names = (
        "up",
        "api",
        "worker",
        "migrate",
        "settings",
        "openapi",
        "version",
        "accounts",
        "keys",
        "credits",
        "ledger",
    )
    assert [name for name in names if f" {name} " not in shown] == []
