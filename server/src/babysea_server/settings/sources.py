"""Where settings come from.

One is read from the environment (`BABYSEA_` and the upper-case name; those in `PLAIN_NAMES` also without the prefix),
else from one TOML file (`--config`, `BABYSEA_CONFIG`, or `<data_dir>/babysea.toml`), else it has its default. A
secret's variable may name a file instead, with `_FILE` after it.
"""

import difflib
import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from babysea_server.settings.table import (
    PLAIN_NAMES,
    PROVIDER_PREFIX,
    PROVIDER_VARIABLES,
    SECRET_NAMES,
    ProviderSettings,
    Settings,
    SettingsError,
    environment_name,
)

#: After the variable of a secret: it names a file that holds the value, as orchestrators mount them.
_FILE_SUFFIX = "_FILE"
_FILE_MAX_BYTES = 64 * 1024


def load_settings(
    environment: Mapping[str, str] | None = None,
    *,
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from (strongest first) `overrides`, the environment, the TOML file, the defaults.

    `overrides` holds command-line options; None values mean "not given".

    Raises:
        SettingsError: unknown name in the file, wrong type, out of range, unreadable file.
    """
    environment = _with_files(os.environ if environment is None else environment)
    given = {
        name: _Given(value, "the command line")
        for name, value in (overrides or {}).items()
        if value is not None
    }
    from_environment = _from_environment(environment)
    from_environment_providers = _providers_from_environment(environment)
    data_dir = given.get("data_dir") or from_environment.get("data_dir") or _Given(".data", "")
    from_file = _from_file(environment, config, Path(str(data_dir.value)))
    if from_environment_providers:
        from_file["providers"] = _lay_over(from_file.get("providers"), from_environment_providers)
    fields = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    values = {}
    for name, found in {**from_file, **from_environment, **given}.items():
        if name not in fields:
            nearest = difflib.get_close_matches(name, fields, 1)
            hint = (
                f", did you mean {nearest[0]}?" if nearest else "; `babysea-server settings` lists them all"
            )
            raise SettingsError(f"{found.origin}: unknown setting {name!r}{hint}")
        values[name] = _convert(name, fields[name], found)
    settings = Settings(**values)
    settings = msgspec.structs.replace(settings, regions=tuple(dict.fromkeys(settings.regions)))
    if settings.default_region not in settings.regions:
        settings = msgspec.structs.replace(settings, default_region=settings.regions[0])
    return settings


class _Given(msgspec.Struct, frozen=True):
    """A value as it was found, and where, for people."""

    value: Any
    origin: str


def _convert(name: str, type: Any, given: _Given) -> Any:
    try:
        value = msgspec.convert(given.value, type, strict=False)
    except msgspec.ValidationError as error:
        sentence, _, _place = str(error).partition(" - at `$")
        reason = sentence.replace("`", "")
    else:
        if not isinstance(value, float) or math.isfinite(value):
            return value
        reason = "Expected a finite number"
    shown = "this value" if name in SECRET_NAMES or name == "providers" else repr(given.value)
    raise SettingsError(f"{name} cannot be {shown} (from {given.origin}): {reason[0].lower()}{reason[1:]}")


def _with_files(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the contents of the files that its `..._FILE` variables name in place of these."""
    found = dict(environment)
    for variable, path in environment.items():
        name = variable.removesuffix(_FILE_SUFFIX)
        if name == variable or not _may_be_a_file(name):
            continue
        del found[variable]
        if not path:
            continue
        if environment.get(name):
            raise SettingsError(f"{name} and {variable} are both set; which one is meant?")
        found[name] = _secret_in(Path(path), variable)
    return found


def _may_be_a_file(variable: str) -> bool:
    """Whether a variable holds a secret."""
    if variable in PROVIDER_VARIABLES or variable.startswith(PROVIDER_PREFIX):
        return variable.endswith(("_KEY", "_SECRET", "_TOKEN"))
    setting = variable.removeprefix("BABYSEA_").lower()
    return setting in SECRET_NAMES and (variable.startswith("BABYSEA_") or setting in PLAIN_NAMES)


def _secret_in(path: Path, variable: str) -> str:
    """A file's only line; whoever made it with an editor or `echo` left a newline at its end."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_FILE_MAX_BYTES + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise SettingsError(f"{variable}: {path} cannot be read: {reason}") from error
    if not text or len(text) > _FILE_MAX_BYTES or not text.isprintable():
        raise SettingsError(f"{variable}: {path} does not hold one line of text")
    return text


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    found: dict[str, _Given] = {}
    for field in msgspec.structs.fields(Settings):
        if field.name == "providers":
            continue
        variables = [f"BABYSEA_{field.name.upper()}"]
        if field.name in PLAIN_NAMES:
            variables.append(field.name.upper())
        for variable in variables:
            if text := environment.get(variable):
                found[field.name] = _Given(_split(field.name, variable, text), variable)
                break
    if (endpoint := _standard_tracing_endpoint(environment)) is not None:
        found.setdefault("tracing_endpoint", endpoint)
    return found


def _standard_tracing_endpoint(environment: Mapping[str, str]) -> _Given | None:
    """Where OpenTelemetry's own variables send traces, if they do."""
    if (
        environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    ):
        return None
    if whole := environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return _Given(whole, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if base := environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return _Given(f"{base.rstrip('/')}/v1/traces", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return None


def _providers_from_environment(environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Settings of providers by id, from the names of their own tools and, before those, from ours."""
    found: dict[str, dict[str, str]] = {}
    for variable, (provider, setting) in PROVIDER_VARIABLES.items():
        if environment.get(variable):
            found.setdefault(provider, {})[setting] = environment[variable]
    suffixes = {f"_{field.name.upper()}": field.name for field in msgspec.structs.fields(ProviderSettings)}
    for variable, text in environment.items():
        if variable.startswith(PROVIDER_PREFIX) and text and variable != environment_name("provider_mode"):
            rest = variable.removeprefix(PROVIDER_PREFIX)
            suffix = next((suffix for suffix in suffixes if rest.endswith(suffix)), None)
            if suffix is None or suffix == "_OPTIONS":
                raise SettingsError(
                    f"{variable}: providers have no such setting; docs/providers.md lists them"
                )
            found.setdefault(rest.removesuffix(suffix).lower(), {})[suffixes[suffix]] = text
    return found


def _lay_over(given: _Given | None, providers: Mapping[str, Mapping[str, str]]) -> _Given:
    """The environment's settings of providers over those of the file, setting by setting."""
    if given is None:
        return _Given(dict(providers), "the environment")
    if not isinstance(given.value, dict):
        return given
    merged: dict[str, Any] = dict(given.value)
    for provider, settings in providers.items():
        table = merged.get(provider, {})
        if isinstance(table, dict):
            merged[provider] = {**table, **settings}
    return _Given(merged, f"{given.origin} and the environment")


def _split(name: str, variable: str, text: str) -> Any:
    """The text of a variable, or its parts for a setting that is a list or a table."""
    if name in ("regions", "trusted_proxies", "oidc_allowed_domains"):
        return [part.strip() for part in text.split(",") if part.strip()]
    if name == "sandbox_behaviors":
        pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
        if not all(separator for _, separator, _ in pairs):
            raise SettingsError(
                f"{name} cannot be {text!r} (from {variable}): write provider=behaviour, joined by commas"
            )
        return {key.strip(): value.strip() for key, _, value in pairs}
    return text


def _from_file(environment: Mapping[str, str], config: Path | None, data_dir: Path) -> dict[str, _Given]:
    named = config or (Path(environment["BABYSEA_CONFIG"]) if environment.get("BABYSEA_CONFIG") else None)
    path = (named or data_dir / "babysea.toml").expanduser()
    try:
        with path.open("rb") as file:
            return {
                name: _Given(value, f"settings file {path}") for name, value in tomllib.load(file).items()
            }
    except FileNotFoundError:
        if named is None:
            return {}
        raise SettingsError(f"settings file {path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"settings file {path}: {error}") from error
