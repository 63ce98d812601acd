"""What the pages say is so: links lead somewhere, commands exist, tables match what they describe."""

import html
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.docs.pages import PAGES, ROOT, SERVER, anchors, code, functions, headings, links, page, rows

from babysea_server.cli.main import app
from babysea_server.contract.error_page import error_page
from babysea_server.settings import describe, load_settings

_IDS = [str(path.relative_to(ROOT)) for path in PAGES]


@pytest.mark.parametrize("path", PAGES, ids=_IDS)
def test_every_relative_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    def leads_somewhere(link: str) -> bool:
        name, _, fragment = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.is_relative_to(ROOT) or not target.exists():
            return False
        return not fragment or fragment in anchors(target.read_text(encoding="utf-8"))

    relative = [
        link
        for link in links(path.read_text(encoding="utf-8"))
        if not link.startswith(("https://", "mailto:"))
    ]
    assert [link for link in relative if not leads_somewhere(link)] == []


def _leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    context = command.make_context(None, [], resilient_parsing=True)
    for name in command.list_commands(context):
        yield from _leaves(command.get_command(context, name), (*path, name))


def _options(command: Any) -> set[str]:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    return {option for parameter in shown for option in parameter.opts if option.startswith("--")}


COMMANDS = dict(_leaves(typer.main.get_command(app)))


def _calls(program: str, text: str) -> Iterator[list[str]]:
    """The arguments of each call of `program` in a page's code, as far as the shell would hand them over."""
    for line in code(text):
        for match in re.finditer(rf"(?:^|[\s/(]){re.escape(program)}(?= |$)([^|&;()]*)", line):
            yield shlex.split(match[1].replace("...", ""), comments=True)


def test_the_pages_name_only_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z]+):", page("Makefile"), re.MULTILINE))
    named = {
        word
        for path in PAGES
        for call in _calls("make", path.read_text(encoding="utf-8"))
        for word in call
        if "=" not in word
    }
    assert {"up", "test"} <= named
    assert named <= targets


def test_the_pages_name_only_commands_and_options_that_exist() -> None:
    wrong, named = [], set()
    for path in PAGES:
        for call in _calls("babysea-server", path.read_text(encoding="utf-8")):
            if not call:
                continue
            words = tuple(word for word in call[:2] if re.fullmatch("[a-z][a-z-]*", word))
            found = next((words[:length] for length in (2, 1) if words[:length] in COMMANDS), None)
            if found is None:
                wrong.append(" ".join(call))
                continue
            named.add(found)
            given = {word.partition("=")[0] for word in call if word.startswith("--")}
            wrong += [f"{' '.join(found)} {option}" for option in given - _options(COMMANDS[found])]
    assert wrong == []
    assert named == set(COMMANDS)


def test_the_page_of_commands_explains_every_option_of_every_command() -> None:
    text = page("docs/cli.md")
    sections = headings(text)
    shared = {row[0].strip("`") for row in rows(sections["Commands"])}
    missing = []
    for path, command in COMMANDS.items():
        section = sections.get(f"`babysea-server {' '.join(path)}`")
        if section is None:
            missing.append(" ".join(path))
            continue
        missing += [
            f"{' '.join(path)} {option}"
            for option in sorted(_options(command) - shared)
            if f"`{option}`" not in section
        ]
    assert missing == []


def _shown(default: Any) -> str:
    if default in (None, {}, ()):
        return "none"
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_page_of_settings_has_each_setting_as_it_is() -> None:
    expected = [
        [
            f"`{row['name']}`",
            f"`{row['environment']}`",
            _shown(row["default"]),
            html.escape(row["description"], quote=False).replace("&gt;", ">"),
        ]
        for row in describe(load_settings({}, overrides={"data_dir": ".data"}))
    ]
    written = [row for row in rows(page("docs/settings.md")) if row[0].startswith("`")]
    assert sorted(written) == sorted(expected)


def test_the_page_of_errors_is_made_from_the_table() -> None:
    assert page("docs/errors.md") == error_page()


def test_the_architecture_names_every_package_once() -> None:
    named = [
        name
        for row in rows(headings(page("docs/architecture.md"))["The packages"])
        for name in re.findall(r"`(\w+)`", row[0])
    ]
    modules = {path.stem for path in SERVER.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in SERVER.glob("*/__init__.py")}
    assert sorted(named) == sorted(modules | packages)


def test_the_invariants_name_only_tests_and_files_that_exist() -> None:
    text = page("docs/invariants.md")
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert tests
    missing = [
        f"{file}::{name}"
        for file, name in tests
        if not (ROOT / file).exists() or name not in functions(ROOT / file)
    ]
    assert missing == []
    promises = [row[0] for row in rows(text) if row[0].isdigit()]
    assert promises == [str(number) for number in range(1, 13)]


def test_the_index_of_decisions_lists_all_of_them() -> None:
    pages = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    assert links(page("docs/decisions/README.md")) == pages
