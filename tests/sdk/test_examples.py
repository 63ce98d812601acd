"""Examples are run as they are written: those of docstrings, of the README, and of the page."""

import ast
import asyncio
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import blocks, page
from tests.sdk.conftest import Live

import babysea
from babysea import AsyncBabySea, AsyncHealth, AsyncLibrary, BabySea, Health, Job, Library, Outcome


def _examples(*kinds: type) -> Iterator[Any]:
    for kind in kinds:
        for member in (kind, *vars(kind).values()):
            if (inspect.isfunction(member) or member is kind) and "Example:" in (member.__doc__ or ""):
                text = inspect.cleandoc(str(member.__doc__)).partition("Example:\n")[2]
                yield pytest.param(textwrap.dedent(text), id=member.__qualname__)


@pytest.fixture(autouse=True)
def environment(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader has: a server, its address and a key in the environment, and a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BABYSEA_API_KEY", live.customer.key)
    monkeypatch.setenv("BABYSEA_BASE_URL", live.base_url)


@pytest.mark.parametrize("example", list(_examples(BabySea, Health, Library, Job, Outcome)))
async def test_an_example_of_a_docstring_runs(example: str) -> None:
    def run() -> None:
        with BabySea() as client:
            exec(compile(example, "example", "exec"), {**vars(babysea), "client": client})

    await asyncio.to_thread(run)


@pytest.mark.parametrize("example", list(_examples(AsyncBabySea, AsyncHealth, AsyncLibrary)))
async def test_an_example_that_awaits_runs(example: str) -> None:
    code = compile(example, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with AsyncBabySea() as client:
        result = eval(code, {**vars(babysea), "client": client})
        if inspect.iscoroutine(result):
            await result


@pytest.mark.parametrize("name", ["sdk/README.md", "docs/sdk.md"])
async def test_the_programs_of_a_page_run_one_after_the_other(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    program = "\n".join(blocks(page(name), "python"))
    assert program

    def run() -> None:
        exec(compile(program, name, "exec"), {"__name__": "__main__"})

    await asyncio.to_thread(run)
    printed = capfd.readouterr().out
    assert ".png" in printed or ".jpg" in printed or ".webp" in printed
    if name == "sdk/README.md":
        assert "change generation_ratio - " in printed
        assert "True" in printed, "the second order-1001 is the first again"


def test_the_first_picture_takes_five_lines() -> None:
    first = blocks(page("sdk/README.md"), "python")[0]
    assert len(first.strip().splitlines()) <= 5
