"""`docs/reference/python/`, made from the docstrings of `babysea`: `python -m tools.reference`."""

import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import babysea
from babysea import _errors, _types, webhooks

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference" / "python"

_MADE = "Made from the docstrings by `python -m tools.reference`.\n"
_SECTION = re.compile(r"^(Raises|Attributes|Example):$", re.MULTILINE)
_ITEM = re.compile(r"^    (\w[\w, ]*): ", re.MULTILINE)


def pages() -> dict[str, str]:
    """The text of each page, by its file's name."""
    answers = [one for one in _public(babysea) if one.__module__ == _types.__name__]
    jobs = [babysea.Job, babysea.Outcome, babysea.Record]
    errors = [one for one in _public(babysea) if one.__module__ == _errors.__name__]
    return {
        "client.md": _page("The clients", _clients()),
        "types.md": _page("Types", _entries([*jobs, *answers])),
        "errors.md": _page("Errors", [_tree(), *_entries(errors)]),
        "webhooks.md": _page("Webhooks", [_prose(webhooks), *_entries(_public(webhooks))]),
    }


def _page(title: str, parts: Any) -> str:
    return "\n".join([f"# {title}\n", _MADE, *parts]).rstrip("\n") + "\n"


def _public(module: Any) -> list[Any]:
    values = [getattr(module, name) for name in module.__all__]
    return [value for value in values if inspect.isclass(value) or inspect.isfunction(value)]


def _clients() -> Iterator[str]:
    yield "`AsyncBabySea` has the same methods with the same arguments, to be awaited; `aclose` closes it.\n"
    yield from _entries([babysea.BabySea])
    yield from _members(babysea.BabySea, "client")
    yield from _members(babysea.Health, "client.health")
    yield from _members(babysea.Library, "client.library")


def _members(kind: type, called: str) -> Iterator[str]:
    for name, member in vars(kind).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            yield f"## `{called}.{name}`\n"
            yield _block(f"{called}.{name}{_signature(member)}")
            yield _prose(member)


def _entries(values: list[Any]) -> Iterator[str]:
    for value in values:
        yield f"## `{value.__name__}`\n"
        if inspect.isfunction(value) or ("__init__" in vars(value) and not _is_plain(value)):
            yield _block(f"{value.__name__}{_signature(value)}")
        yield _prose(value)
        if is_dataclass(value):
            yield from _fields(value)


def _is_plain(kind: type) -> bool:
    return is_dataclass(kind) or issubclass(kind, BaseException)


def _fields(kind: Any) -> Iterator[str]:
    own = [one for one in fields(kind) if one.name not in ("extra", "raw", "request_id")]
    described = {
        name: member for name, member in vars(kind).items() if isinstance(member, property) and member.__doc__
    }
    for one in own:
        yield f"- `{one.name}: {_type(one.type)}`"
    for name, member in described.items():
        yield f"- `{name}`: {member.__doc__}"
    if own or described:
        yield ""


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    shown = [
        one.replace(
            annotation=inspect.Parameter.empty if one.annotation is one.empty else _Written(one.annotation)
        )
        for one in signature.parameters.values()
        if one.name != "self" and not (one.name.startswith("_") and one.name != "_")
    ]
    result = signature.return_annotation
    written = signature.replace(
        parameters=shown,
        return_annotation=signature.empty if result in (signature.empty, None) else _Written(result),
    )
    text = str(written)
    if len(text) < 80:
        return text
    inside, _, after = text[1:].rpartition(")")
    return (
        "(\n"
        + "".join(f"    {part},\n" for part in re.split(r", (?=[*\w]+(?::|,|$)|\*)", inside))
        + ")"
        + after
    )


class _Written:
    """An annotation that is printed as it is read."""

    def __init__(self, annotation: Any) -> None:
        self._text = _type(annotation)

    def __repr__(self) -> str:
        return self._text


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"\b(?:babysea\._?\w+\.|collections\.abc\.|datetime\.|typing\.|pathlib\.|os\.)", "", text)
    return re.sub(r"Union\[(.*), str\]", lambda match: match[1].replace("], ", "] | ") + " | str", text)


def _tree() -> str:
    text = inspect.cleandoc(str(_errors.__doc__))
    drawing = textwrap.dedent(text[text.index("    BabySeaError") : text.index("\n\nAn error")])
    return f"```text\n{drawing}\n```\n\n{text[text.index('An error that') :]}\n"


def _prose(value: Any) -> str:
    """A docstring as Markdown: lists of errors and attributes, examples in blocks."""
    text = inspect.cleandoc(value.__doc__ or "")
    first, *sections = _SECTION.split(text)
    parts = [first.strip() + "\n"]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        if title == "Example":
            parts.append(_block(textwrap.dedent(body.strip("\n"))))
            continue
        joined = re.sub(r"\n {6,}", " ", body.strip("\n"))
        items = "\n".join(
            f"- {_ITEM.sub(lambda match: _names(match[1]), line)}" for line in joined.splitlines()
        )
        parts.append(f"{title}:\n\n{items}\n")
    return "\n".join(parts)


def _names(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", ")) + ": "


def _block(code: str) -> str:
    return f"```python\n{code.rstrip()}\n```\n"


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
