"""Commands that read: for people, and for programs."""

import json
import os
import subprocess
import sys

import pytest
from tests.sdk.cli.program import Environment, Program
from tests.sdk.conftest import Live
from tests.support import make_customer

from babysea import __version__


async def test_the_status_tells_account_and_key(babysea: Program, live: Live) -> None:
    shown = await babysea("status")
    assert shown.code == 0
    assert str(live.customer.account_id) in shown.out
    assert shown.err == "Connected.\n"
    assert live.customer.key not in shown.out
    assert (await babysea("status", "--json")).json["account_id"] == str(live.customer.account_id)


async def test_models_are_listed_searched_and_shown(babysea: Program) -> None:
    every = (await babysea("models", "--json")).json["models"]
    found = (await babysea("models", "sandbox", "image", "--json")).json
    assert [one["model_identifier"] for one in found["models"]] == ["sandbox/image"]
    assert found["models_total"] == 1 < len(every)
    assert "sandbox/video" in (await babysea("models", "sandbox")).out
    shown = await babysea("models", "show", "sandbox/video")
    assert "duration" in shown.out
    assert "a second" in shown.out
    sent = (await babysea("models", "show", "sandbox/video", "--json")).json
    assert sent in every


async def test_no_model_is_found_and_no_model_is_there(babysea: Program) -> None:
    nothing = await babysea("models", "nothinglikeit")
    assert (nothing.code, nothing.out) == (0, "")
    missing = await babysea("models", "show", "sandbox/imagee")
    assert missing.code == 1
    assert missing.err.startswith("error: no model on offer is called sandbox/imagee")
    assert "sandbox/image" in missing.err
    assert "`babysea models` lists" in missing.err
    assert (await babysea("models", "show")).code == 2


async def test_an_estimate_counts(babysea: Program) -> None:
    found = (await babysea("estimate", "sandbox/image", "-n", "10", "--json")).json
    assert found["cost_total_consumed"] == pytest.approx(10 * found["cost_per_generation"])
    shown = await babysea("estimate", "sandbox/video", "--duration", "5")
    assert "5 s" in shown.out
    assert "credits" in shown.out


async def test_the_life_of_a_generation_by_its_id(babysea: Program) -> None:
    """Made without waiting, listed, read, downloaded, deleted."""
    made = await babysea("image", "sandbox/image", "a red fox", "--no-wait")
    id = made.out.strip()
    assert made.code == 0
    assert f"babysea download {id}" in made.err

    saved = await babysea("download", id, "-o", "fox.png")
    assert saved.out == "fox.png\n"
    assert (babysea.folder / "fox.png").read_bytes().startswith(b"\x89PNG")

    listed = (await babysea("list", "--json")).json
    assert id in [one["generation_id"] for one in listed["generations"]]
    assert {"total", "limit", "offset"} <= set(listed)
    assert id in (await babysea("list", "--limit", "100")).out

    shown = await babysea("get", id)
    assert "succeeded" in shown.out
    assert "a red fox" in shown.out
    assert (await babysea("get", id, "--json")).json["generation_status"] == "succeeded"

    again = await babysea("cancel", id)
    assert again.code == 1
    assert "BSE3002, request req_" in again.err

    deleted = await babysea("delete", id)
    assert (deleted.code, deleted.err) == (0, "Deleted.\n")
    gone = await babysea("get", id)
    assert gone.code == 1
    assert "BSE3001" in gone.err
    assert "`babysea list`" in gone.err


async def test_canceling_tells_what_came_back(babysea: Program) -> None:
    made = (await babysea("image", "sandbox/image", "x [sandbox:slow:60]", "--no-wait", "--json")).json
    busy = await babysea("delete", made["generation_id"])
    assert busy.code == 1
    assert "Cancel it first: `babysea cancel ID`." in busy.err
    canceled = await babysea("cancel", made["generation_id"])
    assert canceled.code == 0
    assert canceled.err.startswith("Canceled; ")
    assert canceled.err.endswith("came back.\n")


async def test_usage_tells_the_balance(babysea: Program) -> None:
    assert "balance" in (await babysea("usage")).out
    assert (await babysea("usage", "--days", "7", "--json")).json["usage_period_days"] == 7


async def test_every_error_is_one_line_with_a_code_and_what_to_do(babysea: Program) -> None:
    cases: list[tuple[tuple[str, ...], Environment, int, str, str]] = [
        (("status",), {"BABYSEA_API_KEY": "bye_" + "x" * 32}, 1, "(BSE1002, request req_", "babysea login"),
        (("status",), {"BABYSEA_BASE_URL": "http://127.0.0.1:1"}, 1, "no connection", "server running"),
        (
            ("status",),
            {"BABYSEA_API_KEY": None, "BABYSEA_BASE_URL": None},
            2,
            "not logged in",
            "babysea login",
        ),
        (("status", "--base-url", "ftp://x"), {}, 2, "base URL", "--help"),
        (("status", "--region", "mars"), {}, 2, "a region is one of us, eu, jp", "--help"),
        (("get", "1"), {}, 2, "a UUID", ""),
        (("estimate", "sandbox/none"), {}, 1, "BSE2011", "`babysea models`"),
        (("image",), {}, 2, "Missing argument 'MODEL'", "babysea image --help"),
        (("imag",), {}, 2, "No such command", "babysea --help"),
        (("usage", "--days", "0"), {}, 2, "--days", "babysea usage --help"),
    ]
    for arguments, environment, code, said, hint in cases:
        result = await babysea(*arguments, environment=environment)
        first, *rest = result.err.splitlines()
        assert (result.code, result.out) == (code, ""), result
        assert first.startswith("error: "), result
        assert said in first, result
        assert len(rest) <= 1, result
        assert hint in " ".join(rest), result


async def test_programs_get_errors_as_json(babysea: Program) -> None:
    result = await babysea("get", "0198f6b4-5d18-7f02-a6c9-83e1b4d7f265", "--json")
    error = json.loads(result.out)["error"]
    assert result.code == 1
    assert error["code"] == "BSE3001"
    assert error["request_id"] in result.err


async def test_a_key_with_few_scopes_is_told_so(babysea: Program, live: Live) -> None:
    reader = await make_customer(live.deployment, preset="monitor_only")
    result = await babysea("image", "sandbox/image", "a fox", environment={"BABYSEA_API_KEY": reader.key})
    assert result.code == 1
    assert "BSE1003" in result.err
    assert "scope" in result.err


async def test_what_the_server_says_cannot_write_to_the_terminal(babysea: Program) -> None:
    made = await babysea("image", "sandbox/image", "a\x1b[31m fox", "--no-wait")
    shown = await babysea("get", made.out.strip())
    assert "\x1b" not in shown.out
    assert "a\\x1b[31m fox" in shown.out


def run(code: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Python itself, without anything of the tests."""
    return subprocess.run(
        [sys.executable, *(("-c", code) if code else ("-m", "babysea")), *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_starts_as_a_module_and_tells_its_version() -> None:
    assert run("", "--version").stdout == f"{__version__}\n"


def test_debug_shows_where_an_error_comes_from_and_never_the_key() -> None:
    key = "bye_" + "k" * 32
    shown = run("", "status", "--debug", BABYSEA_API_KEY=key, BABYSEA_BASE_URL="ftp://nowhere")
    assert shown.returncode == 2
    assert "Traceback" in shown.stderr
    assert key not in shown.stderr


def test_without_its_extra_it_says_how_to_get_it() -> None:
    shown = run("import sys; sys.modules['typer'] = None; from babysea.cli import main; main()")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.count("\n") == 1
    assert "pip install 'babysea[cli]'" in shown.stderr


async def test_the_shell_completes_models_without_asking_a_server(babysea: Program) -> None:
    assert (await babysea("models")).code == 0
    completed = await babysea(
        environment={
            "_BABYSEA_COMPLETE": "complete_bash",
            "COMP_WORDS": "babysea image sandbox/",
            "COMP_CWORD": "2",
        },
    )
    assert completed.out.split() == ["sandbox/image"]
    elsewhere = await babysea(
        environment={
            "_BABYSEA_COMPLETE": "complete_bash",
            "COMP_WORDS": "babysea video sandbox/",
            "COMP_CWORD": "2",
            "BABYSEA_BASE_URL": "http://127.0.0.1:1",
        },
    )
    assert (elsewhere.code, elsewhere.out.split()) == (0, [])
