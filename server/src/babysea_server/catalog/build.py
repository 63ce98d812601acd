"""From the files' tables to models and providers, with every fault told."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any

from babysea_server.catalog.checks import check_model
from babysea_server.catalog.markup import Markup, multiplied
from babysea_server.catalog.sources import (
    Entry,
    Faults,
    FieldSource,
    ModelSource,
    ProviderModelSource,
    ProviderSource,
    Sources,
    shaped,
)
from babysea_server.catalog.types import (
    FieldSpec,
    Media,
    Model,
    ModelSchema,
    Provider,
    ProviderModel,
)

#: The most URLs of a list for which a model states no number of its own.
MAX_INPUT_FILES = 16
#: The same for lists of texts.
MAX_STRINGS = 64
#: The longest text of a field that states no length of its own.
MAX_TEXT = 5000

#: What library and estimate call the common inputs; every other field is specific to its model.
COMMON_FIELDS = (
    "generation_prompt",
    "generation_ratio",
    "generation_output_format",
    "generation_output_number",
    "generation_input_file",
    "generation_duration",
    "generation_resolution",
    "generation_generate_audio",
)


def build(
    sources: Sources, markup: Markup, faults: Faults, joined: Collection[str] = ()
) -> tuple[dict[str, Model], dict[str, Provider]]:
    """All models and providers that could be built; the rest is in `faults`.

    Args:
        joined: optional providers that stand at the end of the order of each model they serve.
    """
    providers: dict[str, Provider] = {}
    for provider_id, entry in sources.providers.items():
        provider = shaped(entry.data, ProviderSource, entry, provider_id, "", faults)
        if provider is not None:
            providers[provider_id] = _provider(provider_id, provider)
    for name, entry in sources.fields.items():
        shaped(_plain(entry.data), FieldSource, entry, name, "", faults)
    models: dict[str, Model] = {}
    for identifier, entry in sources.models.items():
        before = len(faults.lines)
        model = _model(identifier, entry, sources, markup, faults, joined)
        if model is not None:
            models[identifier] = model
            if len(faults.lines) == before:  # else most of what the checks found would follow from that
                check_model(model, sources.providers, entry, faults)
    _check_names(models, sources, faults)
    _check_markup(markup, models, sources.providers, faults)
    shown = {id: provider for id, provider in providers.items() if not provider.optional or id in joined}
    return models, shown


def _provider(provider_id: str, source: ProviderSource) -> Provider:
    return Provider(
        id=provider_id,
        name=source.name,
        description=source.description,
        website=source.website,
        docs=source.docs,
        optional=source.optional,
        note=source.note,
    )


def _model(
    identifier: str,
    entry: Entry,
    sources: Sources,
    markup: Markup,
    faults: Faults,
    joined: Collection[str],
) -> Model | None:
    head = {key: value for key, value in entry.data.items() if key not in ("fields", "providers")}
    source = shaped(head, ModelSource, entry, identifier, "", faults)
    fields = _fields(identifier, entry, sources.fields, faults)
    providers = _provider_models(identifier, entry, faults)
    if source is None:
        return None
    named = source.provider_order
    order = (*named, *(name for name in providers if name in joined and name not in named))
    factor = markup.factor(identifier, order)
    tiers = multiplied(source.pricing_tiers, factor)
    assert isinstance(tiers, Mapping)
    return Model(
        identifier=identifier,
        media=source.media,
        lab=sources.labs[identifier.partition("/")[0]],
        display_name=source.name,
        description=source.description,
        workflows=source.workflows,
        aliases=source.aliases,
        pricing=multiplied(source.pricing, factor),
        pricing_unit=source.pricing_unit,
        pricing_tiers=tiers,
        pricing_covers_all_providers=source.pricing_covers_all_providers,
        max_seconds=source.max_seconds,
        fields=fields,
        schema=_schema(source.media, fields),
        specific_schema=tuple(sorted(name for name in fields if name not in COMMON_FIELDS)),
        provider_ids=order,
        providers=providers,
        excludes=source.excludes,
        ignored=source.ignored,
        unverified=source.unverified,
        note=source.note,
    )


def _fields(
    identifier: str, entry: Entry, common: Mapping[str, Entry], faults: Faults
) -> dict[str, FieldSpec]:
    tables = _subtables(identifier, entry, "fields", faults)
    unknown = [name for name in tables if name not in common]
    for name in unknown:
        near = difflib.get_close_matches(name, common, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; fields.toml describes every field"
        faults.add(
            entry.file_of(f"fields.{name}"), f"{identifier}: fields.{name}", f"is not a known field{hint}"
        )
    fields: dict[str, FieldSpec] = {}
    for name in _field_order(tables):
        if name in common:
            source = shaped(
                _plain({**common[name].data, **tables[name]}),
                FieldSource,
                entry,
                identifier,
                f"fields.{name}",
                faults,
            )
            if source is not None:
                fields[name] = _field(name, source)
    return fields


def _field_order(names: Iterable[str]) -> list[str]:
    """Common inputs first, in the contract's order, then the specific ones by name."""
    given = set(names)
    return [name for name in COMMON_FIELDS if name in given] + sorted(given.difference(COMMON_FIELDS))


def _field(name: str, source: FieldSource) -> FieldSpec:
    required, default, enum = source.required, source.default, source.enum
    low, high = source.min, source.max
    if name == "generation_duration":  # the contract requires it wherever a model has it
        required, default = True, None
        seconds = [value for value in enum or () if isinstance(value, int)]
        low, high = min(seconds, default=None), max(seconds, default=None)
    elif name == "generation_resolution" and default is None and not required and enum:
        default = enum[0]
    max_items = source.max_items
    if max_items is None:
        max_items = {"url-array": MAX_INPUT_FILES, "string-array": MAX_STRINGS}.get(source.type)
    max_length = source.max_length
    if max_length is None and source.type == "string":
        max_length = MAX_TEXT
    return FieldSpec(
        name=name,
        type=source.type,
        required=required,
        default=default,
        enum=enum,
        min=low,
        max=high,
        max_length=max_length,
        max_items=max_items,
        description=source.description,
    )


def _provider_models(identifier: str, entry: Entry, faults: Faults) -> dict[str, ProviderModel]:
    providers: dict[str, ProviderModel] = {}
    for provider_id, table in _subtables(identifier, entry, "providers", faults).items():
        source = shaped(table, ProviderModelSource, entry, identifier, f"providers.{provider_id}", faults)
        if source is not None:
            providers[provider_id] = ProviderModel(
                provider_id=provider_id,
                model=source.model,
                models_by_workflow=source.models_by_workflow,
                models_by_resolution=source.models_by_resolution,
                route=source.route,
                params=source.params,
                ratio_map=source.ratio_map,
                value_map=source.value_map,
                formats=source.formats,
                fixed_params=_plain(source.fixed_params),
                limits=source.limits,
                partial=source.partial,
                excludes=source.excludes,
                usd=source.usd,
                price_confidence=source.price_confidence,
                deprecated_on=source.deprecated_on,
                note=source.note,
                raw=table,
            )
    return providers


def _subtables(identifier: str, entry: Entry, key: str, faults: Faults) -> dict[str, dict[str, Any]]:
    tables = entry.data.get(key)
    if not isinstance(tables, dict):
        problem = "is missing" if tables is None else "is not a table"
        faults.add(entry.file_of(key), f"{identifier}: {key}", problem)
        return {}
    good: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        if isinstance(table, dict):
            good[name] = table
        else:
            faults.add(entry.file_of(f"{key}.{name}"), f"{identifier}: {key}.{name}", "is not a table")
    return good


def _schema(media: Media, fields: Mapping[str, FieldSpec]) -> ModelSchema:
    def texts(name: str) -> tuple[str, ...]:
        spec = fields.get(name)
        return tuple(str(value) for value in spec.enum or ()) if spec else ()

    duration = fields.get("generation_duration")
    number = fields.get("generation_output_number")
    video = media == "video"
    return ModelSchema(
        prompt="generation_prompt" in fields,
        ratios=texts("generation_ratio"),
        output_formats=texts("generation_output_format") or (("mp4",) if video else ()),
        output_number=int(number.max or 1) if number else 1,
        input_file="generation_input_file" in fields,
        durations=tuple(value for value in duration.enum or () if isinstance(value, int))
        if duration
        else None,
        resolutions=texts("generation_resolution") or None,
        audio="generation_generate_audio" in fields if video else None,
    )


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """Decimals as floats: bounds and parameters are not money."""
    return {name: float(value) if isinstance(value, Decimal) else value for name, value in table.items()}


def _check_names(models: Mapping[str, Model], sources: Sources, faults: Faults) -> None:
    owner: dict[str, str] = {identifier: identifier for identifier in models}
    for identifier, model in models.items():
        for alias in model.aliases:
            other = owner.setdefault(alias, identifier)
            if other != identifier:
                entry = sources.models[identifier]
                faults.add(
                    entry.file_of("aliases"), f"{identifier}: aliases", f"{alias!r} already names {other}"
                )


def _check_markup(
    markup: Markup, models: Mapping[str, Model], providers: Mapping[str, Entry], faults: Faults
) -> None:
    for label, factors, known in (
        ("providers", markup.providers, providers.keys()),
        ("models", markup.models, models.keys()),
    ):
        for name, factor in factors.items():
            if name not in known:
                faults.add("markup", f"{label}.{name}", "is not in the catalog")
            if not factor.is_finite() or factor <= 0:
                faults.add("markup", f"{label}.{name}", f"is a factor above 0, for example 1.2; not {factor}")
    if not markup.default.is_finite() or markup.default <= 0:
        faults.add("markup", "default", f"is a factor above 0, for example 1.2; not {markup.default}")
