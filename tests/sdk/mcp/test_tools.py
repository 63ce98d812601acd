"""Every tool, by the protocol SDK's own client over HTTP, against a real server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from tests.sdk.conftest import Live
from tests.sdk.mcp.assistants import IMAGE, SLOW, VIDEO, Assistant, assisted, over_http, served
from tests.support import eventually, make_account

from babysea.mcp import _pictures


@pytest.fixture(scope="module")
async def url(live: Live) -> AsyncIterator[str]:
    async with served(live) as url:
        yield url


@pytest.fixture
def connect(url: str) -> Any:
    return lambda mode="auto": assisted(Client(url, mode=mode))


async def _files(links: list[Any]) -> list[bytes]:
    async with httpx.AsyncClient(trust_env=False) as http:
        return [(await http.get(link.uri)).raise_for_status().content for link in links]


async def test_tools_say_what_they_change_and_what_they_give(connect: Any) -> None:
    async with connect() as assistant:
        tools = {tool.name: tool for tool in (await assistant.client.list_tools()).tools}
    changing = {name for name, tool in tools.items() if not tool.annotations.read_only_hint}
    assert changing == {"generate", "cancel_generation"}
    assert [name for name, tool in tools.items() if tool.annotations.destructive_hint] == [
        "cancel_generation"
    ]
    assert [name for name, tool in tools.items() if not tool.annotations.idempotent_hint] == ["generate"]
    for tool in tools.values():
        assert tool.description
        assert tool.title
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema["type"] == "object"
        assert all(one.get("description") for one in tool.input_schema["properties"].values())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_generated_picture_comes_itself_byte_for_byte_with_its_link_and_cost(
    connect: Any, mode: str
) -> None:
    async with connect(mode) as assistant:
        answer = await assistant.call(
            "generate", model=IMAGE, prompt="a fox", inputs={"output_number": 2, "generation_ratio": "16:9"}
        )
    assert answer.data["status"] == "succeeded"
    assert answer.data["cost"] == answer.data["charged"] == 0.002
    assert "limit_left" not in answer.data
    assert [link.uri for link in answer.links] == answer.data["links"]
    assert [link.mime_type for link in answer.links] == ["image/png"] * 2
    assert answer.pictures == await _files(answer.links)
    assert all(picture.startswith(b"\x89PNG") for picture in answer.pictures)


async def test_inputs_may_come_as_the_text_of_an_object(connect: Any) -> None:
    async with connect() as assistant:
        answer = await assistant.call(
            "generate", model=IMAGE, prompt="a fox", inputs='{"output_number": 2.0}'
        )
    assert answer.data["cost"] == 0.002


async def test_pictures_that_do_not_fit_into_an_answer_are_links(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect() as assistant:
        first = await assistant.call("generate", model=IMAGE, prompt="a fox", inputs={"output_number": 2})
        monkeypatch.setattr(_pictures, "PICTURES_MAX_BYTES", len(first.pictures[0]))
        again = await assistant.call("get_generation", generation_id=first.data["generation_id"])
    assert again.pictures == first.pictures[:1]
    assert len(again.links) == 2
    assert again.data["note"].startswith("1 of 2 files are too large")


async def test_pictures_that_cannot_be_fetched_leave_the_links(
    connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pictures, "_FETCH_MAX_BYTES", 10)
    async with connect() as assistant:
        answer = await assistant.call("generate", model=IMAGE, prompt="a fox")
    assert answer.data["status"] == "succeeded"
    assert answer.pictures == []
    assert len(await _files(answer.links)) == 1
    assert "could not be read" in answer.data["note"]


async def test_a_video_is_a_link(connect: Any) -> None:
    async with connect() as assistant:
        inputs = {"duration": 1, "resolution": "360p", "generate_audio": True}
        answer = await assistant.call("generate", model=VIDEO, prompt="waves", inputs=inputs)
    assert answer.pictures == []
    assert [link.mime_type for link in answer.links] == ["video/mp4"]
    assert answer.data["cost"] == 0.001
    assert (await _files(answer.links))[0][4:8] == b"ftyp"


@pytest.mark.parametrize("model", [IMAGE, VIDEO])
async def test_the_example_of_a_model_works(connect: Any, model: str) -> None:
    async with connect() as assistant:
        details = (await assistant.call("get_model", model=model)).data
        answer = await assistant.call("generate", **details["example"])
    assert answer.data["status"] == "succeeded"
    inputs = {one["name"]: one for one in details["inputs"]}
    assert {"prompt", "ratio", "output_number", "seed", "provider_order"} <= inputs.keys()
    assert details["providers"] == ["sandbox"]
    if model == VIDEO:
        assert inputs["duration"]["required"]
        assert inputs["generate_audio"]["values"] == [False, True]


async def test_models_are_found_by_words_and_kind(connect: Any) -> None:
    async with connect() as assistant:
        everything = (await assistant.call("list_models")).data
        videos = (await assistant.call("list_models", media="video", search="Sandbox")).data
        nothing = (await assistant.call("list_models", search="no such model")).data
    assert everything["total"] >= len(everything["models"]) > 2
    assert [line["model"] for line in videos["models"]] == [VIDEO]
    assert videos["models"][0]["price"]["720p_audio"] == 0.003
    assert nothing == {"total": 0, "models": []}


async def test_an_estimate_is_what_is_then_charged(connect: Any) -> None:
    inputs = {"duration": 2, "resolution": "480p"}
    async with connect() as assistant:
        estimate = (await assistant.call("estimate", model=VIDEO, audio=True, **inputs)).data
        inputs["generate_audio"] = True
        answer = await assistant.call("generate", model=VIDEO, prompt="waves", inputs=inputs)
    assert estimate["cost"] == estimate["cost_each"] == answer.data["charged"] == 0.003
    assert (estimate["seconds"], estimate["resolution"], estimate["affordable"]) == (2, "480p", True)


async def test_a_generation_that_is_not_waited_for_is_read_later(live: Live, connect: Any) -> None:
    async with connect() as assistant:
        begun = await assistant.call("generate", model=IMAGE, prompt="a fox", wait=False)
        assert begun.data["status"] == "pending"
        assert "charged" not in begun.data
        id = begun.data["generation_id"]
        await live.customer.finished(id)
        read = await assistant.call("get_generation", generation_id=id)
        bare = await assistant.call("get_generation", generation_id=id, pictures=False)
        page = (await assistant.call("list_generations", limit=1)).data
    assert read.data["status"] == "succeeded"
    assert read.pictures == await _files(read.links)
    assert bare.pictures == []
    assert len(bare.links) == 1
    assert [one["generation_id"] for one in page["generations"]] == [id]
    assert page["total"] >= 1
    assert "links" not in page["generations"][0]


async def test_one_that_takes_too_long_goes_on_and_can_be_canceled(connect: Any) -> None:
    async with connect() as assistant:
        answer = await assistant.call("generate", model=IMAGE, prompt=SLOW, timeout_s=0.1)
        assert answer.data["status"] in ("pending", "processing")
        assert "still running" in answer.data["note"]
        id = answer.data["generation_id"]
        canceled = await assistant.call("cancel_generation", generation_id=id)
        again = await assistant.call("cancel_generation", generation_id=id)
    assert canceled.data == {"generation_id": id, "status": "canceled", "credits_refunded": 0.001}
    assert "BSE3002" in again.error


async def test_a_failed_generation_is_an_error_that_tells_of_the_refund(live: Live, connect: Any) -> None:
    before = await live.customer.balance()
    async with connect() as assistant:
        error = (await assistant.call("generate", model=IMAGE, prompt="x [sandbox:refuse_policy]")).error
    assert "BSE2006" in error
    assert "request req_" in error
    assert "The generation is " in error
    assert "Its credits were returned." in error
    assert await live.customer.balance() == before


async def test_the_balance_is_the_accounts(live: Live, connect: Any) -> None:
    async with connect() as assistant:
        balance = (await assistant.call("account_balance")).data
    assert balance == {"balance": await live.customer.balance() / 1_000_000, "plan": "unlimited"}


async def test_progress_names_the_generation_before_anything_else(connect: Any) -> None:
    async with connect() as assistant:
        answer = await assistant.call("generate", model=IMAGE, prompt="a fox")
    passed, sentence = assistant.progress[0]
    assert passed == 0
    assert sentence == f"Generation {answer.data['generation_id']} was accepted; 0.001 credits are reserved."


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("generate", {"prompt": "x"}, "generate needs the argument `model`."),
    ("generate", {"model": IMAGE, "ratio": "1:1"}, "no argument `ratio`. The model's own inputs go into"),
    (
        "generate",
        {"model": IMAGE, "inputs": "no object"},
        "`inputs` of generate is wrong: input should be",
    ),
    ("generate", {"model": IMAGE, "timeout_s": 901}, "`timeout_s` of generate is wrong: input should be"),
    ("generate", {"model": IMAGE, "inputs": {"model": "x"}}, "`model` does not belong into `inputs`"),
    ("generate", {"model": IMAGE, "prompt": "x", "inputs": {"generation_prompt": "y"}}, "given twice"),
    ("generate", {"model": IMAGE, "prompt": "x", "inputs": {"ratoi": "1:1"}}, "generation_ratio"),
    ("generate", {"model": IMAGE, "prompt": "x", "inputs": {"output_number": 9}}, "BSE2001"),
    ("generate", {"model": IMAGE, "prompt": "x", "inputs": {"output_number": -1}}, "BSE2001"),
    ("generate", {"model": IMAGE, "prompt": "x", "inputs": {"output_number": True}}, "BSE2001"),
    ("generate", {"model": VIDEO, "prompt": "x", "inputs": {"duration": "5"}}, "BSE2001"),
    ("generate", {"model": VIDEO, "prompt": "x"}, "generation_duration"),
    ("generate", {"model": "no/such", "prompt": "x"}, "list_models tells what there is."),
    ("generate", {"model": "nonsense", "prompt": "x"}, "get_model tells what the model takes."),
    ("get_model", {"model": "sandbox/imagine"}, "list_models tells what there is."),
    ("estimate", {"model": VIDEO, "duration": 99}, "BSE2001"),
    ("estimate", {"model": VIDEO, "count": 0}, "`count` of estimate is wrong"),
    ("get_generation", {"generation_id": "1"}, "UUID"),
    (
        "get_generation",
        {"generation_id": "00000000-0000-7000-8000-000000000000"},
        "list_generations tells",
    ),
    ("cancel_generation", {"generation_id": "00000000-0000-7000-8000-000000000000"}, "BSE3001"),
    ("list_generations", {"limit": 101}, "`limit` of list_generations is wrong"),
    (
        "list_models",
        {"media": "music"},
        "`media` of list_models is wrong: input should be 'image' or 'video'",
    ),
    ("account_balance", {"currency": "EUR"}, "account_balance has no argument `currency`."),
]


async def test_what_is_wrong_is_said_in_a_sentence(connect: Any) -> None:
    async with connect() as assistant:
        said = [(await assistant.call(tool, **arguments)).error for tool, arguments, _ in WRONG]
    assert [
        (words, error) for (_, _, words), error in zip(WRONG, said, strict=True) if words not in error
    ] == []


async def test_a_tool_that_does_not_exist_is_refused(connect: Any) -> None:
    async with connect() as assistant:
        with pytest.raises(MCPError, match=r"There is no tool make_coffee\."):
            await assistant.call("make_coffee")


async def test_a_wrong_key_is_told_and_not_shown(live: Live) -> None:
    key = "bye_" + "wrongkey" * 5
    async with over_http(live, key=key) as assistant:
        error = (await assistant.call("account_balance")).error
    assert "BSE1002" in error
    assert "request req_" in error
    assert "BABYSEA_API_KEY" in error
    assert key not in error
    assert key[4:] not in error


async def test_an_account_without_credits_is_told_what_to_do(live: Live) -> None:
    _, key = await make_account(live.deployment.db, credits="0")
    async with over_http(live, key=key) as assistant:
        error = (await assistant.call("generate", model=IMAGE, prompt="a fox")).error
    assert "BSE1004" in error
    assert "ask the user to add credits" in error


async def test_too_many_generations_in_flight_are_told_to_wait(live: Live) -> None:
    _, key = await make_account(live.deployment.db, plan="free")
    async with over_http(live, key=key, max_retries=0) as assistant:
        ids = [
            (await assistant.call("generate", model=IMAGE, prompt=SLOW, wait=False)).data["generation_id"]
            for _ in range(2)
        ]
        error = (await assistant.call("generate", model=IMAGE, prompt="a fox")).error
        for id in ids:
            await assistant.call("cancel_generation", generation_id=id)
    assert "BSE1009" in error
    assert "until generations in flight have ended" in error


async def test_a_server_that_only_reads_has_no_tools_that_change_anything(live: Live) -> None:
    async with over_http(live, read_only=True) as assistant:
        names = {tool.name for tool in (await assistant.client.list_tools()).tools}
        for name in ("generate", "cancel_generation"):
            with pytest.raises(MCPError, match="There is no tool"):
                await assistant.call(name, model=IMAGE, prompt="a fox")
        assert (await assistant.call("account_balance")).data["balance"] > 0
    assert names == {
        "list_models", "get_model", "estimate", "get_generation", "list_generations", "account_balance"
    }  # fmt: skip


async def _canceled_while_waiting(assistant: Assistant) -> str:
    """Cancels the call of `generate` once its generation is known; returns that one's id."""
    call = asyncio.create_task(assistant.call("generate", model=IMAGE, prompt=SLOW, timeout_s=600))
    await assistant.told.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    return assistant.progress[0][1].split()[1]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_canceled_call_stops_waiting_and_its_generation_goes_on(
    live: Live, connect: Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(mode) as assistant:
        id = await _canceled_while_waiting(assistant)

        async def told() -> bool:
            return f"generation {id} goes on, though its tool call was canceled" in caplog.text

        assert await eventually(told)
        status = (await assistant.call("get_generation", generation_id=id)).data["status"]
        assert status in ("pending", "processing")
        await assistant.call("cancel_generation", generation_id=id)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_canceled_call_cancels_its_generation_where_that_is_wished(live: Live, mode: str) -> None:
    before = await live.customer.balance()
    async with over_http(live, mode, cancel_on_abort=True) as assistant:
        id = await _canceled_while_waiting(assistant)
        assert (await live.customer.finished(id))["generation_status"] == "canceled"
    assert await live.customer.balance() == before
