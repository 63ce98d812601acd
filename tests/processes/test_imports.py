"""What a process loads when it starts: libraries that it may never need are half of the time of a start."""

import subprocess
import sys

import pytest

#: Loaded where they are first needed: to migrate, to measure and draw files, to be paid, for Redis, for providers.
_LATE = {
    "alembic",
    "authlib",
    "av",
    "dns",
    "joserfc",
    "mcp",
    "numpy",
    "opentelemetry",
    "PIL",
    "redis",
    "sqlalchemy",
    "stripe",
}
_PARTS = {
    "api": (
        "babysea_server.app.api, babysea_server.app.console, babysea_server.processes.http",
        {"aiohttp", "babysea_server.app.workers", "babysea_server.providers.sandbox.render"},
    ),
    "worker": (
        "babysea_server.app.workers",
        {"babysea_server.app.api", "babysea_server.console", "jinja2", "uvicorn"},
    ),
}


def _loaded(modules: str) -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(shown.stdout.split())


@pytest.mark.parametrize("process", _PARTS)
def test_a_process_that_starts_loads_only_what_it_serves_with(process: str) -> None:
    parts, others = _PARTS[process]
    loaded = _loaded(f"babysea_server.cli.main, babysea_server.processes.serve, {parts}")
    assert loaded & (_LATE | others) == set()
    assert "babysea_server.db.cluster" in loaded


def test_what_draws_for_people_is_loaded_by_commands_that_draw() -> None:
    """By way of the entry point: structlog would take Rich in, too."""
    script = "import sys\nfrom babysea_server.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", script, "version"], capture_output=True, text=True, check=True
    )
    assert set(shown.stdout.split()) & {"rich", "pygments", "attr", "pydantic"} == set()


def test_a_command_that_serves_loads_no_other_commands() -> None:
    loaded = _loaded("babysea_server.cli.main")
    assert {name for name in loaded if name.startswith("babysea_server.cli.")} <= {
        "babysea_server.cli.backup",
        "babysea_server.cli.common",
        "babysea_server.cli.groups",
        "babysea_server.cli.main",
    }
    assert "babysea_server.app.shared" not in loaded
