"""Commands on generations that were made: list, get, cancel, delete, download."""

from typing import Annotated, Any

import typer

from babysea import Generation
from babysea.cli.generate import OutputOption, OverwriteOption, ShowOption, TimeoutOption, finish
from babysea.cli.output import in_credits, seconds, short
from babysea.cli.saving import target
from babysea.cli.session import Session, command
from babysea.cli.watching import Watch

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the generation.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "list")(list_generations)
    command(app)(get)
    command(app)(cancel)
    command(app)(delete)
    command(app)(download)


def list_generations(
    session: Session,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many.")] = 20,
    offset: Annotated[int, typer.Option("--offset", min=0, help="Pass over so many.")] = 0,
) -> None:
    """List generations, newest first."""
    with session.client() as client:
        page = client.list_generations(limit=limit, offset=offset)
    if session.output.as_json:
        facts = {"total": page.total, "limit": page.limit, "offset": page.offset}
        session.output.document({**page.raw, **facts})
        return
    session.output.table(
        [
            {
                "id": one.id,
                "status": one.status,
                "model": one.model_identifier,
                "made": one.generation_created_at,
                "prompt": short(one.generation_prompt, 32),
            }
            for one in page
        ],
        none="There are no generations here.",
    )
    if page.offset + len(page) < page.total:
        session.output.say(
            f"{len(page)} of {page.total}; --offset {page.offset + len(page)} shows older ones."
        )


def get(session: Session, id: IdArgument) -> None:
    """Show one generation, with links that hold for a while."""
    with session.client() as client:
        generation = client.get_generation(id)
    if session.output.as_json:
        session.output.document(generation.raw)
        return
    session.output.record({name: value for name, value in _rows(generation).items() if value is not None})


def _rows(generation: Generation) -> dict[str, Any]:
    took = generation.generation_metrics_total_time
    return {
        "id": generation.id,
        "status": generation.status,
        "model": generation.model_identifier,
        "prompt": generation.generation_prompt,
        "provider": generation.generation_provider_used,
        "made": generation.generation_created_at,
        "took": None if took is None else seconds(took),
        "error": generation.generation_error,
        "code": generation.generation_error_code,
        "removed": "its files are gone" if generation.generation_removed else None,
        **{f"file {number}": url for number, url in enumerate(generation.urls, 1)},
    }


def cancel(session: Session, id: IdArgument) -> None:
    """Cancel a generation in flight; its credits come back."""
    with session.client() as client:
        canceled = client.cancel_generation(id)
    if session.output.as_json:
        session.output.document({"generation_id": canceled.generation_id, **canceled.raw})
        return
    refunded = canceled.credits_refunded
    session.output.say(
        "Canceled." if refunded is None else f"Canceled; {in_credits(refunded)} came back.", style="green"
    )


def delete(session: Session, id: IdArgument) -> None:
    """Delete a final generation and its files on the server."""
    with session.client() as client:
        deleted = client.delete_generation(id)
    if session.output.as_json:
        session.output.document({"generation_id": deleted.generation_id, **deleted.raw})
        return
    session.output.say("Deleted.", style="green")


def download(
    session: Session,
    id: IdArgument,
    output: OutputOption = None,
    overwrite: OverwriteOption = False,
    timeout: TimeoutOption = 1800.0,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for one that is still running, or fail.")
    ] = True,
    show: ShowOption = None,
) -> None:
    """Save the files of a generation.

    One that is still running is waited for.
    """
    with session.client() as client:
        generation = client.get_generation(id)
        place = target(output, overwrite=overwrite, count=max(1, len(generation.urls)))
        if wait and not generation.done:
            generation = Watch(
                session, client, generation.id, timeout=timeout, cost=None, output=place.asked
            ).run()
        finish(session, client, generation, place, show)
