"""What the files of deploy/ name exists: settings, commands, ports, paths; and the images of others are pinned."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.deploy.files import (
    CHART,
    COMPOSE,
    DEPLOY,
    DOCKERFILE,
    ROOT,
    UNITS,
    compose,
    image_environment,
    instructions,
    interpolated,
    unit,
    unit_environment,
)
from typer.testing import CliRunner

from babysea_server.cli.main import app
from babysea_server.console.navigation import ROOT as CONSOLE
from babysea_server.settings import PROVIDER_VARIABLES, SettingsError, describe, load_settings
from babysea_server.telemetry.health import READY

_OURS = re.compile(
    r"\b(?:BABYSEA_[A-Z][A-Z_]*|DATABASE_URL_[A-Z]+(?:_FILE)?|(?:STORAGE_URL|MASTER_KEY|REDIS_URL)(?:_FILE)?)\b"
)
_PROCESS_UNITS = ("babysea-api@.service", "babysea-worker@.service", "babysea-console.service")
_UNITS = (*_PROCESS_UNITS, "babysea-migrate.service")
_SERVER = [name for name, service in compose()["services"].items() if service["image"].startswith("${IMAGE")]


def _texts() -> Iterator[tuple[str, str]]:
    for path in sorted(path for path in DEPLOY.rglob("*") if path.is_file()):
        if path.suffix != ".json" or path.is_relative_to(CHART):
            yield str(path.relative_to(DEPLOY)), path.read_text(encoding="utf-8")


def test_every_variable_that_is_named_is_one_of_a_setting() -> None:
    known = {row["environment"] for row in describe(load_settings({}))} | set(PROVIDER_VARIABLES)
    named = {name for _, text in _texts() for name in _OURS.findall(text)}
    # The template puts the region's name behind it.
    named -= {"DATABASE_URL_"}
    wrong = {name for name in named - known if not name.endswith("_FILE")}
    assert {"BABYSEA_DOMAIN", "MASTER_KEY_FILE", "DATABASE_URL_US_FILE"} <= named
    assert wrong == set()
    for name in named - known:
        with pytest.raises(SettingsError, match=name):
            load_settings({name: "/nowhere"})


@pytest.mark.parametrize("service", _SERVER)
def test_the_environment_of_a_service_is_understood(service: str, tmp_path: Path) -> None:
    described = compose()["services"][service]
    environment = {
        name: interpolated(value, {"BABYSEA_DOMAIN": "media.example.com"})
        for name, value in described["environment"].items()
    }
    for secret in described["secrets"]:
        (tmp_path / secret).write_text(f"the text of {secret} is long enough")
    environment = {name: value.replace("/run/secrets", str(tmp_path)) for name, value in environment.items()}
    settings = load_settings({**image_environment(), **environment})
    assert settings.domain == "media.example.com"
    assert settings.console_url == "https://api.us.media.example.com"
    assert settings.regions == ("us",)
    assert settings.database_url_us is not None
    assert settings.master_key == "the text of master_key is long enough"
    assert settings.redis_url is not None
    assert settings.console_enabled is (service == "console")


def _commands() -> Iterator[tuple[str, list[str]]]:
    for name, rest in instructions(DOCKERFILE.read_text(encoding="utf-8")):
        if name == "CMD":
            yield "Dockerfile", json.loads(rest)
    for service in _SERVER:
        yield service, compose()["services"][service]["command"]
    for name in _UNITS:
        for key, value in unit(name):
            if key == "ExecStart":
                program, *arguments = shlex.split(value.replace("%i", "8000"))
                assert program == "/opt/babysea/bin/babysea-server"
                yield name, arguments


@pytest.mark.parametrize(("where", "arguments"), list(_commands()))
def test_every_command_exists_with_its_options(where: str, arguments: list[str]) -> None:
    asked = CliRunner().invoke(app, [*arguments, "--help"])
    assert asked.exit_code == 0, asked.output


def test_a_command_that_does_not_exist_would_be_found() -> None:
    assert CliRunner().invoke(app, ["api", "--no-such-option", "--help"]).exit_code != 0
    assert CliRunner().invoke(app, ["no-such-command", "--help"]).exit_code != 0


def test_images_of_others_are_pinned_to_a_version() -> None:
    base = dict(word.split("=", 1) for name, word in _dockerfile() if name == "ARG")["BASE"]
    images = [service["image"] for service in compose()["services"].values()]
    others = [image for image in images if not image.startswith("${")]
    assert len(others) == 4
    for image in (base, *others):
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[\w.-]+)?$", image), image


def _dockerfile() -> list[tuple[str, str]]:
    return instructions(DOCKERFILE.read_text(encoding="utf-8"))


def test_the_image_is_what_it_promises_to_be() -> None:
    text = _dockerfile()
    last = max(index for index, (name, _) in enumerate(text) if name == "FROM")
    final = text[last:]
    words = dict(final)
    assert words["USER"] == "10001:10001"
    assert words["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(words["ENTRYPOINT"]) == ["babysea-server"]
    assert words["HEALTHCHECK"].endswith('CMD ["python", "-I", "/opt/babysea/healthcheck.py"]')
    ports = {int(port) for port in words["EXPOSE"].split()}
    environment = image_environment()
    api, metrics = int(environment["BABYSEA_PORT"]), int(environment["BABYSEA_METRICS_PORT"])
    assert ports == {api, api + 1, metrics, metrics + 1, metrics + 2}
    # What a build needs does not come along.
    assert not any(
        "--from=build" in rest and rest.split()[1] != "/opt/babysea" for name, rest in final if name == "COPY"
    )
    assert "pip uninstall" in words["RUN"]


def _lets_through(pattern: str, path: str) -> bool:
    return path == pattern or path.startswith(f"{pattern}/")


def test_the_build_gets_the_files_it_copies_and_no_others() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_through = [rule[1:] for rule in rules if rule.startswith("!")]
    assert all((ROOT / path).exists() for path in let_through)
    copied = [rest.split()[0] for name, rest in _dockerfile() if name == "COPY" and "--from" not in rest]
    for source in copied:
        assert (ROOT / source).exists()
        assert any(
            _lets_through(pattern, source) or _lets_through(source, pattern) for pattern in let_through
        ), source
    for path in let_through:
        assert any(_lets_through(source, path) for source in copied), path
    for private in (".git", ".venv", ".data", "deploy/compose/secrets", "tests"):
        assert not any(_lets_through(pattern, private) for pattern in let_through)


def test_the_proxy_knows_the_services_at_their_ports() -> None:
    services = compose()["services"]
    upstreams = services["proxy"]["environment"]
    environment = image_environment()
    apis = {
        f"{name}:{environment['BABYSEA_PORT']}"
        for name in services
        if services[name].get("command") == ["api"]
    }
    assert set(upstreams["API_UPSTREAMS"].split()) == apis
    assert upstreams["CONSOLE_UPSTREAM"] == f"console:{services['console']['command'][-1]}"
    caddyfile = (COMPOSE.parent / "Caddyfile").read_text()
    assert f"path {CONSOLE} {CONSOLE}/*" in caddyfile
    assert f"health_uri {READY}" in caddyfile
    assert set(re.findall(r"\{\$(\w+)\}", caddyfile)) == set(upstreams)


def test_every_service_is_confined() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"mem_limit", "logging", "restart", "healthcheck"} <= service.keys(), name
        assert "privileged" not in service, name


def _make_secrets(folder: Path) -> dict[str, str]:
    subprocess.run(["sh", COMPOSE.parent / "make-secrets", folder], check=True, capture_output=True)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_secrets_are_made_once_and_are_all_that_the_services_ask_for(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = _make_secrets(folder)
    assert _make_secrets(folder) == made
    assert folder.stat().st_mode & 0o077 == 0
    # Their readers have other ids than their owner.
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.iterdir())
    asked = {Path(secret["file"]).name for secret in compose()["secrets"].values()}
    for service in compose()["services"].values():
        for file in service.get("env_file", ()):
            asked |= {Path(file).name} if isinstance(file, str) else set()
        assert set(service.get("secrets", ())) <= compose()["secrets"].keys()
    assert asked == made.keys()
    settings = load_settings(
        {
            "MASTER_KEY": made["master_key"],
            "REDIS_URL": made["redis_url"],
            "DATABASE_URL_US": made["database_url_us"],
        }
    )
    assert len(settings.master_key or "") == 64
    password = made["postgres_password"]
    assert settings.database_url_us == f"postgresql://babysea:{password}@postgres:5432/babysea_us"
    other = _make_secrets(tmp_path / "other")
    # The name of the key is the same everywhere, its secret is not.
    assert all(other[name] != text for name, text in made.items())


@pytest.mark.parametrize("name", _PROCESS_UNITS)
def test_a_unit_gives_its_process_more_time_to_end_than_it_takes(name: str) -> None:
    settings = dict(unit(name))
    stop = int(settings["TimeoutStopSec"].removesuffix("s"))
    assert stop >= 10 + load_settings({}).worker_stop_s - 5
    assert (settings["KillSignal"], settings["Restart"]) == ("SIGTERM", "always")


def test_processes_of_one_machine_tell_their_metrics_at_different_ports() -> None:
    def first(name: str, instance: str) -> int:
        return int(dict(unit_environment(name))["BABYSEA_METRICS_PORT"].replace("%i", instance))

    apis = {first("babysea-api@.service", str(port)) for port in (8000, 8001, 8002)}
    workers = {first("babysea-worker@.service", str(number)) + 1 for number in range(1, 9)}
    console = first("babysea-console.service", "") + 2
    assert len(apis | workers | {console}) == 3 + 8 + 1
    assert max(apis | workers | {console}) < 65536


def test_the_example_of_settings_for_units_is_understood(tmp_path: Path) -> None:
    lines = (UNITS / "babysea.env.example").read_text().splitlines()
    environment = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    settings = load_settings(environment, overrides={"data_dir": str(tmp_path)})
    assert settings.domain == "media.example.com"
    assert settings.trusted_proxies == ("127.0.0.1", "::1")


def test_what_is_written_as_yaml_and_json_can_be_read() -> None:
    for path in DEPLOY.rglob("*.y*ml"):
        if "templates" not in path.parts:
            assert yaml.safe_load(path.read_text(encoding="utf-8")), path
    for path in DEPLOY.rglob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "script", [COMPOSE.parent / "make-secrets", UNITS / "babysea-admin"], ids=lambda path: path.name
)
def test_scripts_are_executable_and_well_formed(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    checked = subprocess.run(["sh", "-n", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
