"""The tools that read, and the one that cancels."""

from typing import Any

from babysea import LibraryModel
from babysea.mcp._desk import Desk, Reply, Report, view
from babysea.mcp._pictures import links, pictures
from babysea.mcp._shapes import (
    Balance,
    Canceled,
    CancelGeneration,
    Cost,
    EstimateCost,
    Generations,
    GetGeneration,
    GetModel,
    Input,
    ListGenerations,
    ListModels,
    ModelDetails,
    ModelLine,
    Models,
    NoArguments,
)

_LISTED_MAX = 60
_FOX = "a red fox in fresh snow"


async def list_models(desk: Desk, asked: ListModels, _report: Report) -> Reply:
    """Models that fit, alphabetically."""
    words = asked.search.lower().split()
    found = [
        model
        for model in (await desk.client.library.models()).models
        if asked.media in (None, model.model_type)
        and all(word in f"{model.model_identifier} {model.model_type}".lower() for word in words)
    ]
    lines = [ModelLine(**_line(model)) for model in found[:_LISTED_MAX]]
    return Reply(Models(total=len(found), models=lines))


async def get_model(desk: Desk, asked: GetModel, _report: Report) -> Reply:
    """One model, with an example that works."""
    model = await desk.client.library.model(asked.model)
    example: dict[str, Any] = {"model": model.model_identifier}
    schema = model.schema
    if schema.generation_prompt:
        example["prompt"] = _FOX
    inputs: dict[str, Any] = {}
    if schema.generation_ratio:
        inputs["ratio"] = schema.generation_ratio[0]
    if schema.generation_duration:
        inputs["duration"] = min(schema.generation_duration)
    if inputs:
        example["inputs"] = inputs
    details = ModelDetails(
        **_line(model),
        providers=list(model.model_supported_provider),
        inputs=_inputs(model),
        example=example,
    )
    return Reply(details)


async def estimate(desk: Desk, asked: EstimateCost, _report: Report) -> Reply:
    """The price of so many generations."""
    found = await desk.client.estimate(
        asked.model,
        count=asked.count,
        duration=asked.duration,
        resolution=asked.resolution,
        audio=asked.audio,
    )
    cost = Cost(
        model=found.model_identifier,
        count=found.assets_count,
        cost=found.cost_total_consumed,
        cost_each=found.cost_per_generation,
        balance=found.credit_balance,
        affordable=found.credit_balance_can_afford,
        seconds=found.duration_seconds,
        resolution=found.resolution,
        limit_left=desk.limit_left,
    )
    return Reply(cost)


async def get_generation(desk: Desk, asked: GetGeneration, _report: Report) -> Reply:
    """One generation with its pictures."""
    generation = await desk.client.get_generation(asked.generation_id)
    desk.budget.seen(generation.id, generation.status)
    result, content = view(generation), links(generation)
    if asked.pictures and generation.urls:
        shown, result.note = await pictures(desk.client, generation)
        content = [*shown, *content]
    return Reply(result, content)


async def list_generations(desk: Desk, asked: ListGenerations, _report: Report) -> Reply:
    """A page of generations, without links: those of many are long, and expire before they are used."""
    page = await desk.client.list_generations(limit=asked.limit, offset=asked.offset)
    for generation in page:
        desk.budget.seen(generation.id, generation.status)
    found = [view(generation, linked=False) for generation in page]
    return Reply(Generations(total=page.total, offset=page.offset, generations=found))


async def cancel_generation(desk: Desk, asked: CancelGeneration, _report: Report) -> Reply:
    """Cancel a generation in flight."""
    canceled = await desk.client.cancel_generation(asked.generation_id)
    desk.budget.seen(canceled.generation_id, canceled.generation_status)
    return Reply(
        Canceled(
            generation_id=canceled.generation_id,
            status=canceled.generation_status,
            credits_refunded=canceled.credits_refunded,
        )
    )


async def account_balance(desk: Desk, _asked: NoArguments, _report: Report) -> Reply:
    """The account's credits, and this server's own limit."""
    billing = await desk.client.billing()
    limit = desk.budget.limit
    return Reply(
        Balance(
            balance=billing.billing_credit_balance,
            plan=billing.billing_plan,
            limit=None if limit is None else limit / 1_000_000,
            limit_left=desk.limit_left,
        )
    )


def _line(model: LibraryModel) -> dict[str, Any]:
    price = model.model_pricing
    return {
        "model": model.model_identifier,
        "media": model.model_type,
        "price": price if isinstance(price, int | float) else dict(price),
    }


def _inputs(model: LibraryModel) -> list[Input]:
    schema = model.schema
    inputs = [
        Input(
            name="output_number",
            values=list(range(1, schema.generation_output_number + 1)),
            description="How many pictures or clips; each is paid for.",
        )
    ]
    if schema.generation_prompt:
        inputs.insert(0, Input(name="prompt", description="An argument of its own, not one of `inputs`."))
    choices = {
        "ratio": schema.generation_ratio,
        "output_format": schema.generation_output_format,
        "resolution": schema.generation_resolution,
    }
    inputs += [Input(name=name, values=list(values)) for name, values in choices.items() if values]
    if schema.generation_duration is not None:
        seconds = list(schema.generation_duration)
        inputs.append(Input(name="duration", required=bool(seconds), values=seconds, description="Seconds."))
    if schema.generation_generate_audio:
        inputs.append(Input(name="generate_audio", values=[False, True]))
    if schema.generation_input_file:
        inputs.append(Input(name="input_file", description="A list of public http(s) URLs of pictures."))
    providers = ", ".join(model.model_supported_provider)
    order = f"`fastest`, or any of these in the order in which to try them: {providers}."
    inputs.append(Input(name="provider_order", description=order))
    return inputs + [
        Input(name=name.removeprefix("generation_"), description="An input of this model alone.")
        for name in model.specific_schema
    ]
