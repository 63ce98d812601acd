"""Options, processes and doors: stdio and HTTP as they are really started, and who is let in."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from tests.docs.pages import blocks, headings, page, rows
from tests.sdk.conftest import Live
from tests.sdk.mcp.assistants import IMAGE, SLOW, VIDEO, assisted, over_stdio, served

from babysea.mcp import main
from babysea.mcp._main import _parser
from babysea.mcp._tools import TOOLS

TOKEN = "t" * 32


async def test_every_tool_works_over_stdio(live: Live, tmp_path: Path) -> None:
    async with over_stdio(live, tmp_path, "--max-credits", "0.5") as assistant:
        assert (await assistant.call("list_models", search="sandbox")).data["total"] == 2
        assert (await assistant.call("get_model", model=VIDEO)).data["media"] == "video"
        assert (await assistant.call("estimate", model=IMAGE, count=3)).data["cost"] == 0.003
        made = await assistant.call("generate", model=IMAGE, prompt="a fox")
        async with httpx.AsyncClient(trust_env=False) as http:
            file = (await http.get(made.links[0].uri)).content
        assert made.pictures == [file]
        read = await assistant.call("get_generation", generation_id=made.data["generation_id"])
        assert read.pictures == [file]
        assert (await assistant.call("list_generations")).data["generations"]
        slow = await assistant.call("generate", model=IMAGE, prompt=SLOW, wait=False)
        id = slow.data["generation_id"]
        assert (await assistant.call("cancel_generation", generation_id=id)).data["status"] == "canceled"
        assert (await assistant.call("account_balance")).data["limit_left"] == 0.499
    assert (tmp_path / "stderr").read_text() == ""


async def test_a_client_that_goes_away_ends_the_process_and_its_generation_where_wished(
    live: Live, tmp_path: Path
) -> None:
    async with over_stdio(live, tmp_path, "--cancel-on-abort", mode="legacy") as assistant:
        call = asyncio.create_task(assistant.call("generate", model=IMAGE, prompt=SLOW, timeout_s=600))
        await assistant.told.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        id = assistant.progress[0][1].split()[1]
        assert (await live.customer.finished(id))["generation_status"] == "canceled"
    errors = (tmp_path / "stderr").read_text()
    assert f"generation {id} was canceled with its tool call" in errors
    assert live.customer.key not in errors


async def test_the_program_serves_http_with_a_token(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "babysea.mcp", "--transport", "http", "--port", "0", "--read-only",
        "--base-url", live.base_url,
        env={"BABYSEA_API_KEY": live.customer.key, "BABYSEA_MCP_TOKEN": TOKEN},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = (await process.stderr.readline()).decode()
        url = said.split()[-1]
        assert said == f"babysea mcp: {url}\n"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            assisted(Client(streamable_http_client(url, http_client=http))) as assistant,
        ):
            assert (await assistant.call("account_balance")).data["plan"] == "unlimited"
    finally:
        process.terminate()
        assert await process.wait() in (0, -15)


_HELLO = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
_TALK = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "rebound.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "[::1"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://93.184.216.34"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer " + "t" * 31}, 401),
        ({"Authorization": TOKEN}, 401),
    ],
)
async def test_the_door_is_shut(live: Live, headers: dict[str, str], status: int) -> None:
    async with served(live, token=TOKEN) as url, httpx.AsyncClient(trust_env=False) as http:
        sent = {**_TALK, "Authorization": f"Bearer {TOKEN}", **headers}
        answer = await http.post(url, json=_HELLO, headers=sent)
    assert answer.status_code == status


async def test_the_door_is_open_to_programs_and_pages_of_this_machine(live: Live) -> None:
    async with served(live, token=TOKEN) as url, httpx.AsyncClient(trust_env=False) as http:
        for headers in (
            {},
            {"Origin": "http://localhost:6274"},
            {"Host": "localhost:1"},
            {"Host": "10.1.2.3"},
        ):
            sent = {**_TALK, "Authorization": f"Bearer {TOKEN}", **headers}
            answer = await http.post(url, json=_HELLO, headers=sent)
            assert answer.status_code not in (401, 403, 421), answer.text


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.startswith("babysea mcp: ")
    assert errors.count("\n") == 1
    return errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--base-url", "ftp://x"], "the base URL is one of http or https"),
        (["--max-credits", "-1"], "max credits is a number that is not negative"),
        (["--max-credits", "nan"], "max credits is a number"),
        (["--transport", "http", "--port", "65536"], "a port is 0 to 65535"),
        (["--transport", "http", "--host", "0.0.0.0"], "set BABYSEA_MCP_TOKEN"),
        (["--transport", "http", "--host", "::"], "opens the account to the network"),
        (["--transport", "http", "--token", "short"], "at least 16 printable"),
    ],
)
def test_options_that_make_no_sense_are_one_line(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BABYSEA_API_KEY", "bye_" + "k" * 40)
    monkeypatch.delenv("BABYSEA_MCP_TOKEN", raising=False)
    assert words in _run(arguments, capsys)


def test_without_a_key_nothing_is_served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BABYSEA_API_KEY", raising=False)
    assert "BABYSEA_API_KEY" in _run([], capsys)


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    assert "pip install 'babysea[mcp]'" in _run([], capsys)


def test_an_address_that_is_taken_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    monkeypatch.setenv("BABYSEA_API_KEY", "bye_" + "k" * 40)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "Address already in use" in _run(["--transport", "http", "--port", port], capsys)


def test_the_page_explains_every_tool_and_option_and_its_snippet_is_taken() -> None:
    text = page("docs/mcp.md")
    sections = headings(text)
    assert [row[0].strip("`") for row in rows(sections["Tools"])[1:]] == [tool.name for tool in TOOLS]
    options = {
        name for action in _parser()._actions for name in action.option_strings if name.startswith("--")
    }
    named = set(re.findall(r"--[a-z][a-z-]+", text))
    assert named == options - {"--help"}
    [snippet] = blocks(text, "json")
    server = json.loads(snippet)["mcpServers"]["babysea"]
    assert [server["command"], server["args"][0]] == ["babysea", "mcp"]
    assert _parser().parse_args(server["args"][1:]).max_credits == 1


def test_the_options_can_be_read_without_the_protocol() -> None:
    program = (
        "import sys, babysea.mcp; print(sorted({'mcp', 'httpx', 'pydantic', 'uvicorn'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
