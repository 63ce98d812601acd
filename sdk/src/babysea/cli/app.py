"""All commands, and what becomes of a call."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from babysea import __version__
from babysea.cli import account, batch, generate, generations, mcp, models
from babysea.cli.output import Output


def build() -> typer.Typer:
    """The command line."""
    app = typer.Typer(
        name="babysea",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Pictures and clips from any model, on a BabySea server.",
    )
    app.callback()(_options)
    for part in (account, models, generate, generations, batch, mcp):
        part.add_to(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(__version__ + "\n")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Print the version."),
    ] = False,
) -> None:
    """Pictures and clips from any model, on a BabySea server."""


def run(arguments: Sequence[str]) -> int:
    """Carry out one call; returns the exit code."""
    try:
        code = build()(list(arguments), prog_name="babysea", standalone_mode=False)
    except typer.Abort:
        return 130
    except typer.TyperException as error:
        Output(as_json=False).error(error.format_message(), _help(error))
        return error.exit_code
    return code if isinstance(code, int) else 0


def _help(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return "" if context is None else f"See `{context.command_path} --help`."
