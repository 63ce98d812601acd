"""Workflow templates: graphs in ComfyUI's API format with places for a request's values.

A value of a node that is `{{name}}` becomes the value of that name with its own type; `{{name|default}}` has a
default, written as JSON, for requests without it. Within a longer text both are put in as text. What is put in is
never searched for places itself.

Places that are always filled: `prompt`, `seed`, `width`, `height` and `prefix`, the start of output files' names.
Where the request has them: `negative_prompt`, `steps`, `guidance`, `denoise`, `batch_size`, `frames`, `fps`, and
`image` (`image_2` and so on for further ones), the name of an uploaded file. A catalog entry may name others.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from babysea_server.settings import SettingsError

#: The templates of this package.
OWN = Path(__file__).parent / "workflows"

_PLACE = re.compile(r"\{\{([a-z][a-z0-9_]*)(?:\|([^{}]*))?\}\}")


class Template(msgspec.Struct, frozen=True):
    """One workflow. `graph` holds nodes by number, each with `class_type` and `inputs`."""

    name: str
    graph: Mapping[str, Any]

    def default(self, place: str) -> Any:
        """The default that the template has for a place; None where it has none."""
        found = (match for match in self.places() if match[1] == place and match[2] is not None)
        first = next(found, None)
        return None if first is None else msgspec.json.decode(first[2])

    def filled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The graph with values in its places.

        Raises:
            ValueError: a place has neither a value nor a default.
        """
        return {
            number: {
                **node,
                "inputs": {name: self._put(value, values) for name, value in node["inputs"].items()},
            }
            for number, node in self.graph.items()
        }

    def _put(self, value: Any, values: Mapping[str, Any]) -> Any:
        if not isinstance(value, str):
            return value
        whole = _PLACE.fullmatch(value)
        if whole is not None:
            return self._value(whole, values)
        return _PLACE.sub(lambda match: str(self._value(match, values)), value)

    def _value(self, match: re.Match[str], values: Mapping[str, Any]) -> Any:
        place, default = match.groups()
        if place in values:
            return values[place]
        if default is None:
            raise ValueError(f"the workflow {self.name} wants {place!r}, which the request does not give")
        return msgspec.json.decode(default)

    def places(self) -> Iterator[re.Match[str]]:
        """Every place: its name, and its default or None."""
        for node in self.graph.values():
            for value in node["inputs"].values():
                if isinstance(value, str):
                    yield from _PLACE.finditer(value)


def load_templates(directory: Path | None) -> dict[str, Template]:
    """This package's templates by name, and over them those of the operator's directory, each a `<name>.json`.

    Raises:
        SettingsError: the directory is none, or a file in it is no template; the text says which and why.
    """
    if directory is not None and not directory.is_dir():
        raise SettingsError(f"providers.comfyui.options.workflows: {directory} is not a directory")
    paths = [*OWN.glob("*.json"), *(directory.glob("*.json") if directory else ())]
    return {path.stem: _read(path) for path in paths}


def _read(path: Path) -> Template:
    try:
        graph = msgspec.json.decode(path.read_bytes())
        fault = _fault(graph)
        if fault is None:
            template = Template(path.stem, graph)
            for match in template.places():
                if match[2] is not None:
                    msgspec.json.decode(match[2])
            return template
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        fault = str(error)
    raise SettingsError(f"the workflow {path}: {fault}")


def _fault(graph: Any) -> str | None:
    if not isinstance(graph, dict) or not graph:
        return "is not a graph; export it in ComfyUI's API format"
    for number, node in graph.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            return f"node {number} has no class_type; export it in ComfyUI's API format"
        if not isinstance(node.get("inputs"), dict):
            return f"node {number} has no inputs"
    return None
