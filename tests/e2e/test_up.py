"""`up` as a newcomer and an operator meet it."""

import asyncio
import os
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.system import PATIENCE_S, System
from tests.support import eventually

_PASTE = re.compile(
    r"Paste this into another terminal for a picture:\n\n(.*?)\n\n.*?seconds:\n\n(.*?)\n\n", re.S
)


def _shell(lines: str, folder: Path) -> str:
    """Run pasted lines by sh in an empty folder; returns what went wrong, if anything."""
    folder.mkdir()
    shell = subprocess.run(
        ["sh"],
        input=lines + "\n",
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return shell.stderr


async def test_a_newcomer_pastes_the_printed_lines_and_keeps_everything_over_a_restart(
    fresh_system: System, tmp_path: Path
) -> None:
    system = fresh_system
    up = await system.up(BABYSEA_REGIONS="us,eu,jp")
    path = system.data_dir / "quickstart.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first_start = system.quickstart
    assert set(first_start) == {"api_base", "region", "account_id", "api_key", "console_url"}
    assert first_start["region"] == "us"
    api = system.newcomer()
    (first,) = (await api.data("/v1/content/list"))["generations"]
    assert first["generation_status"] == "succeeded"
    assert first["generation_output_file"][0] in up.out

    pasted = _PASTE.search(up.out)
    assert pasted is not None
    picture, video = pasted.groups()
    assert await asyncio.to_thread(_shell, picture, tmp_path / "picture") == ""
    assert (tmp_path / "picture" / "fox.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    assert await asyncio.to_thread(_shell, video, tmp_path / "video") == ""
    assert (tmp_path / "video" / "waves.mp4").read_bytes()[4:8] == b"ftyp"

    second = system.start("up", "--port", "0")
    assert await second.ended() == 0
    assert "already running" in second.out
    assert str(path) in second.out

    assert await up.stop() == 0
    assert system.left() == {}
    assert up.err.count("Traceback") == 0, up.err

    up = await system.up()
    api = system.newcomer()
    assert {**system.quickstart, "api_base": "", "console_url": ""} == {
        **first_start,
        "api_base": "",
        "console_url": "",
    }
    kept = (await api.data("/v1/content/list"))["generations"]
    assert len(kept) == 3
    for generation in kept:
        file = await system.client.get(generation["generation_output_file"][0])
        assert file.status_code == 200
        assert file.content
    assert "First generation" not in up.out
    assert first_start["api_key"] not in up.out  # shown once; the lines to paste read it from the file
    pasted = _PASTE.search(up.out)
    assert pasted is not None
    assert await asyncio.to_thread(_shell, pasted[1], tmp_path / "later") == ""
    assert (tmp_path / "later" / "fox.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    assert await up.stop() == 0


async def test_administration_beside_the_running_server_takes_effect_at_once(system: System) -> None:
    await system.up()
    account = await system.cli("accounts", "create", "--name", "Beside", "--plan", "unlimited")
    account_id = account["account_id"]
    added = await system.cli("credits", "add", "--account", account_id, "--amount", "0.05")
    assert added["credit_balance"] == 0.05
    key = await system.cli(
        "keys", "create", "--account", account_id, "--name", "new", "--preset", "full_access"
    )
    api = system.newcomer()
    api.key = key["api_key"]
    assert (await api.data("/v1/status"))["account_id"] == account_id
    accepted = await api.generate("bfl/flux-schnell", key="beside")
    made = await api.finished(accepted.json()["data"]["generation_id"])
    assert made["generation_status"] == "succeeded"
    listed = await system.cli("keys", "list", "--account", account_id)
    assert [entry["apikey_id"] for entry in listed] == [key["apikey_id"]]
    assert key["api_key"] not in str(listed)
    await system.books_are_clean()


async def test_up_killed_takes_its_children_along_and_the_next_up_waits_for_them(system: System) -> None:
    up = await system.up()
    known = system.quickstart
    port = known["api_base"].rpartition(":")[2]
    await up.kill()
    # Its children may still hold the port and their leases: the next one starts all the same.
    up = system.start("up", "--port", port)
    await up.says("BabySea is running.")
    assert system.quickstart == known
    api = system.newcomer()
    assert (await api.data("/v1/status"))["account_id"] == known["account_id"]
    await up.kill()
    await system.nothing_left()


async def test_a_sigterm_at_any_moment_of_the_start_leaves_nothing_running(
    fresh_system: System,
) -> None:
    system = fresh_system

    def initialising() -> bool:
        return (system.data_dir / "postgres.lock").exists()

    def database_runs() -> bool:
        return system.postmaster() is not None

    def children_run() -> bool:
        return system.child("api") is not None and system.child("worker") is not None

    for moment in (initialising, database_runs, children_run):
        up = system.start("up", "--port", "0")

        async def now(reached: Callable[[], bool] = moment) -> bool:
            return reached()

        await eventually(now)
        code = await up.stop()
        # What a killed database leaves behind looks like one that runs: then the interpreter itself may be starting.
        assert code == 0 or (code == -signal.SIGTERM and up.out + up.err == ""), up.err
        assert system.left() == {}
        assert "Traceback" not in up.err
    await system.up()


async def test_separate_processes_stopped_while_they_start_leave_no_database_running(system: System) -> None:
    async def database_runs() -> bool:
        return system.postmaster() is not None

    for command in ("api", "worker", "migrate"):
        process = system.start(command)
        await eventually(database_runs)
        await process.stop()
        assert system.left() == {}
        assert "Traceback" not in process.err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"BABYSEA_REGIONS": "us,mars"}, "regions"),  # seen by `up` itself
        ({"BABYSEA_STORAGE_URL": "ftp://nowhere"}, "STORAGE_URL"),  # seen by its children
        ({"DATABASE_URL_US": "postgresql://localhost:1/none"}, "region us"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_setting_that_cannot_work_is_one_clear_line(
    system: System, settings: dict[str, str], said: str
) -> None:
    up = system.start("up", "--port", "0", **settings)
    assert await up.ended() in (1, 2)
    lines = [line for line in up.err.splitlines() if "error" in line.lower()]
    assert len(lines) == 1, up.err
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert "Traceback" not in up.err
    assert system.left() == {}


async def test_a_taken_port_is_one_clear_line_and_leaves_the_other_alone(system: System) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for command in ("up", "api"):
            process = system.start(command, "--port", port)
            assert await process.ended() == 1
            assert process.err.splitlines() == [
                f"error: cannot listen on 127.0.0.1 port {port}: another program listens there; "
                "choose another with --port"
            ]
    assert system.left() == {}


async def test_the_region_option_chooses_where_a_newcomer_is_and_a_failing_first_generation_is_told(
    fresh_system: System,
) -> None:
    system = fresh_system
    up = await system.up("--region", "eu", BABYSEA_SANDBOX_BEHAVIORS="*=fail")
    assert system.quickstart["region"] == "eu"
    assert "First generation failed" in up.out
    api = system.newcomer()
    port = api.base.rpartition(":")[2]
    (first,) = (await api.data("/v1/content/list"))["generations"]
    assert first["generation_status"] == "failed"
    elsewhere = await api.request("GET", "/v1/status", headers={"Host": f"api.us.localhost:{port}"})
    assert elsewhere.status_code == 403
    here = await api.request("GET", "/v1/status", headers={"Host": f"api.eu.localhost:{port}"})
    assert here.status_code == 200


async def test_a_child_that_dies_at_every_start_without_a_reason_ends_up(
    system: System, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('BABYSEA_SUPERVISED') == '1':\n    os._exit(7)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    up = system.start("up", "--port", "0", PYTHONPATH=path)
    assert await up.ended() == 1
    (line,) = (line for line in up.err.splitlines() if line.startswith("error: "))
    assert "ended 3 times before it was ready, at last with exit code 7" in line
    assert system.left() == {}


async def test_options_overrule_an_environment_that_the_children_see_too(system: System) -> None:
    await system.up("--host", "127.0.0.1", BABYSEA_PORT="none", BABYSEA_HOST="nowhere.invalid")
    assert (await system.newcomer().data("/v1/status"))["account_id"] == system.quickstart["account_id"]
