"""Commands that make a picture or a clip: estimated, bought once, watched, saved."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from babysea import (
    Accepted,
    APIError,
    BabySea,
    BabySeaError,
    Estimate,
    Generation,
    GenerationError,
    InvalidResponseError,
    LibraryModel,
    PermissionDeniedError,
    ServerError,
    TransportError,
)
from babysea.cli import catalog, fields, pictures
from babysea.cli.completion import image_model, video_model
from babysea.cli.faults import FAILED, INTERRUPTED, CommandError, later
from babysea.cli.output import in_credits
from babysea.cli.saving import Target, target, with_format
from babysea.cli.session import Session, command
from babysea.cli.watching import Watch, outcome

PromptArgument = Annotated[str | None, typer.Argument(metavar="PROMPT", help="What it is to show.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File, such as out.png, or folder; by default this folder."),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="NAME=VALUE", help="Any input of the model; repeatable."),
]
FileOption = Annotated[
    list[str] | None,
    typer.Option("--input-file", metavar="URL", help="Picture or clip to start from; repeatable."),
]
RatioOption = Annotated[str | None, typer.Option("--ratio", help="Such as 16:9.")]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="Such as png; by default what the name of the file says.")
]
NumberOption = Annotated[int | None, typer.Option("--number", "-n", min=1, help="How many.")]
OrderOption = Annotated[
    str | None, typer.Option("--provider-order", help="`fastest`, or providers joined by commas.")
]
KeyOption = Annotated[
    str | None, typer.Option("--idempotency-key", help="Again with the same one buys nothing twice.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait in all.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for it, or print its id and end.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
ShowOption = Annotated[
    bool | None, typer.Option("--show/--no-show", help="Show pictures here; by default where that can be.")
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made."""

    media: str
    model: str
    fields: dict[str, Any]
    output: Path | None
    key: str | None
    timeout: float
    wait: bool
    overwrite: bool
    show: bool | None


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(image)
    command(app)(video)


def image(
    session: Session,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="See `babysea models`.", autocompletion=image_model)
    ],
    prompt: PromptArgument = None,
    output: OutputOption = None,
    inputs: InputOption = None,
    input_file: FileOption = None,
    ratio: RatioOption = None,
    format: FormatOption = None,
    number: NumberOption = None,
    resolution: Annotated[str | None, typer.Option("--resolution", help="Where the model has some.")] = None,
    provider_order: OrderOption = None,
    idempotency_key: KeyOption = None,
    timeout: TimeoutOption = 900.0,
    wait: WaitOption = True,
    overwrite: OverwriteOption = False,
    show: ShowOption = None,
) -> None:
    """Make a picture.

    `babysea image bfl/flux-schnell "a red fox in snow" -o fox.png`
    """
    named = _named(prompt, ratio, format, number, resolution, input_file, provider_order)
    given = fields.merged(fields.given(inputs or ()), named)
    wanted = Wanted("image", model, given, output, idempotency_key, timeout, wait, overwrite, show)
    _make(session, wanted)


def video(
    session: Session,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="See `babysea models`.", autocompletion=video_model)
    ],
    prompt: PromptArgument = None,
    output: OutputOption = None,
    inputs: InputOption = None,
    input_file: FileOption = None,
    last_file: Annotated[
        str | None, typer.Option("--last-file", metavar="URL", help="Picture to end with.")
    ] = None,
    duration: Annotated[
        int | None, typer.Option("--duration", "-d", help="Seconds; by default the shortest.")
    ] = None,
    resolution: Annotated[str | None, typer.Option("--resolution", help="Such as 720p.")] = None,
    audio: Annotated[bool | None, typer.Option("--audio/--no-audio", help="With sound.")] = None,
    ratio: RatioOption = None,
    format: FormatOption = None,
    number: NumberOption = None,
    provider_order: OrderOption = None,
    idempotency_key: KeyOption = None,
    timeout: TimeoutOption = 1800.0,
    wait: WaitOption = True,
    overwrite: OverwriteOption = False,
) -> None:
    """Make a clip.

    `babysea video google/veo-3 "waves at dawn" -d 8 -o waves.mp4`
    """
    named = _named(prompt, ratio, format, number, resolution, input_file, provider_order)
    named |= {
        "generation_duration": duration,
        "generation_generate_audio": audio,
        "generation_input_file_last_content": last_file,
    }
    given = fields.merged(fields.given(inputs or ()), named)
    wanted = Wanted("video", model, given, output, idempotency_key, timeout, wait, overwrite, show=False)
    _make(session, wanted)


def _named(
    prompt: str | None,
    ratio: str | None,
    format: str | None,
    number: int | None,
    resolution: str | None,
    input_file: list[str] | None,
    provider_order: str | None,
) -> dict[str, Any]:
    order = None if provider_order is None else ", ".join(provider_order.replace(",", " ").split())
    return {
        "generation_prompt": prompt,
        "generation_ratio": ratio,
        "generation_output_format": format,
        "generation_output_number": number,
        "generation_resolution": resolution,
        "generation_input_file": input_file or None,
        "generation_provider_order": order,
    }


def _make(session: Session, wanted: Wanted) -> None:
    with session.client() as client:
        model = catalog.find(session, client, wanted.model)
        if model is not None and model.model_type != wanted.media:
            raise CommandError(
                f"{wanted.model} makes {model.model_type}s",
                f"`babysea {model.model_type} {wanted.model} ...` does; "
                f"`babysea models {wanted.media}` lists others.",
            )
        count = fields.estimated_by(wanted.fields)["count"]
        place = target(wanted.output, overwrite=wanted.overwrite, count=count)
        given = with_format(place, model, fields.with_duration(model, wanted.fields))
        estimate = _estimated(session, client, wanted.model, given)
        accepted = _bought(client, wanted, given)
        if not wanted.wait:
            _tell_id(session, accepted, wanted)
            return
        cost = None if estimate is None else estimate.cost_total_consumed
        watch = Watch(session, client, accepted.id, timeout=wanted.timeout, cost=cost, output=place.asked)
        generation = watch.run()
        session.output.say(outcome(generation), style="green")
        if wanted.key and accepted.replayed:
            session.output.say("An earlier request with this key made it: nothing was bought again.")
        else:
            _tell_charge(session, estimate, model)
        finish(session, client, generation, place, wanted.show, charged=_charged(estimate, model))


def _estimated(session: Session, client: BabySea, model: str, given: dict[str, Any]) -> Estimate | None:
    """The estimate, told; None when the key may not see it."""
    try:
        estimate = client.estimate(model, **fields.estimated_by(given))
    except PermissionDeniedError:
        session.output.say("No estimate: the key may not read prices.")
        return None
    length = f", {estimate.duration_seconds} s" if estimate.duration_seconds is not None else ""
    size = f", {estimate.resolution}" if estimate.resolution is not None else ""
    session.output.say(
        f"{model}{length}{size}: {in_credits(estimate.cost_total_consumed)} "
        f"(balance {in_credits(estimate.credit_balance)})"
    )
    return estimate


def _bought(client: BabySea, wanted: Wanted, given: dict[str, Any]) -> Accepted:
    """Start it. When it is not known whether that worked, tell how to find out without buying again."""
    key = wanted.key or str(uuid4())
    hint = f"It may have been accepted: the same again with --idempotency-key {key} buys nothing twice."
    try:
        return client.generate(wanted.model, idempotency_key=key, **given)
    except KeyboardInterrupt:
        raise CommandError("interrupted", hint, code=INTERRUPTED, idempotency_key=key) from None
    except BabySeaError as error:
        if not _may_be_accepted(error):
            raise
        raise CommandError(str(error), hint, code=FAILED, idempotency_key=key) from error


def _may_be_accepted(error: BabySeaError) -> bool:
    if isinstance(error, TransportError):
        return error.sent
    if isinstance(error, ServerError | InvalidResponseError) and error.code is None:
        return True  # a proxy answered, not the server
    return isinstance(error, APIError) and error.attempts > 1


def _tell_id(session: Session, accepted: Accepted, wanted: Wanted) -> None:
    if session.output.as_json:
        session.output.document({**accepted.raw, "idempotency_key": accepted.idempotency_key})
        return
    session.output.line(accepted.id)
    session.output.say(f"Running. {later(accepted.id, str(wanted.output or ''))}")


def _charged(estimate: Estimate | None, model: LibraryModel | None) -> float | None:
    """What it cost exactly; None where that is not known here."""
    return None if estimate is None or fields.is_measured(model) else estimate.cost_total_consumed


def _tell_charge(session: Session, estimate: Estimate | None, model: LibraryModel | None) -> None:
    if estimate is None:
        return
    at_most = "at most " if fields.is_measured(model) else ""
    session.output.say(f"You were charged {at_most}{in_credits(estimate.cost_total_consumed)}.")


def finish(
    session: Session,
    client: BabySea,
    generation: Generation,
    place: Target,
    show: bool | None,
    **facts: Any,
) -> None:
    """Save the files, say where they are, show them.

    Raises:
        CommandError: they could not be saved; they can be had later.
        GenerationError: there are none.
    """
    known = {"generation_id": generation.id}
    try:
        paths = place.save(client, generation)
    except GenerationError:
        raise
    except KeyboardInterrupt:
        raise CommandError("interrupted", later(generation.id), code=INTERRUPTED, **known) from None
    except FileExistsError as error:
        hint = f"`babysea download {generation.id}` with another -o, or with --overwrite, saves it."
        raise CommandError(str(error), hint, code=FAILED, **known) from error
    except (BabySeaError, OSError) as error:
        raise CommandError(
            f"the files could not be saved: {error}", later(generation.id), code=FAILED, **known
        ) from error
    if session.output.as_json:
        record = {"generation": generation.raw, "files": [str(path) for path in paths], **facts}
        session.output.document(record)
        return
    for path in paths:
        session.output.line(str(path))
    pictures.show(session.output, session.environment, paths, show)
