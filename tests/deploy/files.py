"""The files of deploy/, read as their tools read them."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
CHART = DEPLOY / "helm" / "babysea"
UNITS = DEPLOY / "systemd"

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^{}]*))?\}")


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and their arguments, without comments, each on one line."""
    lines = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(name.upper(), rest.strip()) for name, _, rest in pairs]


def image_environment() -> dict[str, str]:
    """The variables that the image sets, those of the base image aside."""
    final = instructions(DOCKERFILE.read_text(encoding="utf-8"))
    last = max(index for index, (name, _) in enumerate(final) if name == "FROM")
    words = [word for name, rest in final[last:] if name == "ENV" for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


def compose() -> dict[str, dict[str, Any]]:
    """compose.yaml, where services have what they inherit."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return found


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """A text of compose.yaml with its `${...}` replaced.

    Raises:
        KeyError: a variable without a default is not given.
    """

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        return variables[name] if kind != "-" else variables.get(name) or default

    while _VARIABLE.search(text):
        text = _VARIABLE.sub(value, text)
    return text


def unit(name: str) -> list[tuple[str, str]]:
    """The assignments of a unit and of what all of them share, in systemd's order."""
    texts = [path.read_text(encoding="utf-8") for path in (UNITS / name, *UNITS.glob("babysea-.service.d/*"))]
    lines = (line for text in texts for line in text.splitlines() if line and line[0] not in "#[")
    pairs = (line.partition("=") for line in lines)
    return [(key, value) for key, _, value in pairs]


def unit_environment(name: str) -> Iterator[tuple[str, str]]:
    """The variables that a unit sets itself."""
    for key, value in unit(name):
        if key == "Environment":
            for word in shlex.split(value):
                variable, _, text = word.partition("=")
                yield variable, text
