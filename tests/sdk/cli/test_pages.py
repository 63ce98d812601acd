"""The page of the command line: every command and option, and none that does not exist."""

import re
from collections.abc import Iterator
from typing import Any

import typer
from tests.docs.pages import code, headings, page

from babysea.cli.app import build
from babysea.cli.session import _SHARED

PAGE = "docs/babysea-cli.md"
COMMANDS: dict[str, Any] = vars(typer.main.get_command(build()))["commands"]


def options(command: Any) -> set[str]:
    return {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }


SHARED = options(COMMANDS["status"])


def calls() -> Iterator[list[str]]:
    """The words after `babysea` wherever the page calls it."""
    for line in code(page(PAGE)):
        if match := re.match(r"babysea(?: (.*))?$", line.strip()):
            yield (match[1] or "").split()


def test_the_page_explains_every_option_of_every_command() -> None:
    sections = headings(page(PAGE))
    assert len(SHARED) == len(_SHARED)
    assert all(f"`{option}`" in sections["Options of every command"] for option in SHARED)
    missing = [
        f"{name} {option}"
        for name, command in COMMANDS.items()
        for option in sorted(options(command) - SHARED)
        if f"`{option}`" not in sections[f"`babysea {name}`"]
    ]
    assert missing == []


def test_the_page_names_only_commands_and_options_that_exist() -> None:
    wrong, named = [], set()
    for words in calls():
        name = next((word for word in words if not word.startswith("-")), None)
        if name is None:
            continue
        named.add(name)
        known = options(COMMANDS[name]) if name in COMMANDS else set()
        wrong += [f"{name} {word}" for word in words if word.startswith("--") and word not in known]
    assert wrong == []
    assert named == set(COMMANDS)


def test_every_command_has_a_short_help() -> None:
    short = {name: command.get_short_help_str(62) for name, command in COMMANDS.items()}
    assert not [name for name, text in short.items() if not text or text.endswith("...")]
