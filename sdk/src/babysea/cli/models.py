"""Commands on models and what they cost."""

from typing import Annotated, Any

import typer

from babysea import LibraryModel
from babysea.cli import catalog
from babysea.cli.completion import any_model
from babysea.cli.faults import CommandError
from babysea.cli.output import in_credits, short
from babysea.cli.session import Session, command

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Such as bfl/flux-schnell.", autocompletion=any_model)
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(models)
    command(app)(estimate)


def models(
    session: Session,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SEARCH...] | show MODEL",
            help="Words that a model's name, kind or providers have; or `show` and a model.",
            autocompletion=any_model,
        ),
    ] = None,
) -> None:
    """List the models, or show one.

    `babysea models show bfl/flux-schnell` tells its inputs, price and providers.
    """
    wanted = words or []
    with session.client() as client:
        found = catalog.models(session, client)
        if len(wanted) == 2 and wanted[0] == "show":
            model = client.library.model(wanted[1])
            if session.output.as_json:
                session.output.document(catalog.as_sent(found, model.model_identifier))
            else:
                _show(session, model)
            return
    if wanted == ["show"]:
        raise CommandError("show which model?", "`babysea models show MODEL`; `babysea models` lists them.")
    listed = catalog.matching(found.models, wanted)
    if session.output.as_json:
        sent = [catalog.as_sent(found, model.model_identifier) for model in listed]
        session.output.document({"models_total": len(sent), "models": sent})
        return
    session.output.table(
        [
            {
                "model": model.model_identifier,
                "makes": model.model_type,
                "credits": short(catalog.prices(model), 28),
                "providers": short(", ".join(model.model_supported_provider), 32),
            }
            for model in listed
        ],
        none="No model has these words; `babysea models` lists all.",
    )


def _show(session: Session, model: LibraryModel) -> None:
    schema = model.schema
    inputs: dict[str, Any] = {
        "prompt": "yes" if schema.generation_prompt else None,
        "ratio": schema.generation_ratio or None,
        "output_format": schema.generation_output_format or None,
        "output_number": f"1 to {schema.generation_output_number}"
        if schema.generation_output_number > 1
        else "1",
        "input_file": "URLs" if schema.generation_input_file else None,
        "duration": schema.generation_duration and f"{', '.join(map(str, schema.generation_duration))} s",
        "resolution": schema.generation_resolution,
        "generate_audio": "yes or no" if schema.generation_generate_audio else None,
    }
    session.output.record(
        {
            "model": model.model_identifier,
            "makes": model.model_type,
            "credits": catalog.prices(model),
            "providers": model.model_supported_provider,
            **{f"  {name}": value for name, value in inputs.items() if value},
            **{f"  {name.removeprefix('generation_')}": "-i name=value" for name in model.specific_schema},
        }
    )


def estimate(
    session: Session,
    model: ModelArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many.")] = 1,
    duration: Annotated[int | None, typer.Option("--duration", "-d", help="Seconds of video.")] = None,
    resolution: Annotated[str | None, typer.Option("--resolution", help="Such as 720p.")] = None,
    audio: Annotated[bool | None, typer.Option("--audio/--no-audio", help="With sound.")] = None,
) -> None:
    """Tell what generations would cost."""
    with session.client() as client:
        found = client.estimate(model, count=count, duration=duration, resolution=resolution, audio=audio)
    if session.output.as_json:
        session.output.document(found.raw)
        return
    row: dict[str, Any] = {"model": found.model_identifier, "count": found.assets_count}
    if found.duration_seconds is not None:
        row["duration"] = f"{found.duration_seconds} s"
    if found.resolution is not None:
        row["resolution"] = found.resolution
    session.output.record(
        {
            **row,
            "each": in_credits(found.cost_per_generation),
            "together": in_credits(found.cost_total_consumed),
            "balance": in_credits(found.credit_balance),
            "enough for": found.credit_balance_max_affordable,
        }
    )
