"""`image`, `video` and `download` with their streams piped: what is made, saved, charged and said."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.sdk.cli.program import Program
from tests.sdk.conftest import Live
from tests.support import make_customer


async def generations(live: Live) -> int:
    count: int = await live.deployment.db.fetchval("SELECT count(*) FROM generations")
    return count


async def test_a_picture_is_estimated_made_saved_and_charged(babysea: Program, live: Live) -> None:
    before = await live.customer.balance()
    made = await babysea(
        "image", "sandbox/image", "a red fox", "--ratio", "16:9", "-i", "seed=7", "-o", "out/fox.webp"
    )
    assert made.code == 0, made.err
    assert made.out == "out/fox.webp\n"
    assert (babysea.folder / "out/fox.webp").read_bytes()[8:12] == b"WEBP"
    paid = (before - await live.customer.balance()) / 1_000_000
    first, *_, how, charge = made.err.splitlines()
    assert first.startswith(f"sandbox/image: {paid:g} credit")
    assert how.startswith("succeeded by sandbox in ")
    assert charge == f"You were charged {paid:g} credits."
    assert "\x1b" not in made.out + made.err
    newest = (await babysea("list", "-n", "1", "--json")).json["generations"][0]
    assert newest["generation_ratio"] == "16:9"
    assert newest["generation_output_format"] == "webp"


async def test_several_pictures_are_numbered(babysea: Program) -> None:
    made = await babysea("image", "sandbox/image", "foxes", "-n", "2", "-o", "fox.png")
    assert made.out.splitlines() == ["fox-1.png", "fox-2.png"]
    again = await babysea("image", "sandbox/image", "foxes", "-n", "2", "-o", "fox.png")
    assert again.code == 2
    assert "fox-1.png is there already" in again.err


async def test_programs_get_one_document(babysea: Program) -> None:
    made = (await babysea("image", "sandbox/image", "a fox", "--json")).json
    assert made["generation"]["generation_status"] == "succeeded"
    assert made["charged"] > 0
    (name,) = made["files"]
    assert (babysea.folder / name).exists()


async def test_a_clip_has_the_shortest_length_unless_told(babysea: Program) -> None:
    made = await babysea("video", "sandbox/video", "waves", "-o", "waves.mp4", "--json")
    assert made.json["files"] == ["waves.mp4"]
    shortest = made.json["generation"]["generation_duration"]
    shown = (await babysea("models", "show", "sandbox/video", "--json")).json
    assert shortest == min(shown["schema"]["generation_duration"])
    assert b"ftyp" in (babysea.folder / "waves.mp4").read_bytes()[:12]


async def test_what_failed_is_not_charged(babysea: Program, live: Live) -> None:
    before = await live.customer.balance()
    failed = await babysea("image", "sandbox/image", "x [sandbox:refuse_policy]", "-o", "x.png")
    assert failed.code == 1
    error, hint = failed.err.splitlines()[-2:]
    assert error.startswith("error: ")
    assert "(BSE2006, request req_" in error
    assert f"{error} {hint}".count("You were not charged.") == 1
    assert await live.customer.balance() == before
    assert not (babysea.folder / "x.png").exists()


async def test_an_empty_account_is_told_so(babysea: Program, live: Live) -> None:
    poor = await make_customer(live.deployment, credits="0")
    refused = await babysea("image", "sandbox/image", "a fox", environment={"BABYSEA_API_KEY": poor.key})
    assert refused.code == 1
    assert "BSE1004" in refused.err
    assert "You were not charged. `babysea usage` shows the balance." in refused.err


async def test_a_key_that_may_only_generate_does_so_without_an_estimate(babysea: Program, live: Live) -> None:
    maker = await make_customer(live.deployment, scopes=["generation:write", "generation:read"])
    made = await babysea(
        "image", "sandbox/image", "a fox", "-o", "fox.png", environment={"BABYSEA_API_KEY": maker.key}
    )
    assert (made.code, made.out) == (0, "fox.png\n"), made.err
    assert "No estimate" in made.err
    assert "charged" not in made.err


async def test_the_same_key_buys_nothing_twice(babysea: Program, live: Live) -> None:
    order = ("image", "sandbox/image", "a fox", "--idempotency-key", "order-7")
    first = await babysea(*order, "-o", "a.png")
    bought = await generations(live)
    again = await babysea(*order, "-o", "b.png")
    assert (first.code, again.code) == (0, 0)
    assert await generations(live) == bought
    assert "nothing was bought again" in again.err
    assert (babysea.folder / "a.png").read_bytes() == (babysea.folder / "b.png").read_bytes()


@asynccontextmanager
async def losing_answers(port: int) -> AsyncIterator[str]:
    """A way to the server on which no answer to a generation comes through."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: (\d+)", head.lower())
                back.write(head + await reader.readexactly(int(length[1]) if length else 0))
                answer = await there.readuntil(b"\r\n\r\n")
                size = re.search(rb"content-length: (\d+)", answer.lower())
                assert size is not None
                body = await there.readexactly(int(size[1]))
                if b"POST /v1/generate" in head:
                    break
                writer.write(answer + body)
        except asyncio.IncompleteReadError:
            pass
        finally:
            back.close()
            writer.close()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_when_the_answer_is_lost_the_error_says_how_to_have_it_without_buying_again(
    babysea: Program, live: Live
) -> None:
    before = await generations(live)
    async with losing_answers(live.port) as address:
        lost = await babysea(
            "image", "sandbox/image", "a fox", "--json", environment={"BABYSEA_BASE_URL": address}
        )
    assert lost.code == 1
    key = json.loads(lost.out)["error"]["idempotency_key"]
    assert f"with --idempotency-key {key} buys nothing twice" in lost.err
    assert (await babysea("image", "sandbox/image", "a fox", "--idempotency-key", key)).code == 0
    assert await generations(live) == before + 1


async def test_an_assistant_is_served_with_the_same_login(babysea: Program) -> None:
    facts = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": facts}
    served = await babysea("mcp", "--read-only", stdin=json.dumps(hello) + "\n")
    assert served.code == 0, served.err
    assert served.lines[0]["result"]["serverInfo"]
    assert (await babysea("mcp", "--transport", "http", "--host", "0.0.0.0")).code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("image", "sandbox/video", "x"), "sandbox/video makes videos"),
        (("video", "sandbox/image", "x"), "sandbox/image makes images"),
        (("image", "sandbox/image", "x", "-o", "there.png"), "there.png is there already"),
        (("image", "sandbox/image", "x", "-o", "x.mp4"), "x.mp4 does not end like what is made"),
        (("image", "sandbox/image", "x", "--format", "png", "-o", "x.jpg"), "does not end like what is made: png"),
        (("image", "sandbox/image", "x", "-i", "ratio"), "'ratio' is not an input"),
        (("image", "sandbox/image", "x", "-i", "prompt=y"), "generation_prompt is given twice"),
        (("image", "sandbox/image", "x", "--idempotency-key", "ä"), "an idempotency key is"),
        (("image", "SANDBOX", "x"), "a model is identified by"),
    ],
)  # fmt: skip
async def test_what_cannot_work_is_refused_before_anything_is_bought(
    babysea: Program, live: Live, arguments: tuple[str, ...], said: str
) -> None:
    (babysea.folder / "there.png").touch()
    before = await generations(live)
    refused = await babysea(*arguments)
    assert (refused.code, refused.out) == (2, ""), refused
    assert said in refused.err
    assert await generations(live) == before


async def test_a_wrong_input_is_named(babysea: Program) -> None:
    refused = await babysea("image", "sandbox/image", "x", "-i", "ratoi=1:1")
    assert refused.code == 1
    assert "BSE2001" in refused.err
    assert "generation_ratio" in refused.err
    assert "babysea models show" in refused.err


async def test_files_that_cannot_be_saved_can_be_had_later(babysea: Program) -> None:
    made = await babysea("image", "sandbox/image", "a fox", "--no-wait")
    id = made.out.strip()
    assert (await babysea("download", id, "-o", "x.png")).code == 0
    taken = await babysea("download", id, "-o", "x.png")
    assert taken.code == 2
    assert (await babysea("download", id, "-o", "x.png", "--overwrite")).code == 0
    inside = await babysea("download", id, "-o", "x.png/y.png")
    assert inside.code == 1
    assert inside.err.startswith("error: ")


async def test_waiting_has_an_end_and_loses_nothing(babysea: Program) -> None:
    made = await babysea("image", "sandbox/image", "x [sandbox:slow:60]", "--timeout", "1", "--json")
    error = json.loads(made.out)["error"]
    assert made.code == 1
    assert "still running" in made.err
    assert f"`babysea download {error['generation_id']}` waits for it" in made.err
    assert (await babysea("cancel", error["generation_id"])).code == 0
    gone = await babysea("download", error["generation_id"])
    assert gone.code == 1
    assert "canceled" in gone.err


async def test_the_folder_may_be_named(babysea: Program) -> None:
    made = await babysea("image", "sandbox/image", "a fox", "-o", "pictures")
    path = Path(made.out.strip())
    assert path.parent == Path("pictures")
    assert (babysea.folder / path).exists()
