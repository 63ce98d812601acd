"""The files of deploy/ under the tools that will read them, where these are installed.

`uv pip install -r tests/deploy/requirements.lock` brings those that are no Debian packages.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.deploy.files import COMPOSE, DOCKERFILE, UNITS

_PROGRAMS = Path(sys.executable).parent
_INSTANCES = (
    "babysea-api@8000.service",
    "babysea-worker@1.service",
    "babysea-console.service",
    "babysea-migrate.service",
)
#: systemd's own scale: below 2 is "OK", 10 is a service without any confinement.
_EXPOSURE_MAX = 15


def _needs(program: str, *, path: str | None = str(_PROGRAMS)) -> pytest.MarkDecorator:
    found = shutil.which(program, path=path)
    return pytest.mark.skipif(found is None, reason=f"{program} is not installed")


def _run(command: Sequence[str | Path], folder: Path, **environment: str) -> str:
    path = f"{_PROGRAMS}:/usr/local/bin:/usr/bin:/bin:/usr/sbin"
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": path, "HOME": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@_needs("hadolint")
def test_the_dockerfile_is_clean(tmp_path: Path) -> None:
    assert _run(["hadolint", "--failure-threshold", "info", DOCKERFILE], tmp_path) == ""


@_needs("docker-compose")
def test_compose_reads_its_file_with_the_secrets_and_settings_as_they_are_made(tmp_path: Path) -> None:
    folder = tmp_path / "compose"
    shutil.copytree(COMPOSE.parent, folder, ignore=shutil.ignore_patterns("secrets", ".env"))
    _run(["sh", "make-secrets"], folder)
    shutil.copy(folder / ".env.example", folder / ".env")
    assert _run(["docker-compose", "config", "--quiet"], folder) == ""
    services = _run(["docker-compose", "config", "--services"], folder).split()
    assert {"api-1", "api-2", "worker", "console", "migrate", "proxy", "postgres", "valkey", "s3"} == set(
        services
    )


@_needs("caddy")
def test_caddy_takes_its_file_for_several_regions(tmp_path: Path) -> None:
    said = _run(
        ["caddy", "validate", "--adapter", "caddyfile", "--config", COMPOSE.parent / "Caddyfile"],
        tmp_path,
        SITES="api.us.media.example.com, api.eu.media.example.com",
        API_UPSTREAMS="api-1:8000 api-2:8000",
        CONSOLE_UPSTREAM="console:8001",
    )
    assert "Valid configuration" in said
    assert "not formatted" not in said


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with the units, the targets of the system, and the programs that they start."""
    units = tmp_path / "etc" / "systemd" / "system"
    shutil.copytree(UNITS, units)
    system = tmp_path / "usr" / "lib" / "systemd" / "system"
    system.mkdir(parents=True)
    for pattern in ("*.target", "*.slice"):
        for path in Path("/lib/systemd/system").glob(pattern):
            shutil.copy(path, system, follow_symlinks=True)
    program = tmp_path / "opt" / "babysea" / "bin" / "babysea-server"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


@_needs("systemd-analyze", path=None)
def test_systemd_finds_nothing_wrong_with_the_units(root: Path) -> None:
    units = [*_INSTANCES, "babysea.target"]
    assert _run(["systemd-analyze", "verify", "--man=no", f"--root={root}", *units], root) == ""


@_needs("systemd-analyze", path=None)
@pytest.mark.parametrize("unit", _INSTANCES)
def test_a_unit_is_confined(unit: str, root: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--root={root}"]
    assert "OK" in _run([*command, f"--threshold={_EXPOSURE_MAX}", unit], root)
