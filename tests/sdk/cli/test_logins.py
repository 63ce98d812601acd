"""Keys that are kept: where, how, and which server they are sent to."""

import json
import stat
from pathlib import Path

import pytest
from tests.sdk.cli.program import Program
from tests.sdk.conftest import Live
from tests.support import make_customer

from babysea.cli.faults import CommandError
from babysea.cli.profiles import Connection, Profile, Profiles, connection

NOBODY = {"BABYSEA_API_KEY": None, "BABYSEA_BASE_URL": None}
HERE = Profile("bye_here", "http://here.example", "us")
THERE = Profile("bye_there", "http://there.example/")


def kept(babysea: Program) -> list[Path]:
    return list((babysea.folder / "home").rglob("profiles/*.json"))


async def test_a_key_is_kept_used_and_forgotten(babysea: Program, live: Live) -> None:
    login = await babysea(
        "login", "--key-stdin", "--base-url", live.base_url, stdin=live.customer.key, environment=NOBODY
    )
    assert login.code == 0, login.err
    assert live.customer.key not in login.out + login.err
    (path,) = kept(babysea)
    assert str(path) in login.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["default.json"]

    assert (await babysea("status", environment=NOBODY)).code == 0
    listed = (await babysea("profiles", "--json", environment=NOBODY)).json["profiles"]
    assert [(one["profile"], one["current"], one["base_url"]) for one in listed] == [
        ("default", True, live.base_url)
    ]
    assert live.customer.key not in json.dumps(listed)
    assert live.base_url in (await babysea("profiles", environment=NOBODY)).out

    assert (await babysea("logout", environment=NOBODY)).code == 0
    assert kept(babysea) == []
    assert (await babysea("logout", environment=NOBODY)).code == 1


async def test_a_key_that_does_not_work_is_not_kept(babysea: Program, live: Live) -> None:
    wrong = await babysea(
        "login", "--key-stdin", "--base-url", live.base_url, stdin="bye_" + "x" * 32, environment=NOBODY
    )
    assert wrong.code == 1
    assert "BSE1002" in wrong.err
    assert (await babysea("login", "--key-stdin", stdin="  \n", environment=NOBODY)).code == 2
    assert kept(babysea) == []


async def test_a_key_that_may_do_other_things_only_is_kept(babysea: Program, live: Live) -> None:
    maker = await make_customer(live.deployment, preset="generate_only")
    login = await babysea(
        "login", "--key-stdin", "--base-url", live.base_url, stdin=maker.key, environment=NOBODY
    )
    assert login.code == 0, login.err
    assert f"key {maker.key[:9]}..." in login.err


async def test_without_a_terminal_nobody_is_asked(babysea: Program) -> None:
    result = await babysea("login", environment=NOBODY)
    assert result.code == 2
    assert "--key-stdin" in result.err


async def test_a_login_asks_and_does_not_show_the_key(babysea: Program, live: Live) -> None:
    async with babysea.terminal("login", "--profile", "studio", environment=NOBODY) as terminal:
        await terminal.shows("Address of the server [http://localhost:8000]:")
        terminal.type(f"{live.base_url}\n")
        await terminal.shows("Region (us, eu, jp, or nothing)")
        terminal.type("\n")
        await terminal.shows("API key (not shown):")
        terminal.type(f"{live.customer.key}\n")
        assert await terminal.ended() == 0
        assert live.customer.key.encode() not in terminal.raw
        assert "Logged in" in terminal.text
    (path,) = kept(babysea)
    assert path.name == "studio.json"
    assert (await babysea("status", environment={**NOBODY, "BABYSEA_PROFILE": "studio"})).code == 0
    assert (await babysea("status", "--profile", "studio")).code == 0


async def test_leaving_a_login_keeps_nothing(babysea: Program) -> None:
    async with babysea.terminal("login", environment=NOBODY) as terminal:
        await terminal.shows("Address of the server")
        terminal.interrupt()
        assert await terminal.ended() == 130
    assert kept(babysea) == []


@pytest.fixture
def profiles(tmp_path: Path) -> Profiles:
    profiles = Profiles(tmp_path / "profiles")
    profiles.write("default", HERE)
    profiles.write("other", THERE)
    return profiles


@pytest.mark.parametrize(
    ("environment", "options", "expected"),
    [
        ({}, {}, Connection("bye_here", "http://here.example", "us")),
        ({}, {"region": "eu"}, Connection("bye_here", "http://here.example", "eu")),
        ({}, {"profile": "other"}, Connection("bye_there", THERE.base_url, None)),
        ({}, {"profile": "other", "base_url": THERE.base_url[:-1]}, Connection("bye_there", THERE.base_url, None)),
        ({"BABYSEA_PROFILE": "other"}, {}, Connection("bye_there", THERE.base_url, None)),
        ({"BABYSEA_API_KEY": "bye_env"}, {}, Connection("bye_env", "http://localhost:8000", None)),
        (
            {"BABYSEA_API_KEY": "bye_env", "BABYSEA_BASE_URL": "http://env.example"},
            {},
            Connection("bye_env", "http://env.example", None),
        ),
        (
            {"BABYSEA_API_KEY": "bye_env", "BABYSEA_BASE_URL": "http://env.example"},
            {"profile": "other"},
            Connection("bye_there", THERE.base_url, None),
        ),
    ],
)  # fmt: skip
def test_the_nearest_key_is_used_with_its_own_server(
    profiles: Profiles, environment: dict[str, str], options: dict[str, str], expected: Connection
) -> None:
    given = {"profile": None, "base_url": None, "region": None, **options}
    assert connection(environment, profiles, **given) == expected


@pytest.mark.parametrize(
    ("environment", "options"),
    [({"BABYSEA_BASE_URL": "http://there.example"}, {}), ({}, {"base_url": "http://there.example"})],
)
def test_a_key_is_not_sent_to_another_server(
    profiles: Profiles, environment: dict[str, str], options: dict[str, str]
) -> None:
    given = {"profile": None, "base_url": None, "region": None, **options}
    with pytest.raises(CommandError, match="not sent to"):
        connection(environment, profiles, **given)


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".x", "x" * 65])
def test_a_profile_is_a_name_and_not_a_path(profiles: Profiles, name: str) -> None:
    with pytest.raises(CommandError, match="no name"):
        profiles.path(name)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"api_key": 1, "base_url": "x"}'])
def test_a_profile_that_is_none_is_told(profiles: Profiles, text: str) -> None:
    profiles.path("broken").write_text(text)
    with pytest.raises(CommandError, match="is not a profile"):
        profiles.read("broken")


def test_a_key_is_shown_in_no_representation() -> None:
    assert "bye_" not in repr(HERE) + repr(Connection("bye_here", "x", None))
