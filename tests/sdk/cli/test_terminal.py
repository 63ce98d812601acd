"""What a person sees: progress, questions after Ctrl-C, narrow windows, colours, pictures."""

import signal

import pytest
from tests.sdk.cli.program import Environment, Program, Terminal
from tests.sdk.conftest import Live
from tests.support import eventually

SLOW = ("image", "sandbox/image", "x [sandbox:slow:60]", "-o", "x.png")


async def status(live: Live) -> str:
    """The status of the newest generation."""
    found: str = await live.deployment.db.fetchval(
        "SELECT status FROM generations ORDER BY created_at DESC, id DESC LIMIT 1"
    )
    return found


async def running(terminal: Terminal) -> None:
    """Wait until the progress shows that a provider has it."""
    await terminal.shows("processing by sandbox, ")


async def test_progress_shows_status_provider_time_and_cost(babysea: Program) -> None:
    async with babysea.terminal("image", "sandbox/image", "x [sandbox:slow:3]", "-o", "x.png") as terminal:
        await running(terminal)
        await terminal.shows("s, 0.")
        assert "credit" in terminal.text.split("processing")[1]
        assert await terminal.ended() == 0
        assert "processing" not in terminal.text, "the progress goes when it is over"
        rows = terminal.rows
    assert rows[0].startswith("sandbox/image: 0.")
    assert rows[-3].startswith("succeeded by sandbox in ")
    assert rows[-2].startswith("You were charged 0.")
    assert rows[-1] == "x.png"
    assert b"\x1b[?25h" in terminal.raw, "the cursor is there again"


async def test_ctrl_c_offers_to_cancel(babysea: Program, live: Live) -> None:
    before = await live.customer.balance()
    async with babysea.terminal(*SLOW) as terminal:
        await running(terminal)
        terminal.interrupt()
        await terminal.shows(
            "c cancel it; its credits come back k keep it running, and leave w wait on [c/k/w]?"
        )
        terminal.type("c\n")
        assert await terminal.ended() == 130
        assert "You were not charged." in terminal.text
    assert await status(live) == "canceled"
    assert await live.customer.balance() == before


async def test_ctrl_c_offers_to_leave_it_running(babysea: Program, live: Live) -> None:
    async with babysea.terminal(*SLOW) as terminal:
        await running(terminal)
        terminal.interrupt()
        await terminal.shows("[c/k/w]?")
        terminal.type("k\n")
        assert await terminal.ended() == 130
        told = terminal.text
    assert await status(live) == "processing"
    id = told.split("download ")[1].split()[0]
    assert f"`babysea download {id} -o x.png` waits for it and saves it." in told
    assert (await babysea("cancel", id)).code == 0


async def test_ctrl_c_offers_to_wait_on(babysea: Program, live: Live) -> None:
    async with babysea.terminal("image", "sandbox/image", "x [sandbox:slow:3]", "-o", "x.png") as terminal:
        await running(terminal)
        terminal.interrupt()
        await terminal.shows("[c/k/w]?")
        terminal.type("what?\nw\n")
        assert await terminal.ended() == 0
        assert terminal.rows[-1] == "x.png"
    assert await status(live) == "succeeded"


async def test_a_second_ctrl_c_leaves_at_once(babysea: Program, live: Live) -> None:
    async with babysea.terminal(*SLOW) as terminal:
        await running(terminal)
        terminal.interrupt()
        await terminal.shows("[c/k/w]?")
        terminal.interrupt()
        assert await terminal.ended() == 130
        assert "still running" in terminal.text
        assert "babysea download" in terminal.text
    assert await status(live) == "processing"


async def test_ctrl_c_without_a_terminal_asks_nobody(babysea: Program, live: Live) -> None:
    async with babysea.started(*SLOW) as process:

        async def begun() -> bool:
            return "processing" in process.err

        await eventually(begun)
        process.send(signal.SIGINT)
        result = await process.ended()
    assert result.code == 130
    assert "still running" in result.err
    assert "babysea download" in result.err
    assert await status(live) == "processing"


@pytest.mark.parametrize(
    "arguments",
    [
        ("image", "sandbox/image", "a very long story of a red fox [sandbox:slow:3]", "-o", "fox.png"),
        ("models", "sandbox"),
        ("models", "show", "sandbox/video"),
        ("get", "nothing"),
    ],
)
async def test_a_narrow_window_is_enough(babysea: Program, arguments: tuple[str, ...]) -> None:
    async with babysea.terminal(*arguments, columns=40) as terminal:
        await terminal.ended()
        assert all(len(row) <= 40 for row in terminal.rows)
        assert not any(mark in terminal.text for mark in "…│─"), "nothing is cut off or drawn"
        assert "Traceback" not in terminal.text


async def test_an_id_can_be_copied_from_a_narrow_window(babysea: Program, live: Live) -> None:
    made = await babysea("image", "sandbox/image", "a fox", "--no-wait")
    async with babysea.terminal("list", "-n", "1", columns=40) as terminal:
        assert await terminal.ended() == 0
        # The terminal wraps, not the program: selecting it gives the id in one piece.
        assert made.out.strip() in terminal.raw.decode()


async def test_colours_are_for_terminals_that_want_them(babysea: Program) -> None:
    async with babysea.terminal("get", "nothing") as terminal:
        assert await terminal.ended() == 2
        assert b"\x1b[1;31merror:" in terminal.raw
    async with babysea.terminal("get", "nothing", environment={"NO_COLOR": "1"}) as terminal:
        assert await terminal.ended() == 2
        assert b"\x1b[1;31m" not in terminal.raw
        assert b"[31m" not in terminal.raw
    piped = await babysea("get", "nothing")
    assert "\x1b" not in piped.err


async def test_a_table_is_drawn_where_it_fits(babysea: Program) -> None:
    async with babysea.terminal("models", "sandbox", columns=120) as terminal:
        assert await terminal.ended() == 0
        head, *rows = terminal.rows
    assert head.split() == ["model", "makes", "credits", "providers"]
    assert {row.split()[0] for row in rows} >= {"sandbox/image", "sandbox/video"}


@pytest.mark.parametrize(
    ("environment", "sent"),
    [
        ({"KITTY_WINDOW_ID": "1"}, b"\x1b_Gf=100,a=T,"),
        ({"TERM": "xterm-kitty"}, b"\x1b_Gf=100,a=T,"),
        ({"TERM_PROGRAM": "iTerm.app"}, b"\x1b]1337;File="),
        ({"TERM_PROGRAM": "WezTerm"}, b"\x1b]1337;File="),
        ({"TERM_PROGRAM": "WezTerm", "TMUX": "/tmp/x"}, b""),
        ({}, b""),
    ],
)
async def test_pictures_are_shown_where_the_terminal_says_it_can(
    babysea: Program, environment: Environment, sent: bytes
) -> None:
    async with babysea.terminal(
        "image", "sandbox/image", "a fox", "-o", "fox.png", environment=environment
    ) as terminal:
        assert await terminal.ended() == 0
        marks = [mark for mark in (b"\x1b_G", b"\x1b]1337") if mark in terminal.raw]
        assert marks == ([sent[: len(marks[0])]] if sent else [])
        assert sent in terminal.raw


async def test_pictures_are_not_shown_when_piped_or_unwanted(babysea: Program) -> None:
    piped = await babysea(
        "image", "sandbox/image", "a fox", "--show", "-o", "a.png", environment={"TERM_PROGRAM": "WezTerm"}
    )
    assert piped.out == "a.png\n"
    unwanted = babysea.terminal(
        "image", "sandbox/image", "a fox", "--no-show", "-o", "b.png", environment={"KITTY_WINDOW_ID": "1"}
    )
    async with unwanted as terminal:
        assert await terminal.ended() == 0
        assert b"\x1b_G" not in terminal.raw
