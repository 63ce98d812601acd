"""`providers list` and `providers check`: what is configured, and whether it works."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.cli.conftest import Commands
from tests.emulators.kit import SECRET, WRONG_KEY, running
from tests.emulators.replicate import ReplicateEmulator

from babysea_server.providers.adapters import adapters


@contextmanager
def _served() -> Iterator[str]:
    """The emulator in a thread with a loop of its own: a command is waited for without ours."""
    started, stop = threading.Event(), threading.Event()
    found: list[str] = []

    async def serve() -> None:
        async with running(ReplicateEmulator()) as emulator:
            found.append(emulator.base_url)
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(30)
        yield found[0]
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with _served() as url:
        yield url


def test_without_credentials_every_provider_says_what_it_needs(commands: Commands) -> None:
    rows = {row["provider"]: row for row in commands("providers", "list", "--json").json}
    assert set(rows) == set(adapters())
    assert rows["replicate"]["state"] == "needs api_key"
    assert rows["cloudflare"]["state"] == "needs api_key, account_id"
    assert rows["comfyui"]["state"] == "needs base_url"
    assert all(row["models"] > 0 for row in rows.values())


@pytest.mark.parametrize(
    ("environment", "state"),
    [
        ({"FAL_KEY": "id:secret"}, "live"),
        ({"BABYSEA_PROVIDER_FAL_API_KEY": "id:secret"}, "live"),
        ({"FAL_KEY": "id:secret", "BABYSEA_PROVIDER_FAL_ENABLED": "false"}, "switched off"),
        (
            {"FAL_KEY": "id:secret", "BABYSEA_PROVIDER_MODE": "sandbox"},
            "configured, not called: provider_mode is sandbox",
        ),
    ],
)
def test_credentials_in_the_environment_make_a_provider_live(
    commands: Commands, environment: dict[str, str], state: str
) -> None:
    rows = {
        row["provider"]: row for row in commands("providers", "list", "--json", environment=environment).json
    }
    assert rows["fal"]["state"] == state
    assert rows["replicate"]["state"] == "needs api_key"


def test_settings_for_a_provider_that_does_not_exist_are_one_line(commands: Commands) -> None:
    refused = commands("providers", "list", environment={"BABYSEA_PROVIDER_REPLICAT_API_KEY": "x"})
    assert refused.code == 2
    assert "there is no provider 'replicat', did you mean replicate?" in refused.err


def test_check_asks_the_provider_and_shows_no_secret(commands: Commands, base_url: str) -> None:
    environment = {"REPLICATE_API_TOKEN": SECRET, "BABYSEA_PROVIDER_REPLICATE_BASE_URL": base_url}
    works = commands("providers", "check", "--json", environment=environment)
    assert works.json == [{"provider": "replicate", "result": "works", "message": "account acme"}]
    fails = commands("providers", "check", environment={**environment, "REPLICATE_API_TOKEN": WRONG_KEY})
    assert fails.code == 1
    assert "fails" in fails.out
    assert "HTTP 401" in fails.out
    assert WRONG_KEY not in fails.out + fails.err


def test_check_says_when_a_provider_cannot_be_reached(commands: Commands) -> None:
    environment = {
        "REPLICATE_API_TOKEN": SECRET,
        "BABYSEA_PROVIDER_REPLICATE_BASE_URL": "http://127.0.0.1:9",
    }
    fails = commands("providers", "check", "replicate", environment=environment)
    assert fails.code == 1
    assert "cannot connect" in fails.out


def test_check_without_any_provider_says_how_to_configure_one(commands: Commands) -> None:
    refused = commands("providers", "check")
    assert refused.code == 1
    assert "no provider is configured" in refused.err
    unknown = commands("providers", "check", "fal", environment={"REPLICATE_API_TOKEN": "x"})
    assert (unknown.code, "fal is not configured" in unknown.err) == (2, True)
