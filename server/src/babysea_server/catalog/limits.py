"""Whether a combination of inputs is possible: for the model, and for one provider of it."""

from collections.abc import Mapping
from typing import Any

from babysea_server.catalog.types import Condition, FieldSpec, Model, ProviderModel

#: Types for which a condition asks whether the field is given, not what it says.
PRESENCE_TYPES = frozenset({"string", "url", "url-array", "string-array", "object"})


def matches(condition: Condition, inputs: Mapping[str, Any], fields: Mapping[str, FieldSpec]) -> bool:
    """Whether the inputs are the combination that the condition describes."""
    for name, value in condition.items():
        if fields[name].type in PRESENCE_TYPES:
            if (name in inputs) is not value:
                return False
        elif inputs.get(name) != value:
            return False
    return True


def admits(provider: ProviderModel, inputs: Mapping[str, Any], model: Model) -> bool:
    """Whether this provider of the model takes a request with these accepted inputs, defaults filled in."""
    if provider.partial:
        for name, limit in provider.limits.items():
            if name in inputs and not _within(limit, inputs[name], model.fields[name]):
                return False
    return not any(matches(condition, inputs, model.fields) for condition in provider.excludes)


def expresses(provider: ProviderModel, inputs: Mapping[str, Any], model: Model) -> bool:
    """Whether this provider has a parameter for everything that these inputs ask for.

    What it has none for may stay at its default, or at the only value there is: that is what happens anyway. A
    provider without any `params` takes our own names.
    """
    return not provider.params or all(
        name in provider.params
        or (provider.partial and name in provider.limits)
        or value == _unasked(model.fields[name])
        for name, value in inputs.items()
    )


def _unasked(spec: FieldSpec) -> Any:
    """What happens where a field is not told to anybody."""
    if spec.name == "generation_output_number":
        return 1
    return spec.enum[0] if spec.enum is not None and len(spec.enum) == 1 else spec.default


def _within(limit: object, value: Any, spec: FieldSpec) -> bool:
    if limit == "many" or limit is True:
        return True
    if limit is False:
        return False
    if isinstance(limit, list):
        # An empty list: the provider cannot be told, so it gets only what it does anyway, the default.
        return value in limit if limit else value == spec.default
    if isinstance(limit, int):
        return (len(value) if isinstance(value, list) else value) <= limit
    return True
