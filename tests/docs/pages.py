"""The written pages of the repository, and what can be read off them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "server" / "src" / "babysea_server"

#: Every page for people; the catalog's is beside its data.
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "sdk").glob("*.md"),
        *SERVER.rglob("*.md"),
    ]
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def page(name: str) -> str:
    """The text of a page, by its path from the root of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [body for found, body in _FENCE.findall(text) if found == language]


def code(text: str) -> Iterator[str]:
    """Lines of shell blocks, continued ones joined, and pieces of code within sentences."""
    for body in blocks(text, "sh"):
        yield from body.replace("\\\n", " ").splitlines()
    yield from (" ".join(piece.split()) for piece in _INLINE_CODE.findall(_FENCE.sub("", text)))


def links(text: str) -> list[str]:
    """The targets of links and images outside of code."""
    return _LINK.findall(_INLINE_CODE.sub("", _FENCE.sub("", text)))


def rows(text: str) -> list[list[str]]:
    """The cells of every table row."""
    return [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]


def headings(text: str) -> dict[str, str]:
    """The text below each heading, by heading; a section ends where the next heading begins."""
    parts = re.split(
        r"^#+ (.+)$", _FENCE.sub(lambda fence: re.sub(r"(?m)^#", " #", fence[0]), text), flags=re.M
    )
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def anchors(text: str) -> set[str]:
    """The fragments that the headings of a page can be linked by."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(text)}


def functions(path: Path) -> set[str]:
    """The names of all functions and classes that a Python file defines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
