"""What the package offers: complete, documented, typed, the same twice, and light to import."""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
from tests.docs.pages import ROOT
from tools.reference import FOLDER, pages

import babysea
from babysea import (
    AsyncBabySea,
    AsyncHealth,
    AsyncLibrary,
    BabySea,
    Health,
    Library,
    webhooks,
)

PAIRS: list[tuple[type, type]] = [(BabySea, AsyncBabySea), (Health, AsyncHealth), (Library, AsyncLibrary)]


def _methods(kind: type) -> dict[str, Any]:
    return {
        name: member
        for name, member in vars(kind).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def _public() -> Iterator[tuple[str, Any]]:
    for module in (babysea, webhooks):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield name, value


def test_everything_public_is_exported_and_nothing_else() -> None:
    names = {
        name
        for name, value in vars(babysea).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert names | {"__version__"} == set(babysea.__all__)
    assert list(babysea.__all__) == sorted(babysea.__all__)


@pytest.mark.parametrize(("name", "value"), [pytest.param(*one, id=one[0]) for one in _public()])
def test_everything_public_is_documented_and_annotated(name: str, value: Any) -> None:
    assert inspect.getdoc(value), name
    members = {name: value} if inspect.isfunction(value) else _methods(value)
    for member in members.values():
        assert member.__doc__, member.__qualname__
        hints = get_type_hints(member, vars(sys.modules["typing"]) | {"httpx": sys.modules.get("httpx")})
        parameters = set(inspect.signature(member).parameters) - {"self"}
        assert parameters | {"return"} <= hints.keys(), member.__qualname__


@pytest.mark.parametrize(("blocking", "awaiting"), PAIRS)
def test_both_clients_have_the_same_methods_with_the_same_texts(blocking: type, awaiting: type) -> None:
    def plain(text: str | None) -> str:
        same = (text or "").replace("await ", "").replace("async ", "").replace("aclose", "close")
        return same.replace("AsyncBabySea", "BabySea").replace("tasks at most", "threads at most")

    one, other = _methods(blocking), _methods(awaiting)
    assert [name.replace("aclose", "close") for name in other] == list(one)
    for (name, first), second in zip(one.items(), other.values(), strict=True):
        assert plain(second.__doc__) == first.__doc__, name
        here, there = inspect.signature(first), inspect.signature(second)
        assert here.parameters == there.parameters, name
        assert str(there.return_annotation).replace("Async", "") == str(here.return_annotation), name
        assert inspect.iscoroutinefunction(second) or inspect.isasyncgenfunction(second), name
    assert plain(awaiting.__doc__).replace("httpx.AsyncClient", "httpx.Client") == blocking.__doc__


@pytest.mark.parametrize("kind", [one for pair in PAIRS for one in pair])
def test_every_method_has_an_example(kind: type) -> None:
    assert [name for name, member in _methods(kind).items() if "Example:" not in str(member.__doc__)] == []


def _loaded_by(statement: str) -> set[str]:
    program = f"import json, sys; {statement}; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(run.stdout)}


def test_importing_it_loads_nothing_else() -> None:
    """The time that it takes is measured by `python -m bench.imports`."""
    before = _loaded_by("pass")
    assert _loaded_by("import babysea") - before - sys.stdlib_module_names <= {"babysea"}
    assert _loaded_by("import babysea.webhooks") - before - sys.stdlib_module_names <= {"babysea"}


def test_a_client_loads_httpx_and_nothing_of_the_commands() -> None:
    loaded = _loaded_by("import babysea; babysea.BabySea('bye_x'); babysea.AsyncBabySea('bye_x')")
    assert "httpx" in loaded
    loaded -= _loaded_by("import httpx")  # which imports rich for commands of its own
    assert loaded.isdisjoint({"typer", "rich", "mcp", "pydantic", "babysea_server"})


def test_the_reference_is_made_from_the_docstrings() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")} == pages()


def test_the_package_knows_its_own_version() -> None:
    assert f'version = "{babysea.__version__}"' in (ROOT / "sdk/pyproject.toml").read_text()
