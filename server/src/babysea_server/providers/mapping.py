"""From our fields to a provider's parameters, as the catalog's data says: names, spellings, places.

Most of what an adapter must know about a model stands in the model's file. What a table cannot say, such as sizes
in pixels, is the adapter's own: it replaces or adds entries before it nests them.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from babysea_server.providers.base import Job

#: What is given decides, the first that fits: a workflow is recognised by the kind of source it works on.
_SOURCES = (
    ("generation_input_video_file", "video"),
    ("generation_input_file", "image"),
    ("generation_input_file_last_content", "image"),
)


class Native(msgspec.Struct, frozen=True):
    """A request in a provider's words.

    `params` are flat: by target as the catalog has it, a trailing `[]` left away. Targets whose value needs more
    than a table hold the value in our own spelling.
    """

    model: str
    params: dict[str, Any]


def native(job: Job) -> Native:
    """The upstream model and its parameters. What the provider has no parameter for is left out."""
    offer = job.offer
    params: dict[str, Any] = dict(offer.fixed_params)
    for name, target in offer.params.items():
        if name in job.inputs and not _sized_already(job, name):
            plain, is_list = target.removesuffix("[]"), target.endswith("[]")
            params[plain] = _placed(_spelled(job, name), is_list=is_list)
    return Native(_model(job), params)


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with dotted names put into objects: `{"input.prompt": 1}` is `{"input": {"prompt": 1}}`."""
    tree: dict[str, Any] = {}
    for path, value in params.items():
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def workflow(job: Job) -> str:
    """What the request asks of the model, e.g. `image-to-video`, by what it brings."""
    source = next((kind for name, kind in _SOURCES if job.inputs.get(name)), "text")
    return f"{source}-to-{job.model.media}"


def _model(job: Job) -> str:
    offer = job.offer
    asked = workflow(job)
    by_resolution = offer.models_by_resolution.get(str(job.inputs.get("generation_resolution")), {})
    return by_resolution.get(asked) or offer.models_by_workflow.get(asked) or offer.model


def _sized_already(job: Job, name: str) -> bool:
    """Whether the ratio's table says the resolution, too: one parameter for both."""
    offer = job.offer
    return (
        name == "generation_resolution"
        and offer.params[name] == offer.params.get("generation_ratio")
        and job.inputs.get("generation_ratio") in offer.ratio_map
    )


def _spelled(job: Job, name: str) -> Any:
    offer, value = job.offer, job.inputs[name]
    if name == "generation_ratio" and value in offer.ratio_map:
        sizes = offer.ratio_map[value]
        if isinstance(sizes, Mapping):  # by resolution; the first where the model has none
            return sizes.get(str(job.inputs.get("generation_resolution"))) or next(iter(sizes.values()))
        return sizes
    if name in offer.value_map:
        value = offer.value_map[name].get(_key(value), value)
    return offer.formats[name].format(value) if name in offer.formats else value


def _key(value: Any) -> str:
    """How a value is written as a key of a TOML table."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _placed(value: Any, *, is_list: bool) -> Any:
    if is_list:
        return value if isinstance(value, list) else [value]
    return value[0] if isinstance(value, list) else value
