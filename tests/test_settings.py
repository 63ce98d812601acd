"""Settings: where a value comes from, what is refused and how that is said; the master key; logs keep secrets."""

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from babysea_server.master_key import load_master_key
from babysea_server.settings import (
    PROVIDER_VARIABLES,
    ProviderSettings,
    Settings,
    SettingsError,
    describe,
    environment_name,
    load_settings,
)

NAMES = [field.name for field in msgspec.structs.fields(Settings)]
#: `providers` is no text: each provider's settings have variables of their own.
VARIABLES = [name for name in NAMES if name != "providers"]


def settings_file(folder: Path, text: str) -> Path:
    path = folder / "babysea.toml"
    path.write_text(text)
    return path


# ------------------------------------------------------------------------------------------ precedence


def test_every_setting_is_described_with_its_variable_value_default_and_a_sentence(tmp_path: Path) -> None:
    rows = describe(load_settings({}, overrides={"data_dir": str(tmp_path)}))
    assert [row["name"] for row in rows] == NAMES
    for row in rows:
        assert row["environment"] == environment_name(row["name"])
        assert row["description"].endswith("."), row["name"]
        assert row["value"] == (str(tmp_path) if row["name"] == "data_dir" else row["default"]), row["name"]


@pytest.mark.parametrize("name", VARIABLES)
def test_every_setting_is_read_from_its_variable(name: str, tmp_path: Path) -> None:
    values: dict[str, tuple[str, Any]] = {
        "data_dir": (str(tmp_path), str(tmp_path)),
        "regions": ("eu, us", ("eu", "us")),
        "default_region": ("jp", "jp"),
        "sandbox_behaviors": (
            "fal=refuse_busy, replicate = fail",
            {"fal": "refuse_busy", "replicate": "fail"},
        ),
        "provider_mode": ("sandbox", "sandbox"),
        "breaker_enabled": ("false", False),
        "trusted_proxies": ("10.0.0.0/8, ::1", ("10.0.0.0/8", "::1")),
        "oidc_allowed_domains": ("example.com, example.org", ("example.com", "example.org")),
        "sign_up": ("open", "open"),
        "log_format": ("json", "json"),
        "tracing_endpoint": ("http://127.0.0.1:4318/in", "http://127.0.0.1:4318/in"),
        "log_level": ("debug", "debug"),
    }
    described = {row["name"]: row["default"] for row in describe(load_settings({}))}
    default = described[name]
    text, value = values.get(
        name, (f"{default}", default) if isinstance(default, int | float) else ("x", "x")
    )
    for variable in {environment_name(name), f"BABYSEA_{name.upper()}"}:
        assert getattr(load_settings({variable: text}), name) == value


def test_options_beat_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    file = settings_file(tmp_path, "port = 1\nhost = '::1'\nworker_poll_s = 3\n")
    settings = load_settings(
        {"BABYSEA_PORT": "2", "BABYSEA_HOST": "::2"}, config=file, overrides={"port": 3, "host": None}
    )
    assert (settings.port, settings.host, settings.worker_poll_s, settings.admission_calls) == (
        3,
        "::2",
        3.0,
        2,
    )


def test_the_file_is_found_by_option_by_variable_or_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("data", "named", "option"), start=1):
        (tmp_path / name).mkdir()
        settings_file(tmp_path / name, f"port = {number}")
    environment = {"BABYSEA_DATA_DIR": str(tmp_path / "data")}
    assert load_settings(environment).port == 1
    environment["BABYSEA_CONFIG"] = str(tmp_path / "named" / "babysea.toml")
    assert load_settings(environment).port == 2
    assert load_settings(environment, config=tmp_path / "option" / "babysea.toml").port == 3
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings({"BABYSEA_DATA_DIR": "~/data"}).port == 1
    assert load_settings({"BABYSEA_CONFIG": "~/named/babysea.toml"}).port == 2


def test_an_empty_variable_is_as_if_it_were_not_set() -> None:
    assert load_settings({"BABYSEA_PORT": "", "MASTER_KEY": ""}) == load_settings({})


def test_the_prefixed_name_beats_the_plain_one() -> None:
    settings = load_settings({"DATABASE_URL_EU": "plain", "BABYSEA_DATABASE_URL_EU": "prefixed"})
    assert settings.database_url("eu") == "prefixed"
    assert settings.database_url("us") is None
    assert load_settings({"PORT": "1", "HOST": "::1"}) == load_settings({}), (
        "only some names go without prefix"
    )


@pytest.mark.parametrize(
    ("variable", "read"),
    [
        ("MASTER_KEY", lambda settings: settings.master_key),
        ("BABYSEA_MASTER_KEY", lambda settings: settings.master_key),
        ("DATABASE_URL_JP", lambda settings: settings.database_url_jp),
        ("REDIS_URL", lambda settings: settings.redis_url),
        ("BABYSEA_SMTP_URL", lambda settings: settings.smtp_url),
        ("STRIPE_SECRET_KEY", lambda settings: settings.stripe_secret_key),
        ("REPLICATE_API_TOKEN", lambda settings: settings.providers["replicate"].api_key),
        ("BABYSEA_PROVIDER_FAL_API_KEY", lambda settings: settings.providers["fal"].api_key),
        ("BABYSEA_PROVIDER_FAL_WEBHOOK_SECRET", lambda settings: settings.providers["fal"].webhook_secret),
    ],
)
def test_a_secret_may_be_in_a_file(variable: str, read: Callable[[Settings], str], tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from-a-file-with-a-newline-at-its-end\n")
    settings = load_settings({f"{variable}_FILE": str(file)}, overrides={"data_dir": str(tmp_path)})
    assert read(settings) == "from-a-file-with-a-newline-at-its-end"


def test_a_secret_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("in the file")
    with pytest.raises(SettingsError, match="MASTER_KEY and MASTER_KEY_FILE are both set") as refused:
        load_settings({"MASTER_KEY": "here", "MASTER_KEY_FILE": str(file)})
    assert "in the file" not in str(refused.value)
    # Empty is as if it were not set, as everywhere.
    assert load_settings({"MASTER_KEY": "", "MASTER_KEY_FILE": str(file)}).master_key == "in the file"
    assert load_settings({"MASTER_KEY": "here", "MASTER_KEY_FILE": ""}).master_key == "here"


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines\n", b"\xff\xfe", b"x" * 100_000])
def test_a_file_that_holds_no_secret_is_refused_without_telling_what_it_holds(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"^REDIS_URL_FILE: {file} ") as refused:
        load_settings({"REDIS_URL_FILE": str(file)})
    assert "two" not in str(refused.value)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_settings({"REDIS_URL_FILE": str(tmp_path / "missing")})


def test_what_is_no_secret_is_not_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "domain"
    file.write_text("media.example.com")
    assert load_settings({"BABYSEA_DOMAIN_FILE": str(file)}).domain == "localhost"
    with pytest.raises(SettingsError, match="providers have no such setting"):
        load_settings({"BABYSEA_PROVIDER_FAL_BASE_URL_FILE": str(file)})
    # `plans_file` is a setting of its own, and stays one.
    assert load_settings({"BABYSEA_PLANS_FILE": str(file)}).plans_file == str(file)


def test_regions_are_served_once_and_the_default_region_is_one_of_them() -> None:
    settings = load_settings({"BABYSEA_REGIONS": "eu,jp,eu"})
    assert settings.regions == ("eu", "jp")
    assert settings.default_region == "eu"


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("variable", "text", "reason"),
    [
        ("BABYSEA_PORT", "eighty", "expected int, got str"),
        ("BABYSEA_PORT", "65536", "expected int <= 65535"),
        ("BABYSEA_PORT", "8000.5", "expected int"),
        ("BABYSEA_REGIONS", "us,mars", "invalid enum value 'mars'"),
        ("BABYSEA_REGIONS", ",", "length >= 1"),
        ("BABYSEA_LOG_LEVEL", "loud", "invalid enum value 'loud'"),
        ("BABYSEA_WORKER_POLL_S", "0", "expected float > 0"),
        ("BABYSEA_WORKER_POLL_S", "nan", "expected"),
        ("BABYSEA_REQUEST_TIMEOUT_S", "inf", "finite"),
        ("BABYSEA_SANDBOX_BEHAVIORS", "fal", "provider=behaviour"),
    ],
)
def test_a_variable_that_does_not_fit_is_named_with_its_value_and_the_reason(
    variable: str, text: str, reason: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({variable: text})
    message = str(refused.value)
    assert variable.removeprefix("BABYSEA_").lower() in message
    assert variable in message
    assert reason in message


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("port = 'eighty'", "port", "expected int"),
        ("port = 99999", "port", "<= 65535"),
        ("request_timeout_s = nan", "request_timeout_s", "expected"),
        ("request_timeout_s = inf", "request_timeout_s", "finite"),
        ("regions = 'us'", "regions", "expected array"),
        ("prot = 8000", "prot", "did you mean port?"),
        ("[server]\nport = 1", "server", "unknown setting"),
        ("sandbox_behaviors = { fal = 1 }", "sandbox_behaviors", "expected str"),
    ],
)
def test_a_line_of_the_file_that_does_not_fit_is_named_with_the_file(
    tmp_path: Path, text: str, name: str, reason: str
) -> None:
    file = settings_file(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        load_settings({}, config=file)
    message = str(refused.value)
    assert name in message
    assert str(file) in message
    assert reason in message


def test_an_option_that_does_not_fit_is_named() -> None:
    with pytest.raises(SettingsError, match=r"port .*command line.*<= 65535"):
        load_settings({}, overrides={"port": 70000})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml does not exist"):
        load_settings({}, config=tmp_path / "absent.toml")
    with pytest.raises(SettingsError, match=str(tmp_path)):
        load_settings({}, config=tmp_path)
    for content in (b"port =", b"host = '\xff'"):
        broken = tmp_path / "broken.toml"
        broken.write_bytes(content)
        with pytest.raises(SettingsError, match=str(broken)):
            load_settings({}, config=broken)


def test_secrets_are_neither_listed_nor_shown_nor_quoted() -> None:
    secrets = {
        "MASTER_KEY": "m" * 20 + "hunter2",
        "DATABASE_URL_US": "postgresql://u:hunter2@h/d",
        "DATABASE_URL_EU": "postgresql://u:hunter2@h/d",
        "DATABASE_URL_JP": "postgresql://u:hunter2@h/d",
    }
    settings = load_settings(secrets)
    rows = {row["name"]: row["value"] for row in describe(settings)}
    assert [rows[name.lower()] for name in secrets] == ["(set)"] * 4
    assert "hunter2" not in f"{settings!r} {settings} {rows}"
    with pytest.raises(SettingsError) as refused:
        load_settings({}, overrides={"master_key": ["hunter2"]})
    assert "hunter2" not in str(refused.value)


# ------------------------------------------------------------------------------------------ the master key


def with_data(folder: Path, **environment: str) -> Settings:
    return load_settings(environment, overrides={"data_dir": str(folder)})


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_the_master_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    made = load_master_key(with_data(tmp_path / "new"))
    assert len(made) == 32
    file = tmp_path / "new" / "master.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text().strip()) >= 32
    assert load_master_key(with_data(tmp_path / "new")) == made
    assert load_master_key(with_data(tmp_path / "other")) != made
    assert names(tmp_path / "new") == ["master.key"]


def test_the_kept_key_given_as_a_setting_is_the_same_key(tmp_path: Path) -> None:
    made = load_master_key(with_data(tmp_path))
    kept = (tmp_path / "master.key").read_text()
    assert load_master_key(with_data(tmp_path / "elsewhere", MASTER_KEY=kept)) == made
    assert not (tmp_path / "elsewhere").exists()


async def test_processes_that_start_together_agree_on_the_master_key(tmp_path: Path) -> None:
    script = (
        "import sys; from babysea_server.master_key import load_master_key\n"
        "from babysea_server.settings import load_settings\n"
        "sys.stdin.readline()\n"
        "print(load_master_key(load_settings({}, overrides={'data_dir': sys.argv[1]})).hex())"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    said = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    keys = {out.decode().strip() for out, _ in said}
    assert keys == {load_master_key(with_data(tmp_path)).hex()}
    assert names(tmp_path) == ["master.key"]


def test_a_master_key_that_cannot_be_used_is_refused_with_where_it_is(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MASTER_KEY needs at least 32 characters") as refused:
        load_master_key(with_data(tmp_path, MASTER_KEY="k" * 31))
    assert "kkk" not in str(refused.value)
    for content in (b"", b"short\n", b"\xff" * 40):
        (tmp_path / "master.key").write_bytes(content)
        with pytest.raises(SettingsError, match=str(tmp_path / "master.key")):
            load_master_key(with_data(tmp_path))
        assert (tmp_path / "master.key").read_bytes() == content, (
            "never replaced: it may be the real one, damaged"
        )
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="file"):
        load_master_key(with_data(tmp_path / "file"))


# ------------------------------------------------------------------------------------------ logs

LOGGING = """\
import sys, logging, structlog
from babysea_server.telemetry.logs import configure_logging
configure_logging(format=sys.argv[1], level="info")
log = structlog.get_logger("test")
log.debug("too quiet")
log.info("hello", api_key="bye_hunter2", Authorization="Bearer hunter2", dsn="postgresql://u:hunter2@h",
         headers={"authorization": "Bearer hunter2", "accept": "json"}, count=3)
def fails(api_key):
    local_secret = "hunter2"
    raise LookupError("the reason")
try:
    fails("bye_hunter2")
except LookupError:
    log.exception("failed")
logging.getLogger("library").warning("from a library")
"""


@pytest.mark.parametrize("format", ["console", "json"])
def test_logs_go_to_standard_error_and_keep_secrets(format: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOGGING, format], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "hunter2" not in done.stderr, "neither values named like secrets nor the variables of a traceback"
    for expected in ("hello", "(hidden)", "the reason", "from a library", "3"):
        assert expected in done.stderr
    assert "too quiet" not in done.stderr
    if format == "json":
        first = json.loads(done.stderr.splitlines()[0])
        assert (first["event"], first["level"], first["count"]) == ("hello", "info", 3)
        assert first["headers"] == {"authorization": "(hidden)", "accept": "json"}


def test_credentials_of_providers_come_from_the_names_of_their_own_tools() -> None:
    for variable, (provider, setting) in PROVIDER_VARIABLES.items():
        settings = load_settings({variable: "value"})
        assert getattr(settings.providers[provider], setting) == "value", variable


def test_our_own_variable_beats_a_tools_and_the_environment_beats_the_file(tmp_path: Path) -> None:
    file = settings_file(
        tmp_path,
        """
        [providers.replicate]
        api_key = "file"
        jobs_at_once = 3
        [providers.comfyui]
        base_url = "http://gpu:8188"
        options = { workflows = "/srv/workflows" }
        """,
    )
    environment = {
        "REPLICATE_API_TOKEN": "tool",
        "BABYSEA_PROVIDER_REPLICATE_API_KEY": "ours",
        "BABYSEA_PROVIDER_OPENAI_COMPATIBLE_PRIVATE_NETWORK": "true",
    }
    providers = load_settings(environment, config=file).providers
    assert providers["replicate"] == ProviderSettings(api_key="ours", jobs_at_once=3)
    assert providers["comfyui"].options == {"workflows": "/srv/workflows"}
    assert providers["openai_compatible"].private_network is True


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"BABYSEA_PROVIDER_FAL_APIKEY": "hunter2"}, "providers have no such setting"),
        ({"BABYSEA_PROVIDER_FAL_OPTIONS": "hunter2"}, "providers have no such setting"),
        ({"BABYSEA_PROVIDER_FAL_JOBS_AT_ONCE": "hunter2"}, "int"),
        ({"BABYSEA_PROVIDER_FAL_JOBS_AT_ONCE": "0"}, ">= 1"),
    ],
)
def test_a_wrong_setting_of_a_provider_is_told_without_its_value(
    environment: dict[str, str], reason: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(environment)
    assert reason in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_credentials_of_providers_are_never_shown(tmp_path: Path) -> None:
    settings = load_settings({"FAL_KEY": "hunter2", "REPLICATE_API_TOKEN": "hunter2"})
    assert "hunter2" not in repr(settings) + repr(settings.providers) + str(settings.providers["fal"])
    [row] = [row for row in describe(settings) if row["name"] == "providers"]
    assert row["value"] == {"fal": "(set)", "replicate": "(set)"}
